"""Weights rounded per channel: codes and scales as stored, and the errors that are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlkit.formats.base.tensors import TensorEntry
from tlkit.formats.gguf.model.changes import Change
from tlkit.frontends.gguf.families import FAMILIES
from tlkit.frontends.gguf.kit.net import Net
from tlkit.frontends.gguf.kit.rounding import Rounding, Weights, channel_scales, coded
from tlkit.frontends.gguf.kit.source import LanguageSource, StoredTensor
from tlkit.mil.lower.constants import decompress
from tlkit.mil.types import DType


class Plain:
    """A tensor file of one f32 tensor."""

    def __init__(self, name: str, values: np.ndarray[Any, Any]) -> None:
        self.values = values.astype(np.float32)
        self.entry = TensorEntry(name, "F32", values.shape, self.values.nbytes)

    def raw(self, entry: TensorEntry) -> memoryview:
        return memoryview(self.values.tobytes())

    def decode(self, entry: TensorEntry, raw: memoryview) -> np.ndarray[Any, Any]:
        return np.frombuffer(raw, np.float32).reshape(entry.shape)

    def array(self, entry: TensorEntry) -> np.ndarray[Any, Any]:
        return self.values

    def is_compressed(self, entry: TensorEntry) -> bool:
        return False

    def release(self, entry: TensorEntry, nbytes: int) -> None:
        pass


def made(
    values: np.ndarray[Any, Any],
    rounding: Rounding,
    dtype: DType = DType.FP32,
    name: str = "blk.0.attn_q.weight",
    change: tuple[Change, ...] = (),
) -> tuple[str, np.ndarray[Any, Any]]:
    """The kind of the last operation, and its values."""
    file = Plain(name, values)
    tensor = StoredTensor(name, file, (file.entry,), change)  # type: ignore[arg-type]
    net = Net(LanguageSource(Path("x"), {}, {name: tensor}), FAMILIES["llama"], dtype, True, False, rounding)
    found = net.weight(tensor).name
    makers = {item.name: operation for operation in net.graph.operations for item in operation.outputs}
    if makers[found].type == "const":
        return "const", makers[found].attributes["val"].numpy().astype(np.float32)
    return makers[found].type, decompress(makers[found], makers, "CoreML8").numpy()


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["int8", "int4-channel"]), st.integers(0, 2**31), st.integers(1, 70), st.integers(1, 9))
def test_codes_are_the_nearest(weights: Weights, seed: int, width: int, rows: int) -> None:
    values = np.random.default_rng(seed).standard_normal((rows, width))
    values[0] = 0
    rounding = Rounding(weights)
    width += width % 2  # codes of four bits fill bytes
    values = np.resize(values, (rows, width)).astype(np.float32)
    kind, found = made(values, rounding)
    assert kind == "constexpr_blockwise_shift_scale"
    for wanted, row in zip(values, found, strict=True):
        steps = np.unique(np.abs(row[row != 0]))
        if not len(steps):
            assert not wanted.any() or np.abs(wanted).max() < 1e-6
            continue
        # Whole multiples of one number, of which there are so many; what is not clipped is off by half at most.
        most = 127 if weights == "int8" else 7
        unit = np.abs(row).max() / most
        assert np.allclose(row / unit, np.rint(row / unit), atol=1e-3)
        inside = np.abs(wanted) <= np.abs(row).max()
        assert (np.abs(row - wanted)[inside] <= unit * 0.5001).all()
    told = rounding.errors["blk.0.attn_q.weight"]
    wrong = np.sqrt(np.square(found - values).sum() / max(np.square(values).sum(), 1e-30))
    assert np.isclose(told.relative, wrong, rtol=1e-3, atol=1e-9)


def test_four_bits_clip_where_that_is_nearer() -> None:
    rows = np.random.default_rng(1).laplace(size=(32, 256)).astype(np.float32)
    scales = channel_scales(rows, "int4", DType.FP32)
    plain = np.abs(rows).max(axis=1) / 7

    def error(scale: Any) -> float:
        return float(np.square(rows - coded(rows, scale, "int4") * scale[:, None]).sum())

    assert error(scales) < 0.9 * error(plain)
    assert (scales <= plain).all()


def test_scales_of_f16_are_what_codes_are_made_for() -> None:
    values = np.random.default_rng(2).standard_normal((8, 64)) * 1e-3
    rounding = Rounding("int8", DType.FP16)
    narrow, wide = made(values, rounding, DType.FP16)[1], made(values, rounding, DType.FP32)[1]
    assert np.array_equal(narrow, wide.astype(np.float16).astype(np.float32))


def test_which_weights_are_kept() -> None:
    values = np.random.default_rng(3).standard_normal((4, 64)).astype(np.float32)
    kept = ["blk.0.ffn_gate_inp.weight", "position_embd.weight", "blk.0.attn_q.bias"]
    for name in kept:
        kind, found = made(values, Rounding("int8"), name=name)
        assert (kind, np.array_equal(found, values)) == ("const", True)
    rounding = Rounding("int4-channel")
    for name in ("token_embd.weight", "output.weight", "blk.0.ffn_up.weight"):
        made(values, rounding, name=name)
    assert [error.kind for error in rounding.errors.values()] == ["int8 per channel"] * 2 + ["int4 per channel"]


def test_halves_are_widened_in_f32_and_tell_their_error() -> None:
    values = np.random.default_rng(4).standard_normal((4, 64)).astype(np.float32)
    rounding = Rounding("f16")
    kind, found = made(values, rounding)
    assert kind == "constexpr_cast"
    assert np.array_equal(found, values.astype(np.float16).astype(np.float32))
    assert 1e-5 < rounding.errors["blk.0.attn_q.weight"].relative < 5e-4
    exact = Rounding("f16")
    assert made(values.astype(np.float16), exact, DType.FP16)[0] == "const"
    assert not exact.errors


@pytest.mark.parametrize("kind", ["q rows", "transposed"])
def test_pieces_are_the_changed_values(kind: Any) -> None:
    values = np.arange(8 * 6, dtype=np.float32).reshape(8, 6)
    change = Change(kind, 2, back=True)
    file = Plain("x.weight", values)
    tensor = StoredTensor("x.weight", file, (file.entry, file.entry), (change,))  # type: ignore[arg-type]
    found = np.concatenate(list(tensor.pieces()))
    assert np.array_equal(found.reshape(tensor.shape), tensor.array())
