"""How ggml finds a group's scale: candidates are tried, and the weighted error decides.

The formulas are those of ``make_qx_quants``, ``make_q3_quants``, ``make_qkx2_quants``, ``make_qkx3_quants`` and
``make_qp_quants`` in ggml-quants.c. Every sum is taken in the order of the C code and in f32, as ggml's base library is
compiled (without fused multiplications). Groups lie along the last axis, [members, groups], so that all are found at
once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
F = np.float32
LEAST = F(1e-15)
"""ggml's GROUP_MAX_EPS: below it a group counts as zeros."""


def nearest(values: Any) -> NDArray[np.int32]:
    """Return the nearest integers as ggml finds them: beyond 2^22, where scales are next to nothing, others."""
    bits = (values + F(12582912)).astype(np.float32).view(np.int32)
    found: NDArray[np.int32] = (bits & 0x007FFFFF) - 0x00400000
    return found


def total(terms: NDArray[Any]) -> Floats:
    """Return the sums along the first axis, one term after another."""
    # Of a single group numpy would add the terms in pairs.
    doubled = terms if terms.size != len(terms) else np.stack([terms, terms], axis=1)
    found: Floats = np.add.reduce(doubled, axis=0)
    return found if doubled is terms else found[0]


def grouped(values: Floats, size: int) -> Floats:
    """Return values [blocks, elements] as groups of ``size`` [size, groups]."""
    return np.ascontiguousarray(values.reshape(-1, size).T)


def first_zeros(x: Floats) -> Floats:
    """Return groups x [members, groups] with the sign of the first 0 for all: C keeps the first of equal numbers."""
    zeros = x == 0
    first = np.take_along_axis(x, zeros.argmax(axis=0)[None], axis=0)
    return np.where(zeros, first, x)


def weighted(values: Floats, importance: Floats, variance: Any) -> Floats:
    """Return importance * sqrt(variance + value^2), of one shape."""
    return np.asarray(importance * np.sqrt(variance + values * values), np.float32)


def by_importance(values: Floats, importance: Floats, size: int, times: int) -> Floats:
    """Return the weights of values [blocks, 256] in groups [size, groups]: their importance, more for large ones."""
    squares = np.ascontiguousarray(values.T)
    variance = F(times) * total(squares * squares) / F(256)
    return grouped(weighted(values, importance, variance[:, None]), size)


def with_minimum(
    x: Floats, weights: Floats, most: int, start: float, delta: float, steps: int, *, absolute: bool = False
) -> tuple[Floats, Floats, Floats]:
    """Return scales, negative minima and codes of groups x [members, groups], codes from 0 to ``most``.

    ``start``, ``delta`` and ``steps`` say which scales are tried; errors are squares, or ``absolute``.
    """

    def error(scale: Any, codes: Any, low: Any) -> Floats:
        apart = scale * codes + low - x
        return total(weights * (np.abs(apart) if absolute else apart * apart))

    low, high = first_zeros(x).min(axis=0), x.max(axis=0)
    low = np.where(low > 0, F(0), low)
    sum_w, sum_x = total(weights), total(weights * x)
    flat = high == low
    inverse = F(most) / np.where(flat, F(1), high - low).astype(np.float32)
    scale = F(1) / inverse
    codes = np.clip(np.rint(inverse * (x - low)), 0, most)
    best, least = error(scale, codes, low), low.copy()
    for step in range(steps + 1):
        # From the least value that is the best by now, as the C code has it.
        inverse = (F(start) + F(delta) * F(step) + F(most)) / np.where(flat, F(1), high - least)
        tried = np.clip(nearest(inverse * (x - least)), 0, most).astype(np.float32)
        one, two, mixed = total(weights * tried), total(weights * tried * tried), total(weights * tried * x)
        divisor = sum_w * two - one * one
        new_scale, new_least = (sum_w * mixed - sum_x * one) / divisor, (two * sum_x - one * mixed) / divisor
        above = new_least > 0
        new_scale, new_least = np.where(above, mixed / two, new_scale), np.where(above, F(0), new_least)
        found = error(new_scale, tried, new_least)
        better = (divisor > 0) & (found < best) & ~flat
        best, scale = np.where(better, found, best), np.where(better, new_scale, scale)
        least, codes = np.where(better, new_least, least), np.where(better, tried, codes)
    return np.where(flat, F(0), scale), -least, np.where(flat, F(0), codes)


