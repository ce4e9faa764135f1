"""How GGUF's block types are taken apart into codes, scales and minima, for MIL's compressed constants.

A block's weights are ``scale * code``, in f32 exactly; types with a minimum are ``scale * code - minimum``. All parts
are read by the decoders themselves: of blocks whose scales are overwritten with 1 they make the codes, and of blocks
whose codes are 1 the scales. So there is one place that knows how bits lie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.formats.base.dtypes import BLOCKS
from tlkit.formats.gguf.quants import dequantize
from tlkit.mil.types import DType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Blocks = NDArray[Any]

Change = Callable[["Blocks"], None]
"""What overwrites some bytes of each block."""
Read = Callable[["Blocks"], Any]
"""What reads a number for each group of each block: float32 [blocks, groups]."""

_IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_FP4 = (-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12)
_ODD = range(-15, 16, 2)
_THREES = (-62, -52, -44, -36, -28, -20, -12, -4, 4, 12, 20, 28, 36, 44, 52, 62)
_TWOS = (-43, -25, -8, 8, 25, 43)
_EIGHTHS = (-9, -7, -1, 1, 7, 9)


@dataclass(frozen=True, slots=True)
class BlockType:
    """How one type is taken apart: weights that share a scale, the codes' type, what is written into the bytes so that
    decoding gives the codes, how scales and minima are read, whether these are f16 numbers (``half``; ``fits`` asks the
    blocks where that depends on them), which bytes are the codes where they are stored as such, the values that codes
    take (``levels``), and where blocks have an f16 factor of all their scales, and one of all minima (``wholes``): with
    1 for these, scales and minima are whole numbers of 8 bits."""

    size: int
    codes: DType
    plain: Change
    scales: Read
    minima: Read | None = None
    half: bool = False
    direct: slice | None = None
    fits: Callable[[Blocks], bool] | None = None
    levels: Sequence[int] = range(-128, 128)
    wholes: tuple[int, ...] = ()


def _write(start: int, *values: int) -> Change:
    def change(blocks: Blocks) -> None:
        for index, value in enumerate(values):
            blocks[:, start + index] = value

    return change


def _fill(start: int, stop: int, value: int) -> Change:
    return _write(start, *[value] * (stop - start))


def _all(*changes: Change) -> Change:
    def change(blocks: Blocks) -> None:
        for each in changes:
            each(blocks)

    return change


def _one(start: int) -> Change:
    """Return what writes 1 as an f16."""
    return _f16(start, 0x3C00)


def _f16(start: int, bits: int) -> Change:
    return _write(start, bits & 255, bits >> 8)


def _half(start: int) -> Read:
    """Return what reads the f16 at ``start`` of each block."""
    return lambda blocks: np.ascontiguousarray(blocks[:, start : start + 2]).view("<f2").astype(np.float32)


def _decoded(dtype: str, size: int, change: Change) -> Read:
    """Return what decodes blocks after a change of them, and takes the first weight of each group."""

    def read(blocks: Blocks) -> Any:
        changed = blocks.copy()
        change(changed)
        return dequantize(changed, dtype, (len(blocks), BLOCKS[dtype][0]))[:, ::size]

    return read


def _less(read: Read) -> Read:
    return lambda blocks: -read(blocks)


def _ratio(dtype: str, size: int, plain: Change) -> Read:
    """Return what divides weights by their codes, which are never 0 in these types: products are exact in f32, and so
    are the quotients."""
    codes = _decoded(dtype, size, plain)
    values = _decoded(dtype, size, lambda blocks: None)
    return lambda blocks: values(blocks) / codes(blocks)


def _simple(codes: DType, levels: Sequence[int], direct: slice | None = None) -> BlockType:
    """One f16 scale at the block's start."""
    return BlockType(32, codes, _one(0), _half(0), half=True, direct=direct, levels=levels)


def _with_minimum(codes: DType, levels: range) -> BlockType:
    """An f16 scale and an f16 that is added."""
    plain = _all(_one(0), _write(2, 0, 0))
    return BlockType(32, codes, plain, _half(0), _less(_half(2)), half=True, levels=levels)


_SIXES = (1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1)
"""Q4_K's and Q5_K's twelve bytes of scales, all of them 1 and all minima 0."""


def _of_k(dtype: str, codes: DType, low: int) -> BlockType:
    """Q4_K and Q5_K: f16 scale and minimum, six bits of each for 32 weights; codes from byte ``low`` on, fifth bits
    from byte 16 on."""
    whole = BLOCKS[dtype][1]
    none = _fill(16, low, 0)
    ones = _all(none, _fill(low, whole, 0x11), _write(2, 0, 0))
    minima = _decoded(dtype, 32, _all(none, _fill(low, whole, 0)))
    plain = _all(_one(0), _write(2, 0, 0, *_SIXES))
    levels = range(16 if codes is DType.UINT4 else 32)
    return BlockType(32, codes, plain, _decoded(dtype, 32, ones), _less(minima), levels=levels, wholes=(0, 2))


