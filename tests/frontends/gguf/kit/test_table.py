"""The table of block types in docs/language.md is what the code does."""

from __future__ import annotations

from pathlib import Path

from tlkit.formats.base.dtypes import BLOCKS, QUANTIZED
from tlkit.frontends.gguf.kit.block_types import block_types
from tlkit.frontends.gguf.kit.blocks import Way, way_of
from tlkit.mil.types import DType

DOCS = Path(__file__).parents[4] / "docs" / "language.md"
WORDS: dict[Way | None, str] = {
    "one": "one operation",
    "minimum": "two operations (`--nested`)",
    "cast": "in f32, then rounded (`--nested`)",
    None: "dense",
}


def bits(name: str, way: Way | None, computed: DType) -> float:
    """Bits of one weight as it is stored."""
    if way is None:
        return computed.bits
    kind = block_types()[name]
    inner = computed if way != "cast" else DType.FP32
    # A minimum brings its own number and a scale of 1 for each group.
    return kind.codes.bits + inner.bits * (3 if kind.minima is not None else 1) / kind.size


def row(name: str) -> str:
    elements, size = BLOCKS[name]
    told = []
    for computed in (DType.FP32, DType.FP16):
        plain, nested = way_of(name, computed, nested=False), way_of(name, computed, nested=True)
        told += [WORDS[plain or nested], f"{bits(name, plain or nested, computed):.2f}"]
    return f"| {name} | {8 * size / elements:.2f} | {' | '.join(told)} |"


def test_the_table_is_what_is_done() -> None:
    text = DOCS.read_text()
    missing = [row(name) for name in block_types() if row(name) not in text]
    assert not missing, "\n" + "\n".join(missing)
    without = QUANTIZED - set(block_types())
    assert without == {"Q8_1", "Q8_K", "Q1_0"}
    assert "Q8_1 and Q8_K (what ggml rounds activations to) and Q1_0 have no values that tlkit reads" in text
