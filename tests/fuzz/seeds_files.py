"""Sound files and folders to damage, beside those of seeds.py: packages, archives, shards, measurements."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import torch

from tests.formats import packages as made
from tests.fuzz import seeds
from tests.fuzz.target import pack
from tests.fuzz.tensor_seeds import Small, tensor_files, zipped_package
from tests.real_models import MODELS

LARGEST = 150_000
"""A real package past this many bytes is no seed: each case would cost too long."""


def _folder(root: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {f"{root.name}/{path.relative_to(root)}": path.read_bytes() for path in paths}


def packages() -> list[bytes]:
    """Core ML packages: a linear layer, a classifier, a state with two functions, a flexible one, and a real one."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for index, make in enumerate((made.linear, made.classifier, made.accumulator)):
            make(root / f"{index}/model.mlpackage")
        made.relu(root / "3/model.mlpackage", (1, None), (1, 4), "fp16", opset="CoreML7")
        found = [_folder(root / f"{index}/model.mlpackage") for index in range(4)]
    real = [_folder(path) for path in sorted(MODELS.glob("mlpackage/*.mlpackage"))]
    found += [files for files in real if sum(map(len, files.values())) < LARGEST]
    first = found[0]
    (weights,) = [key for key in first if key.endswith("weight.bin")]
    linked = {key: data for key, data in first.items() if key != weights}
    linked |= {"model.mlpackage/Data/com.apple.CoreML/real.bin": first[weights], f"{weights}@": b"../real.bin"}
    loop = {key: data for key, data in first.items() if key != weights} | {f"{weights}@": b"weight.bin"}
    return [pack(files) for files in (*found, linked, loop)]


def compiled_models() -> list[bytes]:
    """Compiled models: MIL text and its weights, and the small real ones of both kinds."""
    text = seeds.TEXTS[0]
    program = {"m.mlmodelc/model.mil": text.encode(), "m.mlmodelc/coremldata.bin": seeds.descriptions()[1]}
    program |= {"m.mlmodelc/weights/weight.bin": seeds.weights()[0], "m.mlmodelc/metadata.json": b"[{}]"}
    real = [_folder(path) for path in sorted(MODELS.glob("mlmodelc/*.mlmodelc"))]
    alone = {"m.mlmodelc/coremldata.bin": seeds.descriptions()[0]}
    return [pack(files) for files in (program, alone, *real) if sum(map(len, files.values())) < LARGEST]


def zipped_packages() -> list[bytes]:
    """Zip archives with a package in them, one of them with weights; and with members that lead out of it."""
    plain = zipped_package(seeds.protobufs()[0])
    with tempfile.TemporaryDirectory() as name:
        files = _folder(made.linear(Path(name) / "net.mlpackage"))
    escapes = ("/../../x", "//tmp/x", "/Data/../../../x", "/Data/com.apple.CoreML/weights/../../../../x")
    archives = [files, *(files | {f"net.mlpackage{path}": b"escaped"} for path in escapes)]
    return [plain, *map(_zipped, archives)]


def _zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tensor_kinds() -> dict[str, Callable[[], Sequence[bytes]]]:
    """One maker of sound files for each format of weights."""
    return {name: (lambda kind=name: _by_kind()[kind]) for name in _KINDS}


_KINDS = ("safetensors", "gguf", "torch", "numpy", "pickle", "onnx")


@cache
def _by_kind() -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {name: [] for name in _KINDS}
    for case in tensor_files():
        if case.startswith(b"GGUF"):
            found["gguf"].append(case)
        elif case[8:9] == b"{":
            found["safetensors"].append(case)
        elif case.startswith(b"\x93NUMPY") or b".npy" in case[:200]:
            found["numpy"].append(case)
        elif case.startswith(b"PK") or b"\x8a\x0al\xfc\x9cF\xf9" in case[:40]:
            found["torch"].append(case)
        else:
            found["pickle" if case.startswith(b"\x80") else "onnx"].append(case)
    found["gguf"] += [path.read_bytes()[:LARGEST] for path in sorted(MODELS.glob("gguf/*.gguf"))]
    found["gguf"].append(_gguf_of_all_types())
    return {name: cases or [b"\x08\x08"] for name, cases in found.items()}