def signed(x: Floats, most: int, weights: Floats | None = None) -> tuple[Floats, Floats]:
    """Return scales, and codes from 0 on, of groups x [members, groups] without a minimum; ``weights`` are squares
    where none are given."""
    weights = x * x if weights is None else weights
    largest, empty = _largest(x)
    scale = best = codes = None
    for step in (0, *range(-9, 0), *range(1, 10)):
        inverse = F(-most) / largest if step == 0 else -(F(most) + F(0.1) * F(step)) / largest
        tried = np.clip(np.rint(inverse * x), -most, most - 1)
        one, two = total(weights * x * tried), total(weights * tried * tried)
        if scale is None or best is None or codes is None:
            scale, codes = np.where(two != 0, one / two, F(0)), tried
            best = scale * one
            continue
        better = (two > 0) & (one * one > best * two)
        scale = np.where(better, one / two, scale)
        best = np.where(better, scale * one, best)
        codes = np.where(better, tried, codes)
    assert scale is not None and codes is not None  # there is a first step
    return np.where(empty, F(0), scale), np.where(empty, F(0), codes + most)


def descended(x: Floats, most: int) -> tuple[Floats, Floats]:
    """Return what :func:`signed` does, found by changing one code after another while that helps."""
    largest, empty = _largest(x)
    weights = x * x
    codes = np.clip(np.rint(F(-most) / largest * x), -most, most - 1)
    codes, one, two = _descend(x, weights, codes, (-most, most - 1), total(weights * x * codes), None)
    scale = np.where(two > 0, one / two, F(0))
    return np.where(empty, F(0), scale), np.where(empty, F(0), codes + most)


def positive(x: Floats, most: int, weights: Floats) -> tuple[Floats, NDArray[np.uint8]]:
    """Return scales, and codes from 0 to ``most``, of groups x [members, groups] that are not negative (what is wraps
    around as the byte that C makes of it)."""
    top = np.maximum(x.max(axis=0), 0)
    empty = top < LEAST
    top = np.where(empty, F(1), top)
    inverse = F(most) / top
    best = _error(x, weights, nearest(inverse * x) & 255, F(1) / inverse)
    for step in (*range(-4, 0), *range(1, 5)):
        tried = (F(0.1) * F(step) + F(most)) / top
        error = _error(x, weights, np.minimum(nearest(tried * x), most), F(1) / tried)
        better = error < best
        best, inverse = np.where(better, error, best), np.where(better, tried, inverse)
    codes = np.minimum(nearest(inverse * x), most).astype(np.float32)
    one, two = total(weights * x * codes), total(weights * codes * codes)
    codes, one, two = _descend(
        x, weights, codes.astype(np.int32).astype(np.uint8).astype(np.float32), (None, most), one, two
    )
    found = np.where(empty, F(0), np.where(two > 0, one / two, F(0)))
    return found, np.where(empty, 0, codes).astype(np.uint8)


def _error(x: Floats, weights: Floats, codes: NDArray[Any], scale: Any) -> Floats:
    apart = x - scale * codes.astype(np.float32)
    return total(weights * apart * apart)


def _largest(x: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return each group's value furthest from 0, and which groups count as zeros (1 stands there for the value)."""
    place = np.abs(x).argmax(axis=0)
    largest = np.take_along_axis(x, place[None], axis=0)[0]
    empty = np.abs(largest) < LEAST
    return np.where(empty, F(1), largest), empty


def _descend(
    x: Floats, weights: Floats, codes: Floats, bounds: tuple[int | None, int], one: Floats, two: Floats | None
) -> tuple[Floats, Floats, Floats]:
    """Change one code after another where that makes the fit better, five times; return codes and their sums."""
    signed_codes = two is None
    two = total(weights * codes * codes) if two is None else two
    codes = codes.copy()
    for member in list(range(len(x))) * 5:
        value, weight, code = x[member], weights[member], codes[member]
        less, two_less = one - weight * value * code, two - weight * code * code
        new = nearest(value * two_less / less)
        new = np.minimum(new if bounds[0] is None else np.maximum(new, bounds[0]), bounds[1]).astype(np.float32)
        more, two_more = less + weight * value * new, two_less + weight * new * new
        positive_sums = two_more > 0 if signed_codes else two_less > 0
        better = (less > 0) & positive_sums & (new != code) & (more * more * two > one * one * two_more)
        kept = new if signed_codes else (new.astype(np.int32) & 255).astype(np.float32)
        codes[member] = np.where(better, kept, code)
        one, two = np.where(better, more, one), np.where(better, two_more, two)
    return codes, one, two
