"""Matrices that stay blocks on a GPU, beside gguf-py's dequantized values.

Covers tlkit/engines/torch/fused/blocks.py, tlkit/engines/torch/fused/triton_blocks.py.
On the CPU what runs is PyTorch's own words for the kernels; the kernels run on CUDA, and in Triton's interpreter where
Triton is installed and TRITON_INTERPRET is set.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.formats.gguf.model.folders import build
from tests.frontends.gguf.kit.test_blocks import Raw, wanted
from tlkit import convert_weights
from tlkit.core.language.answer import answer
from tlkit.core.language.model import open_language
from tlkit.engines.torch.engine import TorchEngine
from tlkit.engines.torch.fused import blocks
from tlkit.engines.torch.fused.blocks import BlockWeight, InBlocks, picked
from tlkit.engines.torch.fused.decoding import product, resident
from tlkit.formats.base.dtypes import BLOCKS
from tlkit.formats.gguf.model.changes import Change
from tlkit.frontends.gguf.decoder import Form
from tlkit.frontends.gguf.kit.block_types import block_types
from tlkit.frontends.gguf.kit.net import DecodedWeight
from tlkit.frontends.gguf.kit.source import StoredTensor
from tlkit.mil.lower import lower
from tlkit.mil.program import TensorType, Value
from tlkit.mil.types import DType
from tlkit.types import Unit

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
by_kernels = pytest.mark.skipif(
    DEVICE.type == "cpu" and not os.environ.get("TRITON_INTERPRET"), reason="neither a GPU nor an interpreter"
)
TYPES = sorted(block_types())
NARROW = {"IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_S", "IQ1_M", "TQ1_0"}
"""Types that are narrower in a file than codes and scales are."""


def made(dtype: str, rows: int = 6, device: torch.device = DEVICE) -> tuple[BlockWeight, torch.Tensor]:
    """A matrix of random blocks, and its values by gguf-py."""
    raw = Raw(dtype, rows, 5)
    found = InBlocks(device)(value_of(StoredTensor("w", raw, (raw.entry,))))
    assert found is not None
    return found, torch.from_numpy(np.array(wanted(raw), np.float32)).to(device)


def value_of(tensor: StoredTensor) -> Value:
    return Value(TensorType(DType.FP32, tensor.shape), DecodedWeight(tensor, DType.FP32))


@pytest.mark.parametrize("dtype", TYPES)
def test_values_are_the_files(dtype: str) -> None:
    weight, values = made(dtype)
    assert torch.equal(weight.dense(), values)
    assert torch.equal(weight.dense(2, 5), values[2:5])
    held = sum(part.nbytes for part in weight.buffers()) - weight.table.nbytes
    elements, size = BLOCKS[dtype]
    assert held <= (1.3 if dtype not in NARROW else 3) * values.numel() * size // elements
    assert torch.equal(blocks.dense(weight), values)  # on CUDA, and in the interpreter, by a kernel
    places = torch.tensor([[4, 0, 99, -7]], dtype=torch.int32, device=DEVICE)
    assert torch.equal(blocks.picked(weight, places), values[[4, 0, 5, 0]][None])


def test_rows_are_put_back_with_their_scales() -> None:
    raw = Raw("Q4_K", 16, 6)
    back = Change("q rows", 2, back=True)
    found = InBlocks(DEVICE)(value_of(StoredTensor("w", raw, (raw.entry,), (back,))))
    assert found is not None
    assert torch.equal(found.dense().cpu(), torch.from_numpy(np.ascontiguousarray(back.apply(wanted(raw)))))


@pytest.mark.parametrize("count", [3, 9])
def test_many_rows_are_multiplied_some_at_a_time(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, values = made("Q5_K", 7)
    x, bias, residual = (torch.randn(*size, device=DEVICE) for size in ((count, 256), (7,), (count, 7)))
    exact = x.double() @ values.double().T + bias + residual
    for piece in (256 * 3, 1 << 22):
        monkeypatch.setattr(blocks, "_PIECE", piece)
        found = product(x, weight, bias, residual)
        assert float((found - exact).abs().max() / exact.abs().max()) < 2e-6


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not here")
@by_kernels
@pytest.mark.parametrize("dtype", TYPES)
def test_kernels_give_values_and_sums(dtype: str) -> None:
    from tlkit.engines.torch.fused import triton_blocks

    weight, values = made(dtype, 5)
    assert torch.equal(triton_blocks.rows(weight, 1, 4), values[1:4])
    places = torch.tensor([4, 0, 2], device=DEVICE)
    assert torch.equal(triton_blocks.picked(weight, places), values[places])
    for count in (1, 3):
        x, bias, residual = (torch.randn(*size, device=DEVICE) for size in ((count, 256), (5,), (count, 5)))
        exact = x.double() @ values.double().T
        for added in ((None, None), (bias, residual)):
            wanted_sum = exact + sum(item for item in added if item is not None)
            found = triton_blocks.product(x, weight, *added)
            assert float((found - wanted_sum).abs().max() / wanted_sum.abs().max()) < 2e-6


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model in Q4_K, Q6_K and Q5_0 (where rows have 288 weights)."""
    folder = tmp_path_factory.mktemp("blocks") / "folder"
    build(folder, "llama", hidden_size=256, intermediate_size=288, num_attention_heads=4, num_key_value_heads=2)
    made_file = folder.with_name("model.gguf")
    convert_weights(folder, made_file, quantize="q4_k_m")
    return made_file


def test_a_step_with_blocks_is_the_step(file: Path) -> None:
    model, constants = open_language(file), dict[Any, Any]()
    functions = [model.function(Form(size, 64, 64)) for size in (8, 1)]
    assert {tensor.entries[0].dtype for tensor in model.source.tensors.values()} >= {"Q4_K", "Q5_0", "Q6_K"}
    plain = [TorchEngine(function, precision="f32") for function in functions]
    moved = [
        lower.lower(function, precision="f32", constants=constants, stays=InBlocks(DEVICE)) for function in functions
    ]
    for module, function in zip(moved, functions, strict=True):
        resident(module, function, DEVICE, constants)
        assert sum(node.target is picked for node in module.graph.nodes) == 1
        assert all(buffer.ndim < 2 or buffer.numel() < 1 << 14 for buffer in module.buffers(recurse=False))
    held = [{id(part) for part in module.children() if isinstance(part, BlockWeight)} for module in moved]
    assert held[0] == held[1] and len(held[0]) == 2 * 7 + 1 + ("output.weight" in model.source.tensors)
    states = [plain[0].make_state(), plain[0].make_state()]
    states[1].tensors = {name: value.to(DEVICE) for name, value in states[1].tensors.items()}
    for engine, module, position, tokens in ((plain[0], moved[0], 0, range(3, 11)), (plain[1], moved[1], 8, [13])):
        given = {"tokens": np.array([tokens], np.int32), "position": np.array([position], np.int32)}
        given |= {"last": np.array([len(tokens) - 1], np.int32)} if len(tokens) > 1 else {}
        expected = engine.run(given, states[0])["logits"]
        operands = [operand.to(DEVICE) for operand in engine.operands(given, states[1])]
        with torch.inference_mode():
            found = module(*operands)[0].cpu().numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6 * np.abs(expected).max())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_a_gpu_says_with_blocks_what_the_cpu_says(file: Path) -> None:
    said = [
        answer(file, "The quick brown fox", most=48, context=100, engine="torch", unit=unit)
        for unit in (Unit.CPU, Unit.GPU)
    ]
    assert said[0].tokens == said[1].tokens
    assert "on " in said[1].engine
