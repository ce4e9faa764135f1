"""Q4_0, Q4_1, Q5_0 and Q5_1 written with an importance matrix (without one the gguf package writes them).

The formulas are those of ``quantize_row_q4_0_impl`` and its kin in ggml-quants.c. ``variance`` is the mean square of
the row that a block belongs to, [count, 1].
"""

from __future__ import annotations

import numpy as np

from tlkit.formats.gguf.encoders.fits import Bytes, Floats, grouped, signed, weighted, with_minimum


def q4_0(values: Floats, importance: Floats, variance: Floats) -> Bytes:
    """Return blocks [count, 18] of values [count, 32]."""
    scales, codes = signed(grouped(values, 32), 8, grouped(weighted(values, importance, variance), 32))
    return np.concatenate([_half(scales), _nibbles(codes)], axis=1)


def q5_0(values: Floats, importance: Floats, variance: Floats) -> Bytes:
    """Return blocks [count, 22] of values [count, 32]."""
    scales, codes = signed(grouped(values, 32), 16, grouped(weighted(values, importance, variance), 32))
    return np.concatenate([_half(scales), _fifths(codes), _nibbles(codes)], axis=1)


def q4_1(values: Floats, importance: Floats, variance: Floats) -> Bytes:
    """Return blocks [count, 20] of values [count, 32]."""
    scales, least, codes = _with_minimum(values, importance, variance, 15)
    return np.concatenate([_half(scales), _half(-least), _nibbles(codes)], axis=1)


def q5_1(values: Floats, importance: Floats, variance: Floats) -> Bytes:
    """Return blocks [count, 24] of values [count, 32]."""
    scales, least, codes = _with_minimum(values, importance, variance, 31)
    return np.concatenate([_half(scales), _half(-least), _fifths(codes), _nibbles(codes)], axis=1)


def _with_minimum(values: Floats, importance: Floats, variance: Floats, most: int) -> tuple[Floats, Floats, Floats]:
    weights = grouped(weighted(values, importance, variance), 32)
    return with_minimum(grouped(values, 32), weights, most, -0.9, 0.05, 36)


def _half(scales: Floats) -> Bytes:
    return np.ascontiguousarray(scales.astype(np.float16)[:, None]).view(np.uint8)


def _nibbles(codes: Floats) -> Bytes:
    """Return the lower four bits of codes [32, count], two to a byte."""
    narrow = codes.T.astype(np.uint8) & 15
    return np.asarray(np.bitwise_or(narrow[:, :16], narrow[:, 16:] << 4, dtype=np.uint8))


def _fifths(codes: Floats) -> Bytes:
    """Return the fifth bits of codes [32, count], in four bytes."""
    return np.packbits(codes.T.astype(np.uint8) >> 4, axis=1, bitorder="little")
