"""Grouping by block: names that differ in numbers alone, of one type and shape."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlkit.formats.base.tensors import TensorEntry
from tlkit.formats.groups import group


def entry(name: str, dtype: str = "F16", shape: tuple[int, ...] = (2, 3)) -> TensorEntry:
    return TensorEntry(name, dtype, shape, 12)


def test_a_block_is_one_row() -> None:
    rows = group([entry(f"model.layers.{i}.mlp.up_proj.weight") for i in range(32)] + [entry("norm", shape=(3,))])
    assert [(row.name, row.count) for row in rows] == [("model.layers.[0-31].mlp.up_proj.weight", 32), ("norm", 1)]
    assert (rows[0].parameters, rows[0].bytes) == (32 * 6, 32 * 12)


def test_types_and_shapes_keep_apart() -> None:
    rows = group([entry(f"blk.{i}.v", "Q6_K" if i in (0, 1, 5) else "Q4_K") for i in range(8)])
    assert [(row.name, row.dtype) for row in rows] == [("blk.[0-1,5].v", "Q6_K"), ("blk.[2-4,6-7].v", "Q4_K")]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["a.0.e.0.w", "a.0.e.1.w", "a.1.e.0.w", "a.1.e.1.w"], ["a.[0-1].e.[0-1].w"]),
        (["conv2d.w", "conv3d.w"], ["conv2d.w", "conv3d.w"]),
        (["layer_1/w", "layer_2/w"], ["layer_[1-2]/w"]),
        (["w.00001", "w.1"], ["w.[1]"]),
        (["7"], ["7"]),
        (["a\0b.1", "a.2"], ["a\0b.1", "a.2"]),
        (["x." + "9" * 30, "x.1"], ["x.*"]),
    ],
)
def test_names(names: list[str], shown: list[str]) -> None:
    assert [row.name for row in group(map(entry, names))] == shown


@given(st.lists(st.text("ab.01-[", max_size=8), unique=True, max_size=20))
def test_nothing_is_lost(names: list[str]) -> None:
    rows = group(map(entry, names))
    assert sum(row.count for row in rows) == len(names) and len({row.name for row in rows if row.count == 1}) <= len(
        rows
    )
