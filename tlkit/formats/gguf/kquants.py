"""GGUF's K-quants: 256 elements per block, in groups of 16 or 32 whose scales are quantized themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.formats.gguf.bits import Bytes, Floats, decoder, field, half, halves, nibbles, parts, put, scale, weave


@decoder("Q2_K")
def q2_k(blocks: Bytes, out: Floats) -> None:
    """Decode 2-bit codes; scale and minimum of a group have 4 bits each."""
    # A block: 16 bytes of scales and minima, 64 of codes, two f16 factors.
    put(out, weave(parts(field(blocks, 16, 80), 2), 32))
    low, high = (part.reshape(-1, 16).astype(np.float32) for part in parts(field(blocks, 0, 16), 4))
    scale(out, half(blocks, 80) * low, subtract=half(blocks, 82) * high)


@decoder("Q3_K")
def q3_k(blocks: Bytes, out: Floats) -> None:
    """Decode 3-bit codes less 4, the third bits apart, and 6-bit scales less 32 whose upper bits lie apart."""
    # A block: 32 bytes of third bits, 64 of the lower two, 12 of scales, one f16 factor.
    codes = weave(parts(field(blocks, 32, 96), 2), 32)
    put(out, np.bitwise_or(codes, weave(parts(field(blocks, 0, 32), 1, up=2), 32), out=codes), less=4)
    low = nibbles(field(blocks, 96, 104), 8)
    top = _word(blocks, 104)
    high = _bytes(*((((top >> shift) & 0x03030303) << 4) for shift in (0, 2, 4, 6)))
    scale(out, half(blocks, 108) * (low.reshape(-1, 16) + high - 32))


@decoder("Q4_K")
def q4_k(blocks: Bytes, out: Floats) -> None:
    """Decode 4-bit codes in groups of 32 with 6-bit scales and minima."""
    # A block: two f16 factors, 12 bytes of scales and minima, 128 of codes.
    put(out, nibbles(field(blocks, 16, 144), 32))
    _scale(blocks, out)


@decoder("Q5_K")
def q5_k(blocks: Bytes, out: Floats) -> None:
    """Decode 5-bit codes, the fifth bits apart, with scales and minima as in Q4_K."""
    # A block: two f16 factors, 12 bytes of scales and minima, 32 of fifth bits, 128 of the lower four.
    codes = nibbles(field(blocks, 48, 176), 32)
    put(out, np.bitwise_or(codes, weave(parts(field(blocks, 16, 48), 1, up=4), 32), out=codes))
    _scale(blocks, out)


@decoder("Q6_K")
def q6_k(blocks: Bytes, out: Floats) -> None:
    """Decode 6-bit codes less 32, the upper two bits apart, in groups of 16 with 8-bit scales."""
    # A block: 128 bytes of the lower four bits, 64 of the upper two, 16 scales, one f16 factor.
    codes = nibbles(field(blocks, 0, 128), 64)
    put(out, np.bitwise_or(codes, weave(parts(field(blocks, 128, 192), 2, up=4), 32), out=codes), less=32)
    scale(out, half(blocks, 208) * field(blocks, 192, 208, np.int8).astype(np.float32))


def _scale(blocks: Bytes, out: Floats) -> None:
    """Apply the scales and minima of Q4_K's and Q5_K's 8 groups.

    Of 12 bytes, the first four hold the scales of groups 0 to 3 in their lower six bits, the next four the minima;
    groups 4 to 7 have their lower four bits in the last four bytes, the upper two on top of the earlier eight.
    """
    both = np.ascontiguousarray(blocks[:, 4:12].view(np.uint64)[:, 0])  # scales and minima are handled at once
    rest = _word(blocks, 12).astype(np.uint64)
    # The lower halves of `rest` belong to the scales, the upper ones to the minima: 28 bits up are 32 less 4.
    last = ((rest | (rest << 28)) & 0x0F0F0F0F_0F0F0F0F) | ((both >> 2) & 0x30303030_30303030)
    codes = np.empty((2, len(blocks), 2), np.uint32)  # scales, then minima; groups 0 to 3 and 4 to 7 of each block
    for index, words in enumerate((both & 0x3F3F3F3F_3F3F3F3F, last)):
        codes[:, :, index] = words.view(np.uint32).reshape(-1, 2).T
    wholes = halves(np.ascontiguousarray(_word(blocks, 0).view(np.uint16).reshape(-1, 2).T))
    factors = codes.view(np.uint8).astype(np.float32)
    scale(factors, wholes)
    scale(out, factors[0], subtract=factors[1])


def _bytes(*words: NDArray[Any]) -> Floats:
    """Return the bytes of each block's words, in order, as floats."""
    found = np.empty((len(words[0]), len(words)), np.uint32)
    for index, word in enumerate(words):
        found[:, index] = word
    return found.view(np.uint8).astype(np.float32)


def _word(blocks: Bytes, start: int) -> NDArray[Any]:
    """Return four bytes of each block as one number, so that one operation handles all four: (count,)."""
    return np.ascontiguousarray(blocks[:, start : start + 4].view(np.uint32)[:, 0])
