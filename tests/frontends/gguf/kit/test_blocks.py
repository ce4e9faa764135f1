"""Blocks as MIL's compressed constants: equal bits to the gguf package's values.

Covers tlkit/frontends/gguf/kit/block_types.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlkit.formats.base.dtypes import BLOCKS
from tlkit.formats.base.tensors import TensorEntry
from tlkit.formats.gguf.model.changes import Change
from tlkit.frontends.gguf.families import FAMILIES
from tlkit.frontends.gguf.kit.blocks import way_of_tensor
from tlkit.frontends.gguf.kit.net import Net
from tlkit.frontends.gguf.kit.rounding import Rounding
from tlkit.frontends.gguf.kit.source import LanguageSource, StoredTensor
from tlkit.mil.lower.constants import decompress
from tlkit.mil.types import DType

ONE_LEVEL = ["Q8_0", "Q4_0", "Q5_0", "IQ4_NL", "MXFP4", "NVFP4", "TQ1_0", "TQ2_0"]
GRIDS = ["IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_S", "IQ1_M"]
F32 = [*ONE_LEVEL, "Q6_K", "Q3_K", "IQ4_XS", *GRIDS]
NESTED = ["Q2_K", "Q4_K", "Q5_K", "Q4_1", "Q5_1"]
_SCALES = {
    "Q6_K": [208],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q4_1": [0, 2],
    "Q5_1": [0, 2],
    "Q2_K": [80, 82],
    "Q3_K": [108],
}
_SCALES |= {"Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108]}
_SCALES |= {"TQ1_0": [52], "TQ2_0": [64], "MXFP4": [], "NVFP4": [], "IQ1_M": []}
"""Where the f16 numbers of a block lie."""


class Raw:
    """The part of a tensor file that is asked: one tensor of random blocks, whose scales are finite numbers."""

    def __init__(self, dtype: str, rows: int, seed: int) -> None:
        elements, size = BLOCKS[dtype]
        draw = np.random.default_rng(seed)
        blocks = draw.integers(0, 256, (rows * 256 // elements, size), np.uint8)
        for place in _SCALES.get(dtype, [0]):
            scale = draw.choice([-1, 1], len(blocks)) * draw.uniform(2**-13, 2**-5, len(blocks))
            blocks[:, place : place + 2] = scale.astype(np.float16)[:, None].view(np.uint8)
        if dtype == "MXFP4":
            blocks[:, 0] = draw.integers(104, 140, len(blocks))
        if dtype == "IQ1_M":  # its scale is in the upper bits of four words
            blocks[:, 55] = blocks[:, 55] & 0x0F | 0x20
        if dtype == "TQ1_0":  # bytes that no five digits in base 3 make are read otherwise by the package
            digits = draw.integers(0, 3, (len(blocks), 48, 5)) @ np.array([81, 27, 9, 3, 1])
            blocks[:, :48] = -(-digits * 256 // 243)
            blocks[:, 48:52] = -(-(draw.integers(0, 81, (len(blocks), 4)) * 3) * 256 // 243)
        self.blocks = blocks
        self.entry = TensorEntry("blk.0.attn_q.weight", dtype, (rows, 256), blocks.nbytes)

    def raw(self, entry: TensorEntry) -> memoryview:
        return memoryview(self.blocks.tobytes())

    def release(self, entry: TensorEntry, nbytes: int) -> None:
        pass


def made(
    raw: Raw, dtype: DType, nested: bool, changes: tuple[Change, ...] = (), rounding: Rounding | None = None
) -> tuple[np.ndarray[Any, Any], Net]:
    tensor = StoredTensor(raw.entry.name, raw, (raw.entry,), changes)  # type: ignore[arg-type]
    net = Net(LanguageSource(Path("x"), {}, {tensor.name: tensor}), FAMILIES["llama"], dtype, True, nested, rounding)
    name = net.weight(tensor).name
    makers = {item.name: operation for operation in net.graph.operations for item in operation.outputs}
    assert makers[name].type == "constexpr_blockwise_shift_scale"
    return decompress(makers[name], makers, "CoreML8").numpy(), net


def wanted(raw: Raw) -> np.ndarray[Any, Any]:
    import gguf

    return gguf.dequantize(raw.blocks, gguf.GGMLQuantizationType[raw.entry.dtype]).reshape(raw.entry.shape)


@pytest.mark.parametrize("dtype", [*F32, *NESTED])
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_f32_has_the_same_bits(dtype: str, seed: int) -> None:
    raw = Raw(dtype, 4, seed)
    found, net = made(raw, DType.FP32, dtype in NESTED)
    assert np.array_equal(found, wanted(raw))
    assert sum(operation.type.startswith("constexpr") for operation in net.graph.operations) == 1 + (dtype in NESTED)


@pytest.mark.parametrize("dtype", [*F32, *NESTED])
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_f16_has_the_values_rounded_once(dtype: str, seed: int) -> None:
    raw = Raw(dtype, 4, seed)
    found, net = made(raw, DType.FP16, dtype not in ONE_LEVEL)
    with np.errstate(over="ignore"):
        assert np.array_equal(found, wanted(raw).astype(np.float16).astype(np.float32))
    count = sum(operation.type.startswith("constexpr") for operation in net.graph.operations)
    assert count == (1 if dtype in ONE_LEVEL else 3 if dtype in NESTED else 2)


def test_powers_that_f16_cannot_hold_are_no_f16() -> None:
    raw = Raw("MXFP4", 4, 5)
    raw.blocks[3, 0] = 150
    tensor = StoredTensor(raw.entry.name, raw, (raw.entry,))  # type: ignore[arg-type]
    assert way_of_tensor(tensor, DType.FP16, nested=False) is None
    assert way_of_tensor(tensor, DType.FP16, nested=True) == "cast"
    assert way_of_tensor(tensor, DType.FP32, nested=False) == "one"


@pytest.mark.parametrize(
    ("dtype", "kind", "least", "most"),
    [
        ("Q4_K", DType.FP32, 1e-8, 2e-7),
        ("Q2_K", DType.FP32, 1e-8, 2e-7),
        ("Q4_1", DType.FP16, 1e-5, 2e-3),
        ("Q6_K", DType.FP16, 1e-5, 1e-3),
        ("IQ2_XS", DType.FP16, 1e-5, 1e-3),
    ],
)
def test_requantized_is_near_and_says_how_near(dtype: str, kind: DType, least: float, most: float) -> None:
    raw, rounding = Raw(dtype, 8, 9), Rounding()
    if dtype == "Q4_K":  # a block that is its minimum: scales are 0, codes are not
        raw.blocks[0, 0:2] = 0
    found, net = made(raw, kind, False, (), rounding)
    values = wanted(raw)
    assert sum(operation.type.startswith("constexpr") for operation in net.graph.operations) == 1
    told = rounding.errors[raw.entry.name]
    error = float(np.sqrt(np.square(found - values).sum() / np.square(values).sum()))
    assert least < error < most
    assert np.isclose(told.relative, error, rtol=1e-3)
    assert np.isclose(told.largest, np.abs(found - values).max(), rtol=1e-3)
    assert (told.tensor, told.stored) == (raw.entry.name, dtype)


def test_rows_are_put_back_in_codes_and_scales_alike() -> None:
    raw, change = Raw("Q4_0", 8, 3), Change("q rows", 2, back=True)
    found, _ = made(raw, DType.FP32, False, (change,))
    assert np.array_equal(found, change.apply(wanted(raw)))
    assert not np.array_equal(found, wanted(raw))


@pytest.mark.parametrize(("dtype", "kind", "nested"), [("Q6_K", DType.FP16, False), ("Q4_K", DType.FP32, False)])
def test_what_is_not_exact_stays_dense(dtype: str, kind: DType, nested: bool) -> None:
    raw = Raw(dtype, 2, 1)
    tensor = StoredTensor(raw.entry.name, raw, (raw.entry,))  # type: ignore[arg-type]
    net = Net(LanguageSource(Path("x"), {}, {tensor.name: tensor}), FAMILIES["llama"], kind, True, nested)
    net.weight(tensor)
    assert [operation.type for operation in net.graph.operations] == ["const"]
