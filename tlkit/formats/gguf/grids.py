"""GGUF's types of 1 to 3 bits: codes that pick rows of a fixed table (a grid), signs, and scales.

The grids are data of ggml's, thousands of rows long; the gguf package has them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.formats.gguf.bits import Bytes, Floats, decoder, field, half, halves, scale
from tlkit.formats.gguf.encoders.lattices import grid


@decoder("IQ2_XXS")
def iq2_xxs(blocks: Bytes, out: Floats) -> None:
    """Decode codes of 8 bits for 8 elements; signs and scale of 32 elements share a word."""
    words = field(blocks, 2, 66, np.uint32).reshape(-1, 8, 2)
    codes = field(blocks, 2, 66).reshape(-1, 8, 8)[:, :, :4]
    _pick(out, grid("IQ2_XXS"), codes, _even_signs(words[..., 1]))
    # A word's upper 4 bits are the scale; below are four times 7 bits of signs.
    scale(out, _quarter(half(blocks, 0), words[..., 1] >> 28, 0.25))


@decoder("IQ2_XS")
def iq2_xs(blocks: Bytes, out: Floats) -> None:
    """Decode codes of 9 bits with 7 bits of signs; a 4-bit scale for each 16 elements."""
    codes = field(blocks, 2, 66, np.uint16)
    _pick(out, grid("IQ2_XS"), codes & 511, _even_table()[codes >> 9])
    scale(out, _quarter(half(blocks, 0), _pairs(field(blocks, 66, 74)), 0.25))


@decoder("IQ2_S")
def iq2_s(blocks: Bytes, out: Floats) -> None:
    """Decode codes of 10 bits, the upper two apart, with 8 signs each; a 4-bit scale for each 16 elements."""
    codes = field(blocks, 2, 34) | _spread(field(blocks, 66, 74), (0, 2, 4, 6), 3)
    _pick(out, grid("IQ2_S"), codes, _sign_table()[field(blocks, 34, 66)])
    scale(out, _quarter(half(blocks, 0), _pairs(field(blocks, 74, 82)), 0.25))


@decoder("IQ3_XXS")
def iq3_xxs(blocks: Bytes, out: Floats) -> None:
    """Decode codes of 8 bits for 4 elements; signs and scale of 32 elements share a word."""
    words = field(blocks, 66, 98, np.uint32)
    _pick(out, grid("IQ3_XXS"), field(blocks, 2, 66), _even_signs(words))
    scale(out, _quarter(half(blocks, 0), words >> 28, 0.5))


@decoder("IQ3_S")
def iq3_s(blocks: Bytes, out: Floats) -> None:
    """Decode codes of 9 bits for 4 elements, the ninth apart, with their signs; a 4-bit scale for each 32."""
    codes = field(blocks, 2, 66) | _spread(field(blocks, 66, 74), tuple(range(8)), 1)
    _pick(out, grid("IQ3_S"), codes, _sign_table()[field(blocks, 74, 106)])
    scale(out, half(blocks, 0) * (1 + 2 * _pairs(field(blocks, 106, 110)).astype(np.float32)))


@decoder("IQ1_S")
def iq1_s(blocks: Bytes, out: Floats) -> None:
    """Decode codes of 11 bits; 16 bits for each 32 elements hold the upper ones, a scale and a shift's sign."""
    words = field(blocks, 34, 50, np.uint16)
    # Three upper bits for each of four codes; bit 15 is the shift's sign, bits 12 to 14 are the scale.
    high = (words[..., None] >> np.array([0, 3, 6, 9], np.uint16)) & 7
    codes = field(blocks, 2, 34) | ((high | ((words >> 15) << 3)[..., None]) << 8).reshape(len(blocks), -1)
    _rows(out, _shifted_grid(), codes)
    scale(out, half(blocks, 0) * (2 * ((words >> 12) & 7) + 1).astype(np.float32))


@decoder("IQ1_M")
def iq1_m(blocks: Bytes, out: Floats) -> None:
    """Decode codes of 11 bits and a shift's sign each; the block's scale is in the upper bits of its groups' scales."""
    words = field(blocks, 48, 56, np.uint16)
    bits = (words & 0xF000) >> np.array([12, 8, 4, 0], np.uint16)
    whole = halves(np.bitwise_or.reduce(bits, axis=1, keepdims=True))
    factors = ((words[..., None] >> np.array([0, 3, 6, 9], np.uint16)) & 7).reshape(len(blocks), -1)
    codes = field(blocks, 0, 32) | _spread(field(blocks, 32, 48), (0, 4), 15)
    _rows(out, _shifted_grid(), codes)
    scale(out, whole * (2 * factors + 1).astype(np.float32))


def _pick(out: Floats, grid: Floats, codes: NDArray[Any], signs: Floats) -> None:
    """Fill ``out`` with the grid's rows that ``codes`` name, times ``signs``."""
    _rows(out, grid, codes)
    np.multiply(out, signs.reshape(out.shape), out=out)


def _rows(out: Floats, grid: Floats, codes: NDArray[Any]) -> None:
    # "clip" saves numpy's check of the bounds, which no code exceeds.
    np.take(grid, codes.reshape(-1), axis=0, out=out.reshape(-1, grid.shape[1]), mode="clip")


def _spread(packed: Bytes, shifts: tuple[int, ...], mask: int) -> NDArray[np.uint16]:
    """Return the upper bits of codes, several to a byte, each shifted to stand above 8 lower ones."""
    bits = (packed[..., None] >> np.array(shifts, np.uint8)) & np.uint8(mask)
    return bits.astype(np.uint16).reshape(len(packed), -1) << np.uint16(8)


def _pairs(packed: Bytes) -> Bytes:
    """Return the halves of each byte one after the other, the low one first."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)


def _quarter(whole: Floats, factors: NDArray[Any], share: float) -> Floats:
    # In ggml's order, so that every bit is the same.
    return whole * (np.float32(0.5) + factors.astype(np.float32)) * np.float32(share)


def _even_signs(words: NDArray[np.uint32]) -> Floats:
    """Return the signs of 32 elements that the lower 28 bits of each word hold, 7 bits for 8 elements."""
    return np.take(_even_table(), (words[..., None] >> np.array([0, 7, 14, 21], np.uint32)) & 127, axis=0)


@cache
def _sign_table() -> Floats:
    """Return -1 for each set bit of a byte and 1 for the others, the lowest first: (256, 8)."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    signs: Floats = 1 - 2 * bits.astype(np.float32)
    return signs


@cache
def _even_table() -> Floats:
    """Return 8 signs for each 7 bits: the eighth makes the number of minus signs even. (128, 8)"""
    codes = np.arange(128)
    odd = np.bitwise_xor.reduce([codes >> bit for bit in range(7)]) & 1
    table: Floats = np.take(_sign_table(), codes | (odd << 7), axis=0)
    return table


@cache
def _shifted_grid() -> Floats:
    """Return IQ1's grid with an eighth added, then with it subtracted: (4096, 8)."""
    plain = grid("IQ1_S")
    return np.concatenate([plain + np.float32(0.125), plain - np.float32(0.125)])
