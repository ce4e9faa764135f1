"""The Neural Engine's sums (row P4) by loops that numba compiles: one pass over the products, on a CPU.

``a`` holds rows, and ``b`` is read at ``b_from + deep[k] + place[p]``: a matrix, or the windows of a convolution, which
are never written out as a whole. Blocks of products are laid out for ``compiled_tile.py``, which sums them. It rounds
products of less than 32, and none that is lost: where one factor of ``a`` may lose products (their exponents add to -17
or less), or make larger ones, all of its products are added apart.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
import torch

from tlkit.mil.ops.kit.registry import Ints, Tensor
from tlkit.mil.units.accumulators import spread
from tlkit.mil.units.compiled_rounding import bits, bits64, compiled, number, number64
from tlkit.mil.units.compiled_tile import BASE, BASE_BITS, COLUMNS, LANES, ROWS, add_narrow_tile, add_row, add_tile
from tlkit.mil.units.threads import threads

_DEEP, _WIDE = 256, 224  # products and columns at a time: what a core's second cache holds
_STEP = _WIDE + 16  # an odd number of cache lines: a column of tiles then uses all places of the first cache
_NONE = np.int32(0x7F800000)
_LEAST = np.float32(2.0**-14)
_KEPT = np.float32(2.0**-16)  # what the factors' powers of two have to make at least, or the product is lost
_LARGE = np.float32(32.0)  # a product of two f16 values from here on is a whole number of steps
_STEPS = np.float32(65536.0)
_ONE_STEP = 2.0**-16
_LAST = np.float32(2.0**31 - 128)  # the largest f32 below 2^31
_BASE, _BASE_BITS = np.float32(BASE), np.int32(BASE_BITS)
_TURNED = 100  # columns: of fewer, what has more rows is turned around


@compiled
def _gathered(b: Any, start: Any, place: Any, straight: Any, row: Any) -> None:
    """Copy a row of b."""
    if straight:
        row[:] = b[start + place[0] : start + place[0] + place.shape[0]]
    else:
        for j in range(place.shape[0]):
            row[j] = b[start + place[j]]


@compiled
def _laid(b: Any, b_from: Any, deep: Any, place: Any, rows: Any, least: Any, largest: Any) -> None:
    """Lay out a block of b, moved away from 0 by a last bit; note each row's largest magnitude, and its least but 0, a
    subnormal's being 2^-14."""
    wide = place.shape[0]
    straight = place[wide - 1] - place[0] == wide - 1
    for k in range(deep.shape[0]):
        row = rows[k, :wide]
        _gathered(b, b_from + deep[k], place, straight, row)
        low, high = _NONE, np.int32(0)
        for j in range(wide):
            size = np.int32(bits(row[j]) & 0x7FFFFFFF)
            other = size if size > 0 else _NONE
            low = low if low < other else other
            high = high if high > size else size
        for j in range(wide):
            row[j] = number(bits(row[j]) | np.int32(row[j] != 0))
        least[k], largest[k] = max(number(low), _LEAST), number(high)
        rows[k, wide : -(-wide // LANES) * LANES] = 0


@compiled
def _power(x: Any) -> Any:
    """The power of two of a factor, that of a subnormal being 2^-14."""
    return max(number(bits(x) & 0x7F800000), _LEAST)


@compiled
def _prepared(row: Any, least: Any, largest: Any, left: Any, flags: Any, apart: Any) -> Any:
    """Copy a row of a without what may lose products or make large ones; list where that was, and say how often."""
    for k in range(row.shape[0]):
        x = row[k]
        power = number(bits(x) & 0x7F800000)
        power = power if power > _LEAST else _LEAST
        special = (x != 0) & ((power * least[k] < _KEPT) | (abs(x) * largest[k] >= _LARGE))
        left[k] = np.float32(0) if special else x
        flags[k] = special
    flags[row.shape[0] :] = 0
    count, words = 0, flags.view(np.uint64)  # eight flags: most are none
    for w in range(words.shape[0]):
        if words[w]:
            for k in range(8 * w, 8 * w + 8):
                apart[count] = k
                count += flags[k]
    return count


@compiled
def _fewest(x: Any) -> Any:
    """The magnitude below which a factor's product with x is lost."""
    least = _KEPT / _power(x)  # a power of two; of x = 2^-2 and more nothing is lost, subnormals included
    return least if least > _LEAST else np.float32(0)


@compiled
def _large(x: Any, row: Any, sums: Any) -> None:
    """Add x times a row of b, of products that may be 32 and more; what passes 2^31 steps is summed elsewhere."""
    least = _fewest(x)
    for j in range(row.shape[0]):
        y = row[j] if abs(row[j]) >= least else np.float32(0)
        product = x * number(bits(y) & -2)
        far = np.int32(min(max(product * _STEPS, -_LAST), _LAST))
        sums[j] += bits(_BASE + x * y) - _BASE_BITS if abs(product) < _LARGE else far


@compiled
def _summed(a: Any, row: Any, k0: Any, k1: Any, rows: Any, least: Any, largest: Any, sums: Any) -> None:
    """Add a block's products to ``sums``, one row of them for each of a's rows from ``row`` on."""
    wide, left = sums.shape[1], np.empty((ROWS, _DEEP), np.float32)
    flags, apart = np.empty(_DEEP, np.uint8), np.empty(_DEEP + 1, np.int64)
    for m in range(0, sums.shape[0], ROWS):
        for i in range(m, m + ROWS):
            if row + i >= a.shape[0]:
                left[i - m, : k1 - k0] = 0
                continue
            some = a[row + i, k0:k1]  # of an array that is known to be contiguous: only so vector instructions arise
            count = _prepared(some, least, largest, left[i - m], flags, apart)
            for k in apart[:count]:
                if abs(some[k]) * largest[k] >= _LARGE:
                    _large(some[k], rows[k, :wide], sums[i])
                else:
                    add_row(some[k], np.int32(bits(_fewest(some[k]))), rows[k, :wide], sums[i])
        for n in range(0, wide, COLUMNS):
            if wide - n >= COLUMNS:
                add_tile(left, rows, sums, m, n, k1 - k0)
            else:
                add_narrow_tile(left, rows, sums, m, n, k1 - k0)


@compiled
def _to_halves(steps: Any, depth: Any, made: Any) -> None:
    """Write the sums, rounded to f16 with ties away from zero; the base was added ``depth`` times."""
    half = np.int64(1) << 41
    base = np.int32(depth * BASE_BITS)
    for m in range(made.shape[0]):
        for n in range(made.shape[1]):
            wide = np.float64(np.int32(steps[m, n] - base))
            # f16 keeps 10 of f64's 52 bits.
            made[m, n] = np.float32(number64((bits64(wide) + half) & ~(2 * half - 1)) * _ONE_STEP)


_FLAT, _CUBE, _INDEX = numba.float32[::1], numba.float32[:, :, :], numba.int64
_KINDS = (
    *(numba.float32[:, :, ::1], _INDEX[::1], _FLAT, _INDEX[::1], _INDEX[::1], _INDEX[::1]),
    *(numba.int32[:, :, :], _CUBE),
    *(_INDEX,) * 6,
)


@numba.njit(numba.void(*_KINDS), nogil=True, cache=True, error_model="numpy")
def fixed_sums(
    a: Any, a_of: Any, b: Any, b_from: Any, deep: Any, place: Any, start: Any, made: Any,
    first: int, last: int, row_from: int, row_to: int, place_from: int, place_to: int,
) -> None:  # fmt: skip
    """Write to ``made`` [B, M, N], for some of its batches, rows and places, the sums over k of ``a[a_of[batch], m, k]
    * b[b_from[batch] + deep[k] + place[n]]``, begun with ``start`` [B, M, N] (in steps), rounded to f16 in f32.

    Factors are finite f16 values in f32 (an infinity and a NaN as they are read); no look at the limit is taken.
    """
    height, depth = row_to - row_from, a.shape[2]
    rows = np.empty((_DEEP, _STEP), np.float32)
    least, largest = np.empty(_DEEP, np.float32), np.empty(_DEEP, np.float32)
    for batch in range(first, last):
        for n0 in range(place_from, place_to, _WIDE):
            n1 = min(place_to, n0 + _WIDE)
            sums = np.zeros((-(-height // ROWS) * ROWS, -(-(n1 - n0) // LANES) * LANES), np.int32)
            sums[:height, : n1 - n0] = start[batch, row_from:row_to, n0:n1]
            for k0 in range(0, depth, _DEEP):
                k1 = min(depth, k0 + _DEEP)
                _laid(b, b_from[batch], deep[k0:k1], place[n0:n1], rows, least, largest)
                _summed(a[a_of[batch]], row_from, k0, k1, rows, least, largest, sums)
            _to_halves(sums, depth, made[batch, row_from:row_to, n0:n1])


def by_numba(a: Tensor, b: Tensor, first: Tensor) -> Tensor:
    """Return a [B, M, K] times b [B, K, N], begun with first [B, 1, N] (multiples of 2^-16), rounded to f16 in f32."""
    batches, rows, columns = a.shape[0], a.shape[1], b.shape[2]
    start = in_steps(first).expand(batches, rows, columns)
    if columns < min(_TURNED, rows):
        return _product(b.mT, a.mT, start.mT).mT
    return _product(a, b, start)


def _product(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    batches = torch.arange(a.shape[0])
    deep, place = (torch.arange(size) * step for size, step in zip(b.shape[1:], b.stride()[1:], strict=True))
    made = torch.empty(start.shape, dtype=torch.float32)
    _run(a, batches, b, batches * b.stride(0), deep, place, start, made)
    return made


def convolved(x: Tensor, weight: Tensor, first: Tensor, strides: Ints, dilations: Ints, groups: int) -> Tensor:
    """Return x [n, C, *D], padded, convolved with weight [O, C / groups, *K], begun with first [O] (multiples of
    2^-16): [n, O, *places], rounded to f16 in f32."""
    kernel, places = weight.shape[2:], []
    for size, width, stride, dilation in zip(x.shape[2:], weight.shape[2:], strides, dilations, strict=True):
        places.append((size - (width - 1) * dilation - 1) // stride + 1)
    count, inner, outer = x.shape[0], weight.shape[1], weight.shape[0]
    axes = x.stride()[2:]
    deep = _offsets((inner, *kernel), (x.stride(1), *(s * d for s, d in zip(axes, dilations, strict=True))))
    place = _offsets(tuple(places), tuple(s * d for s, d in zip(axes, strides, strict=True)))
    b_from = _offsets((count, groups), (x.stride(0), inner * x.stride(1)))
    made = torch.empty(count * groups, outer // groups, math.prod(places), dtype=torch.float32)
    start = in_steps(first).reshape(1, groups, -1, 1).expand(count, groups, outer // groups, made.shape[2])
    rows = weight.reshape(groups, outer // groups, -1)
    a_of = torch.arange(groups).repeat(count)
    _run(rows, a_of, x, b_from, deep, place, start.reshape(made.shape[0], -1, made.shape[2]), made)
    return made.reshape(count, outer, *places)


def in_steps(first: Tensor) -> Tensor:
    """Multiples of 2^-16 as whole numbers of them."""
    return (first.to(torch.float64) / _ONE_STEP).to(torch.int64).to(torch.int32)


@functools.lru_cache(64)
def _offsets(sizes: tuple[int, ...], steps: tuple[int, ...]) -> Tensor:
    """Where the elements of a view lie, in its order; not to be written to."""
    found = torch.zeros(1, dtype=torch.int64)
    for size, step in zip(sizes, steps, strict=True):
        found = (found.unsqueeze(1) + torch.arange(size) * step).flatten()
    return found


def _run(
    a: Tensor, a_of: Tensor, b: Tensor, b_from: Tensor, deep: Tensor, place: Tensor, start: Tensor, made: Tensor
) -> None:
    """Share :func:`fixed_sums` out to threads."""
    if not b.numel() or not made.numel():
        made.copy_(start.to(torch.float64) * _ONE_STEP)
        return
    reach = 1 + sum((size - 1) * step for size, step in zip(b.shape, b.stride(), strict=True))
    flat = torch.as_strided(b, (reach,), (1,))
    tensors = (a.contiguous(), a_of, flat, b_from, deep, place, start, made)
    given = [item.numpy() for item in tensors]
    run: Any = fixed_sums
    batches, rows, columns = made.shape
    several, high, wide = _task(batches, rows, columns, threads())
    tasks = [
        (slice(i, min(i + several, batches)), slice(j, min(j + high, rows)), slice(n, min(n + wide, columns)))
        for i in range(0, batches, several)
        for j in range(0, rows, high)
        for n in range(0, columns, wide)
    ]
    spread(lambda *parts: run(*given, *(end for part in parts for end in (part.start, part.stop))), tasks, a)


def _task(batches: int, rows: int, columns: int, threads: int) -> tuple[int, int, int]:
    """How many batches, rows and columns one call takes: one call and more for each thread, but few parts of rows,
    each of which lays out its columns anew."""
    if batches >= threads:
        return -(-batches // (2 * threads if threads > 1 else 1)), rows, columns
    blocks = -(-columns // _WIDE)
    parts = -(-threads // (batches * blocks))
    return 1, -(-rows // (parts * ROWS)) * ROWS, _WIDE