def _gguf_of_all_types() -> bytes:
    """A file with a block of every type that GGUF names, those without a decoder too."""
    import gguf

    out = bytearray(b"GGUF" + (3).to_bytes(4, "little"))
    sizes = {kind: gguf.GGML_QUANT_SIZES[kind] for kind in gguf.GGMLQuantizationType}
    out += len(sizes).to_bytes(8, "little") + (0).to_bytes(8, "little")
    offset = 0
    for kind, (elements, nbytes) in sizes.items():
        name = kind.name.encode()
        out += len(name).to_bytes(8, "little") + name + (1).to_bytes(4, "little") + elements.to_bytes(8, "little")
        out += int(kind).to_bytes(4, "little") + offset.to_bytes(8, "little")
        offset += -(-nbytes // 32) * 32
    out += bytes(-len(out) % 32)
    return bytes(out) + bytes(range(256)) * (offset // 256) + bytes(range(offset % 256))


def sharded() -> list[bytes]:
    """A folder of SafeTensors in two shards and its index."""
    from safetensors.numpy import save

    names = [f"model-0000{index}-of-00002.safetensors" for index in (1, 2)]
    files = {f"net/{name}": save({f"t{at}": np.ones(3, np.float32)}) for at, name in enumerate(names)}
    index = {"metadata": {"total_size": 24}, "weight_map": {"t0": names[0], "t1": names[1]}}
    files["net/model.safetensors.index.json"] = json.dumps(index).encode()
    files["net/config.json"] = b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8}'
    return [pack(files)]


class _Branch(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.BatchNorm1d(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.net(x)
        if y.sum() > 0:
            return y * 2
        return y


class _Writes(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "../../../canary/bird")
        return x


def scripts() -> list[bytes]:
    """TorchScript: a traced module, a scripted one with a branch, and one that writes a file when it is run."""
    found = [torch.jit.trace(Small().eval(), torch.ones(1, 3)), torch.jit.script(_Branch().eval())]
    with suppress(Exception):  # a torch that scripts no such call
        found.append(torch.jit.script(_Writes()))
    return [_jit(module) for module in found]


def _jit(module: torch.jit.ScriptModule) -> bytes:
    out = io.BytesIO()
    torch.jit.save(module, out)
    return out.getvalue()


def exported_programs() -> list[bytes]:
    """Archives of torch.export: with fixed shapes, and with a dynamic batch."""
    batch = torch.export.Dim("batch", min=1, max=8)
    module = Small().eval()
    found = []
    for shapes in (None, {"x": {0: batch}}):
        out = io.BytesIO()
        torch.export.save(torch.export.export(module, (torch.ones(2, 3),), dynamic_shapes=shapes), out)
        found.append(out.getvalue())
    return found


def npy_inputs() -> list[bytes]:
    """Files that hold a model's input."""
    return [case for kind in ("numpy", "safetensors") for case in _by_kind()[kind]]


def images() -> list[bytes]:
    """Small pictures in several formats and modes."""
    from PIL import Image

    found = []
    for mode, kind in (
        ("RGB", "PNG"),
        ("L", "PNG"),
        ("P", "PNG"),
        ("RGBA", "WEBP"),
        ("RGB", "JPEG"),
        ("I;16", "TIFF"),
        ("P", "GIF"),
    ):
        out = io.BytesIO()
        Image.new(mode, (5, 4), 3).save(out, kind)
        found.append(out.getvalue())
    return found


def saved_runs() -> list[bytes]:
    """Measurements as `tlkit bench --save` writes them, with everything a row can have."""
    from tests.cli.test_bench_views import RUN
    from tlkit.cli.sink.output import SCHEMA_VERSION, jsonable
    from tlkit.cli.views.bench.formats import document

    text = json.dumps({"schema_version": SCHEMA_VERSION} | jsonable(document(RUN, [], [])))
    return [text.encode()]
