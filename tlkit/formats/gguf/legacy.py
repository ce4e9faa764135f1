"""GGUF's types with 32 elements per block, and other simple ones: a scale, sometimes an offset, and codes."""

from __future__ import annotations

from functools import cache

import numpy as np

from tlkit.formats.gguf.bits import Bytes, Floats, decoder, field, half, look_up, nibbles, parts, put, scale, weave
from tlkit.formats.gguf.encoders.fp4 import FP4, e4m3_halves
from tlkit.formats.gguf.encoders.tables import IQ4


@decoder("Q8_0")
def q8_0(blocks: Bytes, out: Floats) -> None:
    """Decode 32 signed bytes under one scale."""
    np.copyto(out, blocks[:, 2:34].view(np.int8))
    np.multiply(out, half(blocks, 0), out=out)


@decoder("Q4_0")
def q4_0(blocks: Bytes, out: Floats) -> None:
    """Decode 4-bit codes less 8."""
    put(out, nibbles(field(blocks, 2, 18), 16), less=8)
    scale(out, half(blocks, 0))


@decoder("Q4_1")
def q4_1(blocks: Bytes, out: Floats) -> None:
    """Decode 4-bit codes with a scale and an offset."""
    put(out, nibbles(field(blocks, 4, 20), 16))
    scale(out, half(blocks, 0), add=half(blocks, 2))


@decoder("Q5_0")
def q5_0(blocks: Bytes, out: Floats) -> None:
    """Decode 5-bit codes less 16; the fifth bits lie apart."""
    put(out, _fives(blocks, 2), less=16)
    scale(out, half(blocks, 0))


@decoder("Q5_1")
def q5_1(blocks: Bytes, out: Floats) -> None:
    """Decode 5-bit codes with a scale and an offset."""
    put(out, _fives(blocks, 4))
    scale(out, half(blocks, 0), add=half(blocks, 2))


def _fives(blocks: Bytes, start: int) -> Bytes:
    # Four bytes of fifth bits, then 16 of the lower four.
    codes = nibbles(field(blocks, start + 4, start + 20), 16)
    high = np.unpackbits(field(blocks, start, start + 4).reshape(-1), bitorder="little")
    np.bitwise_or(codes, np.left_shift(high, 4, out=high), out=codes)
    return codes


@decoder("TQ2_0")
def tq2_0(blocks: Bytes, out: Floats) -> None:
    """Decode ternary values, 2 bits each, less 1."""
    put(out, weave(parts(field(blocks, 0, 64), 2), 32), less=1)
    scale(out, half(blocks, 64))


@decoder("TQ1_0")
def tq1_0(blocks: Bytes, out: Floats) -> None:
    """Decode ternary values, five to a byte: digits in base 3 of a fraction of 256."""
    found = np.empty(out.shape, np.uint8)
    for start, stop, place, digits in ((0, 32, 0, 5), (32, 48, 160, 5), (48, 52, 240, 4)):
        codes, width = field(blocks, start, stop), stop - start
        for _ in range(digits):
            # A byte is a fraction of 256 in base 3: its first digit is 0 below 256/3, 2 from 512/3 on.
            values = np.greater_equal(codes, 86).view(np.uint8) + np.greater_equal(codes, 171).view(np.uint8)
            found[:, place : place + width].view(f"V{width}")[:] = values.view(f"V{width}")
            codes, place = codes * np.uint8(3), place + width  # the digit read leaves at the top
    put(out, found.reshape(-1), less=1)
    scale(out, half(blocks, 52))


@decoder("IQ4_NL")
def iq4_nl(blocks: Bytes, out: Floats) -> None:
    """Decode 4-bit codes through a table."""
    look_up(out, IQ4, nibbles(field(blocks, 2, 18), 16))
    scale(out, half(blocks, 0))


@decoder("IQ4_XS")
def iq4_xs(blocks: Bytes, out: Floats) -> None:
    """Decode 4-bit codes through a table, in groups of 32, each with a 6-bit scale less 32."""
    look_up(out, IQ4, nibbles(field(blocks, 8, 136), 16))
    low = field(blocks, 4, 8)
    # Two upper bits for each of the eight groups.
    high = field(blocks, 2, 4, np.uint16) >> np.arange(0, 16, 2, dtype=np.uint16)
    factors = np.stack([low & 15, low >> 4], axis=-1).reshape(-1, 8) | ((high.astype(np.uint8) & 3) << 4)
    scale(out, half(blocks, 0) * (factors.astype(np.float32) - 32))


@decoder("MXFP4")
def mxfp4(blocks: Bytes, out: Floats) -> None:
    """Decode 4-bit floats under a power of two."""
    look_up(out, FP4, nibbles(field(blocks, 1, 17), 16))
    scale(out, np.take(_half_powers(), blocks[:, 0]))


@decoder("NVFP4")
def nvfp4(blocks: Bytes, out: Floats) -> None:
    """Decode 4-bit floats in groups of 16, each under an 8-bit float."""
    look_up(out, FP4, nibbles(field(blocks, 4, 36), 8))
    scale(out, np.take(e4m3_halves(), field(blocks, 0, 4)))


@cache
def _half_powers() -> Floats:
    """Return half of 2 to the power that each byte stands for (E8M0); the lowest two are denormal."""
    # 2^(e - 127), halved since the table of values is doubled.
    return np.asarray(np.ldexp(np.float32(1), np.arange(256) - 128), np.float32)
