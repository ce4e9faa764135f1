"""GGUF's K-quants written: blocks of 256 in groups whose scales are quantized themselves.

The formulas are those of ``quantize_row_q2_K_ref`` to ``quantize_row_q6_K_ref`` in ggml-quants.c, and of their
``_impl`` twins, which weigh errors by an importance matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.formats.gguf.encoders.fits import (
    LEAST,
    Bytes,
    F,
    Floats,
    by_importance,
    descended,
    grouped,
    nearest,
    positive,
    signed,
    total,
    with_minimum,
)

_SHIFTS = np.array([[0], [2], [4], [6]], np.uint8)


def q2_k(values: Floats, importance: Floats | None = None) -> Bytes:
    """Return blocks [count, 84] of values [count, 256]."""
    x, count = grouped(values, 16), len(values)
    if importance is None:
        scales, least, codes = with_minimum(x, np.abs(x), 3, -0.5, 0.1, 15, absolute=True)
        (scale, low), (minimum, high) = (_even(part.reshape(count, 16), 15) for part in (scales, least))
    else:
        weights = by_importance(values, importance, 16, 1)
        scales, least, codes = with_minimum(x, weights, 3, -0.9, 0.05, 36)
        scale, low, minimum, high = _fitted_twice(scales, least, weights, 15, 16)
    both = np.bitwise_or(low, high << 4, dtype=np.uint8)
    made = _again(values, codes, 16, (scale, both & 15), (minimum, both >> 4), 3)
    packed = np.bitwise_or.reduce(made.reshape(-1, 2, 4, 32) << _SHIFTS, axis=2).reshape(count, 64)
    return np.concatenate([both, packed, _halves(scale, minimum)], axis=1)


def q3_k(values: Floats, importance: Floats | None = None) -> Bytes:
    """Return blocks [count, 110] of values [count, 256]."""
    x, count = grouped(values, 16), len(values)
    if importance is None:
        scales, codes = descended(x, 4)
        each = scales.reshape(count, 16)
        largest = np.take_along_axis(each, np.abs(each).argmax(axis=1)[:, None], axis=1)
        inverse = F(-32) / largest
        there = largest != 0
        six = np.where(there, np.clip(np.rint(inverse * each), -32, 31) + 32, 0).astype(np.uint8)
        half = np.where(there, F(1) / inverse, F(0)).astype(np.float16)[:, 0]
    else:
        weights = by_importance(values, importance, 16, 2)
        scales, codes = signed(x, 4, weights)
        whole, fitted = signed(
            grouped(scales.reshape(count, 16), 16), 32, grouped(total(weights).reshape(count, 16), 16)
        )
        six, half = np.ascontiguousarray(fitted.T).astype(np.uint8), whole.astype(np.float16)
    step = half.astype(np.float32)[:, None] * (six.astype(np.float32) - F(32))
    # Without a scale at all the twelve bytes are 0.
    made = _steps(values, codes, step.reshape(-1, 1), -4, 3, 4)
    low = made & 3
    packed = np.bitwise_or.reduce(low.reshape(-1, 2, 4, 32) << _SHIFTS, axis=2).reshape(count, 64)
    thirds = (made > 3).reshape(count, 8, 32).astype(np.uint8) << np.arange(8, dtype=np.uint8)[:, None]
    upper = (six >> 4).reshape(count, 4, 4) << _SHIFTS
    parts = [np.bitwise_or.reduce(thirds, axis=1), packed, six[:, :8] & 15 | (six[:, 8:] & 15) << 4]
    parts += [np.bitwise_or.reduce(upper, axis=1), half.view(np.uint8).reshape(count, 2)]
    return np.concatenate(parts, axis=1)


def q4_k(values: Floats, importance: Floats | None = None) -> Bytes:
    """Return blocks [count, 144] of values [count, 256]."""
    head, codes = _in_eights(values, importance, 15, -1.0, 20)
    pairs = codes.reshape(-1, 4, 2, 32)
    return np.concatenate([head, (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128)], axis=1)


def q5_k(values: Floats, importance: Floats | None = None) -> Bytes:
    """Return blocks [count, 176] of values [count, 256]."""
    head, codes = _in_eights(values, importance, 31, -0.5, 15)
    groups = codes.reshape(-1, 8, 32)
    fifth = np.bitwise_or.reduce((groups >> 4) << np.arange(8, dtype=np.uint8)[:, None], axis=1)
    pairs = groups.reshape(-1, 4, 2, 32) & 15
    return np.concatenate([head, fifth, (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128)], axis=1)


def q6_k(values: Floats, importance: Floats | None = None) -> Bytes:
    """Return blocks [count, 210] of values [count, 256]."""
    count = len(values)
    scales, codes = signed(grouped(values, 16), 32, None if importance is None else grouped(importance, 16))
    each = scales.reshape(count, 16)
    largest = np.take_along_axis(each, np.abs(each).argmax(axis=1)[:, None], axis=1)
    empty = np.abs(largest[:, 0]) < LEAST
    inverse = F(-128) / largest
    half = (F(1) / inverse).astype(np.float16)
    steps = np.minimum(np.rint(inverse * each), 127)
    made = _steps(values, codes, (half.astype(np.float32) * steps).reshape(-1, 1), -32, 31, 32).reshape(-1, 2, 4, 32)
    low = made[:, :, :2] & 15 | (made[:, :, 2:] & 15) << 4
    high = np.bitwise_or.reduce((made >> 4) << _SHIFTS, axis=2)
    parts = [low.reshape(count, 128), high.reshape(count, 64), steps.astype(np.int8).view(np.uint8)]
    blocks: Bytes = np.concatenate([*parts, half.view(np.uint8).reshape(count, 2)], axis=1)
    blocks[empty] = 0
    return blocks


def _in_eights(values: Floats, importance: Floats | None, most: int, first: float, steps: int) -> tuple[Bytes, Bytes]:
    """Return the first 16 bytes of each block (two f16 factors, twelve bytes of scales and minima) and the codes
    [count, 256] of Q4_K and Q5_K."""
    x, count = grouped(values, 32), len(values)
    if importance is None:
        weights = np.sqrt(total(x * x) / F(32)) + np.abs(x)
        scales, least, codes = with_minimum(x, weights, most, first, 0.1, steps)
        (scale, low), (minimum, high) = (_even(part.reshape(count, 8), 63) for part in (scales, least))
        low, high = np.minimum(low, 63), np.minimum(high, 63)
    else:
        weights = by_importance(values, importance, 32, 2)
        scales, least, codes = with_minimum(x, weights, most, -0.9, 0.05, 36)
        scale, low, minimum, high = _fitted_twice(scales, least, weights, 63, 8)
        if most == 31:  # Q4_K's twin does not limit what wrapped around
            low, high = np.minimum(low, 63), np.minimum(high, 63)
    twelve = _six_bits(low, high)
    made = _again(values, codes, 32, (scale, _unpacked(twelve, 0)), (minimum, _unpacked(twelve, 4)), most)
    return np.concatenate([_halves(scale, minimum), twelve], axis=1), made


def _even(part: Floats, most: int) -> tuple[NDArray[np.float16], Bytes]:
    """Return the f16 factor of each block's scales (or minima) and their codes: the largest is ``most``."""
    # What is negative counts for nothing here, and wraps around where it is written as a byte.
    top = np.maximum(part.max(axis=1), 0)
    inverse = np.where(top > 0, F(most) / top, F(0)).astype(np.float32)
    codes = np.rint(inverse[:, None] * part).astype(np.int32) & 255
    return (top / F(most)).astype(np.float16), codes.astype(np.uint8)


