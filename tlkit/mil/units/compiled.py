"""The Neural Engine's sums (row P4) by loops that numba compiles: one pass over the products, on a CPU.

A product is rounded to steps of 2^-16 by adding it, in f32, to a number whose own last bit is one step. Its bits are
then that number's plus a whole number of steps, so whole 32-bit numbers are added, and what they pass at 2^31 steps is
the accumulator's own limit. Ties go away from zero because one factor is moved away from it by f32's last bit, which is
less than what lies between any product of two f16 values and the nearest tie.

A product is lost where its factors' exponents add to -17 or less: for one value of ``a`` these are the values of ``b``
below a power of two, so rows of ``b`` are kept in up to 13 forms, each without what its values of ``a`` would lose.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch

from tlkit.mil.ops.kit.registry import Tensor
from tlkit.mil.units.accumulators import spread
from tlkit.mil.units.compiled_rounding import bits, bits64, compiled, number, number64
from tlkit.mil.units.rounding import INF_READ, NAN_READ

_BASE = 192.0  # between 128 and 256, where f32's last bit is 2^-16; products of up to 64 stay between
_BASE_BITS = 0x43400000
_LARGEST = 32.0  # of products that are rounded so: what moves them off a tie stays below half a step
_DEEP, _WIDE = 128, 128  # rows and columns of b at a time: their usual forms fit a core's second cache
_FORMS = 13  # for exponents of a of -14 to -3, and for all from -2 on, of which nothing is lost
_LEAST, _WHOLE = -14, -2
_STEPS = 65536.0
_ROWS = 512  # at a time: whose lists of factors stay in the cache, and on which the forms of b are spent
_TURNED = 100  # columns: of fewer the loops are too short, so what has more rows is turned around


@compiled
def _read(x: Any) -> Any:
    """A factor as the unit reads it (row P5)."""
    if x != x:
        return NAN_READ
    return min(max(np.float64(x), -INF_READ), INF_READ) if abs(x) == np.inf else np.float64(x)


@compiled
def _whole_steps(product: Any) -> Any:
    """A product in steps, ties away from zero, of which the last 32 bits count."""
    steps = np.int64(abs(product) * _STEPS + 0.5)
    return np.int32(steps if product > 0 else -steps)


@compiled
def _large(x: Any, row: Any, steps: Any) -> None:
    """Add x times a row of b where products may be too large for the quick way; small ones among them vanish."""
    power = max((bits(np.float32(x)) >> 23 & 255) - 127, _LEAST)
    least = 2.0 ** (-16 - power) if power < _WHOLE else 0.0
    for n in range(row.shape[0]):
        y = _read(row[n])
        if abs(y) >= least:
            steps[n] += _whole_steps(x * y)


@compiled
def _listed(a: Any, b: Any, largest: Any, steps: Any, at: Any, form: Any, counts: Any, ready: Any) -> None:
    """List each row's factors that are not 0, and the form of b that each takes; large products are added here."""
    deep = a.shape[1]
    small = np.empty(deep, np.uint8)
    ready[:] = False
    for m in range(a.shape[0]):
        row, forms, places, count = a[m], form[m], at[m], 0
        for k in range(deep):
            power = (bits(row[k]) >> 23 & 255) - 127
            forms[k] = np.uint8(min(max(power, _LEAST), _WHOLE) - _LEAST)
            small[k] = abs(row[k]) * largest[k] < _LARGEST
        for k in range(deep):
            places[count] = k
            ready[forms[k], k] = True
            count += small[k] if row[k] != 0 else 0
        counts[m] = count
        if small.min() == 0:
            for k in range(deep):
                if not small[k]:
                    _large(_read(row[k]), b[k], steps[m])


@compiled
def _formed(b: Any, ready: Any, plain: Any, forms: Any) -> None:
    """Write the forms of a block of b that are used: what is lost is 0, the rest is moved away from 0 by a last bit."""
    deep, wide = b.shape
    if b.strides[0] < b.strides[1]:  # as weights lie: read along memory
        for n in range(wide):
            for k in range(deep):
                plain[k, n] = b[k, n]
    else:
        for k in range(deep):
            for n in range(wide):
                plain[k, n] = b[k, n]
    for f in range(_FORMS):
        least = np.float32(2.0 ** (-16 - (f + _LEAST))) if f < _FORMS - 1 else np.float32(2.0**-24)
        for k in range(deep):
            if ready[f, k]:
                row, made = plain[k, :wide], forms[f, k, :wide]
                for n in range(wide):
                    moved = number(np.int32(bits(row[n]) + 1))
                    made[n] = moved if abs(row[n]) >= least else np.float32(0)


