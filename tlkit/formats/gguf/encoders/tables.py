"""IQ4_NL and IQ4_XS written: codes that name one of sixteen values.

The formulas are those of ``quantize_row_iq4_nl_impl`` in ggml-quants.c.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.formats.gguf.encoders.fits import LEAST, Bytes, F, Floats, grouped, nearest, total, weighted

IQ4 = np.array((-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113), np.float32)
"""What IQ4_NL's and IQ4_XS's codes stand for."""
_TRIES = 7


def iq4_nl(values: Floats, importance: Floats | None = None) -> Bytes:
    """Return blocks [count, 18] of values [count, 32]."""
    scales = _scales(values, importance, len(values))
    inverse = np.where(scales != 0, F(1) / scales, F(0))
    return np.concatenate([_half(scales), _nibbles(_index(inverse[:, None] * values))], axis=1)


def iq4_xs(values: Floats, importance: Floats | None = None) -> Bytes:
    """Return blocks [count, 136] of values [count, 256]."""
    count = len(values)
    scales = _scales(values, importance, count).reshape(count, 8)
    largest = np.take_along_axis(scales, np.abs(scales).argmax(axis=1)[:, None], axis=1)
    whole = -largest / F(32)
    steps = np.clip(nearest(np.where(whole != 0, F(1) / whole, F(0)) * scales), -32, 31)
    each = whole * steps.astype(np.float32)
    inverse = np.where(each != 0, F(1) / each, F(0)).reshape(-1, 1)
    codes = _nibbles(_index(inverse * values.reshape(-1, 32))).reshape(count, 128)
    six = (steps + 32).astype(np.uint16)
    high = np.bitwise_or.reduce((six >> 4) << np.arange(0, 16, 2, dtype=np.uint16), axis=1).astype("<u2")
    low = (six & 15).astype(np.uint8)
    parts = [_half(whole[:, 0]), high.view(np.uint8).reshape(count, 2), low[:, 0::2] | low[:, 1::2] << 4, codes]
    return np.concatenate(parts, axis=1)


def _scales(values: Floats, importance: Floats | None, count: int) -> Floats:
    """Return the scale of each 32 values; blocks are rows of ``values``."""
    x = grouped(values, 32)
    weights = x * x
    if importance is not None:
        columns = np.ascontiguousarray(values.T)
        variance = total(columns * columns) * (F(2) / F(values.shape[1]))
        weights = grouped(weighted(values, importance, variance[:, None]), 32)
    largest = np.take_along_axis(x, np.abs(x).argmax(axis=0)[None], axis=0)[0]
    empty = np.abs(largest) < LEAST
    largest = np.where(empty, F(1), largest)
    first = F(1) / (-largest / IQ4[0])
    one, two = _sums(x, weights, first)
    scale = np.where(two > 0, one / two, F(0))
    best = scale * one
    for step in range(-_TRIES, _TRIES + 1):
        one, two = _sums(x, weights, (F(step) + IQ4[0]) / largest)
        better = (two > 0) & (one * one > best * two)
        scale = np.where(better, one / two, scale)
        best = np.where(better, scale * one, best)
    return np.where(empty, F(0), scale)


def _sums(x: Floats, weights: Floats, inverse: Floats) -> tuple[Floats, Floats]:
    codes = IQ4[_index(inverse * x)]
    return total(weights * codes * x), total(weights * codes * codes)


def _index(values: Any) -> NDArray[np.intp]:
    """Return which of the sixteen values is nearest, the upper one where two are as near."""
    above = np.clip(np.searchsorted(IQ4, values, side="right"), 1, 15)
    return np.asarray(np.where(values - IQ4[above - 1] < IQ4[above] - values, above - 1, above))


def _nibbles(codes: NDArray[np.intp]) -> Bytes:
    narrow = codes.astype(np.uint8)
    return np.asarray(np.bitwise_or(narrow[:, :16], narrow[:, 16:] << 4, dtype=np.uint8))


def _half(scales: Floats) -> Bytes:
    return np.ascontiguousarray(scales.astype(np.float16)[:, None]).view(np.uint8)