def _fitted_twice(
    scales: Floats, least: Floats, weights: Floats, most: int, groups: int
) -> tuple[NDArray[np.float16], Bytes, NDArray[np.float16], Bytes]:
    """Return factors and codes of scales and minima that are fitted by the groups' weights."""
    found: list[Any] = []
    by_group = grouped(total(weights).reshape(-1, groups), groups)
    for part in (scales, least):
        factor, codes = positive(grouped(part.reshape(-1, groups), groups), most, by_group)
        found += [factor.astype(np.float16), np.ascontiguousarray(codes.T)]
    return found[0], found[1], found[2], found[3]


def _again(
    values: Floats,
    codes: Floats,
    size: int,
    scale: tuple[NDArray[np.float16], NDArray[Any]],
    minimum: tuple[NDArray[np.float16], NDArray[Any]],
    most: int,
) -> Bytes:
    """Return codes [count, 256] for scales and minima as they are stored; the first ones where a scale is 0."""
    whole, shift = (
        (factor.astype(np.float32)[:, None] * part.astype(np.float32)).reshape(-1, 1)
        for factor, part in (scale, minimum)
    )
    fresh = np.clip(nearest((values.reshape(-1, size) + shift) / whole), 0, most)
    return np.where(whole != 0, fresh, codes.T).astype(np.uint8).reshape(len(values), 256)


def _steps(values: Floats, codes: Floats, step: Floats, low: int, high: int, more: int) -> Bytes:
    """Return codes from 0 on, [count, 256], for groups of 16 whose steps [groups, 1] are as they are stored."""
    fresh = np.clip(nearest(values.reshape(-1, 16) / step), low, high) + more
    return np.where(step != 0, fresh, codes.T).astype(np.uint8).reshape(len(values), 256)


def _halves(*factors: NDArray[np.float16]) -> Bytes:
    return np.stack(factors, axis=1).view(np.uint8)


def _six_bits(scales: Bytes, minima: Bytes) -> Bytes:
    """Return eight scales and minima of six bits in twelve bytes: the upper bits of the last four lie above the
    first."""
    low, high = slice(0, 4), slice(4, 8)
    parts = [part[:, low] | (part[:, high] >> 4) << 6 for part in (scales, minima)]
    return np.concatenate([*parts, scales[:, high] & 15 | (minima[:, high] & 15) << 4], axis=1)


def _unpacked(twelve: Bytes, start: int) -> Bytes:
    """Return what :func:`_six_bits` packed: scales from byte 0 on, minima from byte 4 on."""
    first, last = twelve[:, start : start + 4], twelve[:, 8:]
    low = last & 15 if start == 0 else last >> 4
    return np.concatenate([first & 63, low | (first >> 6) << 4], axis=1)