@compiled
def _summed(a: Any, steps: Any, n0: Any, wide: Any, at: Any, form: Any, counts: Any, forms: Any) -> None:
    """Add the listed products of a block of rows, and of ``wide`` columns from ``n0``, to ``steps``."""
    base = np.float32(_BASE)
    for m in range(a.shape[0]):
        # Slices of arrays that are known to be contiguous: only such loops become vector instructions.
        sums, count, i = steps[m, n0 : n0 + wide], counts[m], 0
        while i + 8 <= count:
            k = at[m, i : i + 8]
            f0, f1, f2, f3 = form[m, k[0]], form[m, k[1]], form[m, k[2]], form[m, k[3]]
            f4, f5, f6, f7 = form[m, k[4]], form[m, k[5]], form[m, k[6]], form[m, k[7]]
            x0, x1, x2, x3 = a[m, k[0]], a[m, k[1]], a[m, k[2]], a[m, k[3]]
            x4, x5, x6, x7 = a[m, k[4]], a[m, k[5]], a[m, k[6]], a[m, k[7]]
            y0, y1 = forms[f0, k[0], :wide], forms[f1, k[1], :wide]
            y2, y3 = forms[f2, k[2], :wide], forms[f3, k[3], :wide]
            y4, y5 = forms[f4, k[4], :wide], forms[f5, k[5], :wide]
            y6, y7 = forms[f6, k[6], :wide], forms[f7, k[7], :wide]
            for n in range(wide):
                one = bits(base + x0 * y0[n]) + bits(base + x1 * y1[n])
                two = bits(base + x2 * y2[n]) + bits(base + x3 * y3[n])
                three = bits(base + x4 * y4[n]) + bits(base + x5 * y5[n])
                sums[n] += one + two + (three + (bits(base + x6 * y6[n]) + bits(base + x7 * y7[n])))
            i += 8
        for j in range(i, count):
            x, y = a[m, at[m, j]], forms[form[m, at[m, j]], at[m, j], :wide]
            for n in range(wide):
                sums[n] += bits(base + x * y[n])


@compiled
def _to_halves(steps: Any, counts: Any, made: Any) -> None:
    """Write the sums, rounded to f16 with ties away from zero; ``counts``: how often each row added the base."""
    half = np.int64(1) << 41
    for m in range(steps.shape[0]):
        base = np.int32(counts[m] * _BASE_BITS)
        row, results = steps[m], made[m]
        for n in range(row.shape[0]):
            wide = np.float64(np.int32(row[n] - base))
            # f16 keeps 10 of f64's 52 bits.
            results[n] = np.float32(number64((bits64(wide) + half) & ~(2 * half - 1)) * (1 / _STEPS))


_F32, _I32, _INDEX = numba.float32, numba.int32, numba.int64
_KINDS = (
    _F32[:, :, ::1],
    _F32[:, :, :],
    _F32[:, ::1],
    _I32[:, :, ::1],
    _F32[:, :, ::1],
    _INDEX,
    _INDEX,
    _INDEX,
    _INDEX,
)


@numba.njit(numba.void(*_KINDS), nogil=True, cache=True, error_model="numpy")
def fixed_sums(
    a: Any, b: Any, largest: Any, steps: Any, made: Any, batch_from: int, batch_to: int, row_from: int, row_to: int
) -> None:
    """Write rows of ``a`` [B, M, K] times ``b`` [B, K, N] to ``made`` [B, M, N], rounded to f16 in f32; no look at
    the limit.

    Operands are f16 values in f32, NaN and infinities included; ``largest`` [B, K] are the magnitudes in ``b``'s rows,
    and ``steps`` [B, M, N] begins each sum and is written over.
    """
    rows, depth, columns = row_to - row_from, a.shape[2], b.shape[2]
    total, counts = np.empty(rows, np.int64), np.empty(rows, np.int64)
    at, form = np.empty((rows, _DEEP + 1), np.uint8), np.empty((rows, _DEEP), np.uint8)
    forms, ready = np.empty((_FORMS, _DEEP, _WIDE), np.float32), np.empty((_FORMS, _DEEP), np.bool_)
    plain = np.empty((_DEEP, _WIDE), np.float32)
    for batch in range(batch_from, batch_to):
        total[:], sums = 0, steps[batch, row_from:row_to]
        for k0 in range(0, depth, _DEEP):
            k1 = min(depth, k0 + _DEEP)
            left, right = a[batch, row_from:row_to, k0:k1], b[batch, k0:k1]
            _listed(left, right, largest[batch, k0:k1], sums, at, form, counts, ready)
            total += counts
            for n0 in range(0, columns, _WIDE):
                n1 = min(columns, n0 + _WIDE)
                _formed(right[:, n0:n1], ready, plain, forms)
                _summed(left, sums, n0, n1 - n0, at, form, counts, forms)
        _to_halves(sums, total, made[batch, row_from:row_to])


def by_numba(a: Tensor, b: Tensor, first: Tensor) -> Tensor:
    """Return a [B, M, K] times b [B, K, N], begun with first [B, 1, N] (multiples of 2^-16), rounded to f16 in f32."""
    start = (first.to(torch.float64) * _STEPS).to(torch.int64).to(torch.int32)
    batches, rows, columns = a.shape[0], a.shape[1], b.shape[2]
    start = start.expand(batches, rows, columns)
    if columns < min(_TURNED, rows):
        return _product(b.mT, a.mT, start.mT).mT
    return _product(a, b, start)


def _product(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    made = torch.empty(start.shape, dtype=torch.float32)
    batches, rows, depth = a.shape
    largest = b.abs().amax(2) if b.numel() else b.new_zeros(batches, depth)
    steps = start.clone(memory_format=torch.contiguous_format)
    given = [item.numpy() for item in (a.contiguous(), b, largest, steps, made)]
    height = min(_ROWS, max(1, -(-rows // torch.get_num_threads())))
    several = max(1, min(_ROWS // max(1, rows), -(-batches // torch.get_num_threads())))
    parts = [
        (slice(i, min(i + several, batches)), slice(j, min(j + height, rows)))
        for i in range(0, batches, several)
        for j in range(0, rows, height)
    ]
    run: Any = fixed_sums
    spread(lambda batch, row: run(*given, batch.start, batch.stop, row.start, row.stop), parts, a)
    return made
