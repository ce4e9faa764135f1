"""GGUF's K-quants encoded: the blocks that llama.cpp's reference quantizers make, bit for bit.

The formulas are those of ``quantize_row_q4_K_ref``, ``quantize_row_q5_K_ref`` and ``quantize_row_q6_K_ref`` in
ggml-quants.c: candidates of a scale are tried, the weighted error decides. Every sum is taken in the order of the C
code and in f32, as ggml's base library is compiled (without fused multiplications).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.formats.gguf.bits import Bytes, Floats

Encoder = Callable[[Floats], Bytes]
_F = np.float32
_LEAST = _F(1e-15)  # ggml's GROUP_MAX_EPS: below it a group counts as zeros


def q4_k(values: Floats) -> Bytes:
    """Return blocks [count, 144] of values [count, 256]."""
    head, codes = _with_minima(values, 15, -1.0, 20)
    pairs = codes.reshape(-1, 4, 2, 32)
    return np.concatenate([head, (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128)], axis=1)


def q5_k(values: Floats) -> Bytes:
    """Return blocks [count, 176] of values [count, 256]."""
    head, codes = _with_minima(values, 31, -0.5, 15)
    groups = codes.reshape(-1, 8, 32)
    fifth = np.bitwise_or.reduce((groups >> 4) << np.arange(8, dtype=np.uint8)[:, None], axis=1)
    pairs = groups.reshape(-1, 4, 2, 32) & 15
    return np.concatenate([head, fifth, (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128)], axis=1)


def q6_k(values: Floats) -> Bytes:
    """Return blocks [count, 210] of values [count, 256]."""
    count = len(values)
    scales, codes = _signed(np.ascontiguousarray(values.reshape(-1, 16).T), 32)
    each = scales.reshape(count, 16)
    largest = np.take_along_axis(each, np.abs(each).argmax(axis=1)[:, None], axis=1)
    empty = np.abs(largest[:, 0]) < _LEAST
    inverse = _F(-128) / largest
    half = (_F(1) / inverse).astype(np.float16)
    steps = np.minimum(np.rint(inverse * each), 127)
    whole = (half.astype(np.float32) * steps).reshape(-1, 1)
    fresh = np.clip(_nearest(values.reshape(-1, 16) / whole), -32, 31) + 32
    made = np.where(whole != 0, fresh, codes.T).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = made[:, :, :2] & 15 | (made[:, :, 2:] & 15) << 4
    high = np.bitwise_or.reduce((made >> 4) << np.array([[0], [2], [4], [6]], np.uint8), axis=2)
    parts = [low.reshape(count, 128), high.reshape(count, 64), steps.astype(np.int8).view(np.uint8)]
    blocks: Bytes = np.concatenate([*parts, half.view(np.uint8).reshape(count, 2)], axis=1)
    blocks[empty] = 0
    return blocks


ENCODERS: dict[str, Encoder] = {"Q4_K": q4_k, "Q5_K": q5_k, "Q6_K": q6_k}
"""What is written here, by type."""


def _with_minima(values: Floats, most: int, first: float, steps: int) -> tuple[Bytes, Bytes]:
    """Return the first 16 bytes of each block (two f16 factors, twelve bytes of scales and minima) and the codes
    [count, 256] of Q4_K and Q5_K."""
    count = len(values)
    scales, least, codes = _fitted(np.ascontiguousarray(values.reshape(-1, 32).T), most, first, steps)
    found = []
    for part in (scales.reshape(count, 8), least.reshape(count, 8)):
        # What is negative counts for nothing here, and wraps around where it is written as a byte.
        top = np.maximum(part.max(axis=1), 0)
        inverse = np.where(top > 0, _F(63) / top, _F(0)).astype(np.float32)
        small = np.minimum(np.rint(inverse[:, None] * part).astype(np.int32) & 255, 63)
        found.append(((top / _F(63)).astype(np.float16), small.astype(np.uint8)))
    (scale, scale_codes), (minimum, minimum_codes) = found
    whole = (scale.astype(np.float32)[:, None] * scale_codes).reshape(-1, 1)
    shift = (minimum.astype(np.float32)[:, None] * minimum_codes).reshape(-1, 1)
    fresh = np.clip(_nearest((values.reshape(-1, 32) + shift) / whole), 0, most)
    made = np.where(whole != 0, fresh, codes.T).astype(np.uint8).reshape(count, 256)
    factors = np.stack([scale, minimum], axis=1).view(np.uint8)
    return np.concatenate([factors, _six_bits(scale_codes, minimum_codes)], axis=1), made


def _six_bits(scales: Bytes, minima: Bytes) -> Bytes:
    """Return eight scales and minima of six bits in twelve bytes: the upper bits of the last four lie above the
    first."""
    low, high = slice(0, 4), slice(4, 8)
    parts = [part[:, low] | (part[:, high] >> 4) << 6 for part in (scales, minima)]
    return np.concatenate([*parts, scales[:, high] & 15 | (minima[:, high] & 15) << 4], axis=1)


def _nearest(values: Floats) -> NDArray[np.int32]:
    """Return the nearest integers as ggml finds them: beyond 2^22, where scales are next to nothing, others."""
    bits = (values + _F(12582912)).astype(np.float32).view(np.int32)
    found: NDArray[np.int32] = (bits & 0x007FFFFF) - 0x00400000
    return found


def _sum(terms: NDArray[Any]) -> Floats:
    """Return the sums along the first axis, one term after another."""
    found: Floats = np.add.reduce(terms, axis=0)
    return found


def _fitted(x: Floats, most: int, first: float, steps: int) -> tuple[Floats, Floats, Floats]:
    """Return scales, negative minima and codes of groups x [32, groups], codes from 0 to ``most``."""
    weights = np.sqrt(_sum(x * x) / _F(32)) + np.abs(x)
    low, high = np.minimum(x.min(axis=0), 0), x.max(axis=0)
    total, total_x = _sum(weights), _sum(weights * x)
    flat = high == low
    span = np.where(flat, _F(1), high - low).astype(np.float32)
    inverse = _F(most) / span
    scale = _F(1) / inverse
    codes = np.clip(np.rint(inverse * (x - low)), 0, most)
    difference = scale * codes + low - x
    best, least = _sum(weights * (difference * difference)), low.copy()
    for step in range(steps + 1):
        # From the least value that is the best by now, as the C code has it.
        inverse = (_F(first) + _F(0.1) * _F(step) + _F(most)) / np.where(flat, _F(1), high - least)
        tried = np.clip(np.rint(inverse * (x - least)), 0, most)
        weighted = weights * tried
        one, two, mixed = _sum(weighted), _sum(weighted * tried), _sum(weighted * x)
        divisor = total * two - one * one
        new_scale, new_least = (total * mixed - total_x * one) / divisor, (two * total_x - one * mixed) / divisor
        above = new_least > 0
        new_scale, new_least = np.where(above, mixed / two, new_scale), np.where(above, _F(0), new_least)
        difference = new_scale * tried + new_least - x
        error = _sum(weights * (difference * difference))
        better = (divisor > 0) & (error < best) & ~flat
        best, scale = np.where(better, error, best), np.where(better, new_scale, scale)
        least = np.where(better, new_least, least)
        codes = np.where(better, tried, codes)
    return np.where(flat, _F(0), scale), -least, np.where(flat, _F(0), codes)


def _signed(x: Floats, most: int) -> tuple[Floats, Floats]:
    """Return scales and codes (from 0 on) of groups x [16, groups] without a minimum."""
    place = np.abs(x).argmax(axis=0)
    largest = np.take_along_axis(x, place[None], axis=0)[0]
    empty = np.abs(largest) < _LEAST
    largest = np.where(empty, _F(1), largest)
    squares = x * x
    scale = best = codes = None
    for step in (0, *range(-9, 0), *range(1, 10)):
        inverse = _F(-most) / largest if step == 0 else -(_F(most) + _F(0.1) * _F(step)) / largest
        tried = np.clip(np.rint(inverse * x), -most, most - 1)
        one, two = _sum(squares * x * tried), _sum(squares * tried * tried)
        if scale is None or best is None or codes is None:
            scale, codes = np.where(two != 0, one / two, _F(0)), tried
            best = scale * one
            continue
        better = (two > 0) & (one * one > best * two)
        scale = np.where(better, one / two, scale)
        best = np.where(better, scale * one, best)
        codes = np.where(better, tried, codes)
    assert scale is not None and codes is not None  # there is a first step
    return np.where(empty, _F(0), scale), np.where(empty, _F(0), codes + most)