def _two() -> BlockType:
    """Q2_K: four bits of scale and minimum for 16 weights, two f16 factors at the end."""
    scales = _decoded("Q2_K", 16, _all(_fill(16, 80, 0x55), _write(82, 0, 0)))
    minima = _decoded("Q2_K", 16, _fill(16, 80, 0))
    plain = _all(_fill(0, 16, 0x01), _one(80), _write(82, 0, 0))
    return BlockType(16, DType.UINT4, plain, scales, _less(minima), levels=range(4), wholes=(80, 82))


def _three() -> BlockType:
    """Q3_K: six bits of scale less 32 for 16 weights; here all of them are 33, in two parts."""
    plain = _all(_fill(96, 104, 0x11), _fill(104, 108, 0xAA), _one(108))
    scales = _decoded("Q3_K", 16, _all(_fill(0, 32, 0xFF), _fill(32, 96, 0x55)))
    return BlockType(16, DType.INT4, plain, scales, levels=range(-4, 4), wholes=(108,))


def _six() -> BlockType:
    """Q6_K: 16 scales of 8 bits, times the f16 at the end; the products are exact in f32."""

    def scales(blocks: Blocks) -> Any:
        return np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32) * _half(208)(blocks)

    plain = _all(_fill(192, 208, 1), _one(208))
    return BlockType(16, DType.INT8, plain, scales, levels=range(-32, 32), wholes=(208,))


def _by_table(
    dtype: str, size: int, levels: Sequence[int], *changes: Change, wholes: tuple[int, ...] = ()
) -> BlockType:
    """Types whose codes are values of a table that has no 0: their scales are quotients."""
    plain = _all(*changes)
    return BlockType(size, DType.INT8, plain, _ratio(dtype, size, plain), levels=levels, wholes=wholes)


def _ternary(dtype: str) -> BlockType:
    place = BLOCKS[dtype][1] - 2
    return BlockType(256, DType.INT4, _one(place), _half(place), half=True, levels=range(-1, 3))


def _powers(blocks: Blocks) -> bool:
    """Whether MXFP4's powers of two, and their products with the codes (to 12), are f16 numbers."""
    return bool(((blocks[:, 0] >= 104) & (blocks[:, 0] <= 139)).all())


@cache
def block_types() -> Mapping[str, BlockType]:
    """Return how each type is taken apart, by GGUF's name."""
    return {
        "Q8_0": _simple(DType.INT8, range(-128, 128), slice(2, 34)),
        "Q4_0": _simple(DType.INT4, range(-8, 8)),
        "Q5_0": _simple(DType.INT8, range(-16, 16)),
        "IQ4_NL": _simple(DType.INT8, _IQ4),
        # 2^(128 - 128), and FP4's values doubled, are whole numbers.
        "MXFP4": BlockType(
            32,
            DType.INT8,
            _write(0, 128),
            _decoded("MXFP4", 32, _fill(1, 17, 0x11)),
            half=True,
            fits=_powers,
            levels=_FP4,
        ),
        "NVFP4": BlockType(
            16, DType.INT8, _fill(0, 4, 0x40), _decoded("NVFP4", 16, _fill(4, 36, 0x11)), half=True, levels=_FP4
        ),
        "TQ1_0": _ternary("TQ1_0"),
        "TQ2_0": _ternary("TQ2_0"),
        "Q6_K": _six(),
        "Q3_K": _three(),
        "IQ4_XS": _by_table("IQ4_XS", 32, _IQ4, _one(0), _fill(2, 4, 0xAA), _fill(4, 8, 0x11), wholes=(0,)),
        # Scales of 0 count half (IQ1: 1, and its codes have eighths), times a quarter or a half.
        "IQ3_S": _by_table("IQ3_S", 32, _ODD, _one(0), _fill(106, 110, 0), wholes=(0,)),
        "IQ3_XXS": _by_table("IQ3_XXS", 32, _THREES, _f16(0, 0x4400), _top_bits(66)),
        "IQ2_S": _by_table("IQ2_S", 16, _TWOS, _f16(0, 0x4800), _fill(74, 82, 0)),
        "IQ2_XS": _by_table("IQ2_XS", 16, _TWOS, _f16(0, 0x4800), _fill(66, 74, 0)),
        "IQ2_XXS": _by_table("IQ2_XXS", 32, _TWOS, _f16(0, 0x4800), _top_bits(6, 8)),
        "IQ1_S": _by_table("IQ1_S", 32, _EIGHTHS, _f16(0, 0x4800), _one_s),
        "IQ1_M": _by_table("IQ1_M", 16, _EIGHTHS, _write(48, 0, 0, 0, 0, 0, 0x80, 0, 0x40)),
        "Q4_1": _with_minimum(DType.UINT4, range(16)),
        "Q5_1": _with_minimum(DType.UINT8, range(32)),
        "Q2_K": _two(),
        "Q4_K": _of_k("Q4_K", DType.UINT4, 16),
        "Q5_K": _of_k("Q5_K", DType.UINT8, 48),
    }


def _top_bits(start: int, step: int = 4) -> Change:
    """Return what clears the upper four bits of each word of four bytes: a scale, above bits of signs."""

    def change(blocks: Blocks) -> None:
        for place in range(8):
            blocks[:, start + place * step + 3] &= 0x0F

    return change


def _one_s(blocks: Blocks) -> None:
    """Clear IQ1_S's scales, bits 12 to 14 of each of its words."""
    blocks[:, 35:50:2] &= 0x8F
