"""Blocks as MIL's compressed constants: equal bits to the gguf package's values, by tlkit's ops and by coremltools'."""

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
from tlkit.frontends.gguf.kit.net import Net
from tlkit.frontends.gguf.kit.source import LanguageSource, StoredTensor
from tlkit.mil.lower.constants import decompress
from tlkit.mil.types import DType

ONE_LEVEL = ["Q8_0", "Q4_0", "Q5_0", "IQ4_NL"]
F32 = [*ONE_LEVEL, "Q6_K"]
NESTED = ["Q4_K", "Q5_K", "Q4_1", "Q5_1"]
_SCALES = {"Q6_K": [208], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q4_1": [0, 2], "Q5_1": [0, 2]}


class Raw:
    """The part of a tensor file that is asked: one tensor of random blocks, whose scales are finite numbers."""

    def __init__(self, dtype: str, rows: int, seed: int) -> None:
        elements, size = BLOCKS[dtype]
        draw = np.random.default_rng(seed)
        blocks = draw.integers(0, 256, (rows * 256 // elements, size), np.uint8)
        for place in _SCALES.get(dtype, [0]):
            scale = draw.choice([-1, 1], len(blocks)) * draw.uniform(2**-13, 2**-5, len(blocks))
            blocks[:, place : place + 2] = scale.astype(np.float16)[:, None].view(np.uint8)
        self.blocks = blocks
        self.entry = TensorEntry("blk.0.attn_q.weight", dtype, (rows, 256), blocks.nbytes)

    def raw(self, entry: TensorEntry) -> memoryview:
        return memoryview(self.blocks.tobytes())

    def release(self, entry: TensorEntry, nbytes: int) -> None:
        pass


def made(raw: Raw, dtype: DType, nested: bool, changes: tuple[Change, ...] = ()) -> tuple[np.ndarray[Any, Any], Net]:
    tensor = StoredTensor(raw.entry.name, raw, (raw.entry,), changes)  # type: ignore[arg-type]
    net = Net(LanguageSource(Path("x"), {}, {tensor.name: tensor}), FAMILIES["llama"], dtype, True, nested)
    name = net.weight(tensor).name
    makers = {item.name: operation for operation in net.graph.operations for item in operation.outputs}
    assert makers[name].type == "constexpr_blockwise_shift_scale"
    return decompress(makers[name], makers, "CoreML8").numpy(), net


def wanted(raw: Raw) -> np.ndarray[Any, Any]:
    import gguf

    return gguf.dequantize(raw.blocks, gguf.GGMLQuantizationType[raw.entry.dtype]).reshape(raw.entry.shape)


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([*F32, *NESTED]), st.integers(0, 2**31))
def test_f32_has_the_same_bits(dtype: str, seed: int) -> None:
    raw = Raw(dtype, 4, seed)
    found, _ = made(raw, DType.FP32, dtype in NESTED)
    assert np.array_equal(found, wanted(raw))


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(ONE_LEVEL), st.integers(0, 2**31))
def test_f16_has_the_values_rounded_once(dtype: str, seed: int) -> None:
    raw = Raw(dtype, 4, seed)
    found, _ = made(raw, DType.FP16, False)
    assert np.array_equal(found, wanted(raw).astype(np.float16).astype(np.float32))


def test_rows_are_put_back_in_codes_and_scales_alike() -> None:
    raw, change = Raw("Q4_0", 8, 3), Change("q rows", 2, back=True)
    found, _ = made(raw, DType.FP32, False, (change,))
    assert np.array_equal(found, change.apply(wanted(raw)))
    assert not np.array_equal(found, wanted(raw))


@pytest.mark.parametrize(("dtype", "kind", "nested"), [("Q6_K", DType.FP16, True), ("Q4_K", DType.FP32, False)])
def test_what_is_not_exact_stays_dense(dtype: str, kind: DType, nested: bool) -> None:
    raw = Raw(dtype, 2, 1)
    tensor = StoredTensor(raw.entry.name, raw, (raw.entry,))  # type: ignore[arg-type]
    net = Net(LanguageSource(Path("x"), {}, {tensor.name: tensor}), FAMILIES["llama"], kind, True, nested)
    net.weight(tensor)
    assert [operation.type for operation in net.graph.operations] == ["const"]
