"""Statistics of tensors, streamed: one pass in pieces that stay in the processor's cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.formats.base.arrays import chunks
from tlkit.formats.base.tensors import TensorEntry, TensorFile

F16_OVERFLOW = 65520.0
"""From here on a finite value rounds to infinity in f16: half a step above its largest, 65504."""

F16_UNDERFLOW = 2.0**-25
"""Up to here a value rounds to zero in f16: half its smallest step (the tie goes to zero)."""

_SQUARABLE = 1e15  # beyond, sums of squares in f32 could overflow


@dataclass(frozen=True, slots=True)
class TensorStats:
    """What one tensor's values are like. ``min`` to ``std`` are over its finite values, None where there are none.

    ``over_f16`` counts finite values that f16 rounds to infinity, ``under_f16`` nonzero ones that it rounds to zero.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    zeros: int
    nan: int
    inf: int
    over_f16: int
    under_f16: int


class _Totals:
    """Running totals; the variance by Chan's method of combining two samples, which avoids cancellation."""

    def __init__(self) -> None:
        self.count = self.zeros = self.nan = self.inf = self.over = self.under = 0
        self.low, self.high = math.inf, -math.inf
        self.mean = self.squares = 0.0
        self._scratch: NDArray[Any] = np.empty(0, np.float32)
        self._mask = np.empty(0, np.bool_)

    def add(self, values: NDArray[Any]) -> None:
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            nan = int(np.isnan(values).sum())
            finite = values[np.isfinite(values)]
            self.nan += nan
            self.inf += values.size - finite.size - nan
            self.add(finite)
            return
        largest = max(abs(low), abs(high))
        if self._scratch.size < values.size or self._scratch.dtype != values.dtype:
            self._scratch, self._mask = np.empty_like(values), np.empty(values.size, np.bool_)
        scratch, mask = self._scratch[: values.size], self._mask[: values.size]
        if largest > _SQUARABLE:
            values = values.astype(np.float64)
            scratch = np.empty_like(values)
        mean = float(values.mean())
        np.subtract(values, values.dtype.type(mean), out=scratch)
        if largest > 1e150:  # not even f64 squares it
            self._join(values.size, mean, math.inf)
        else:
            self._join(values.size, mean, float(np.dot(scratch, scratch)))
        self.low, self.high = min(self.low, low), max(self.high, high)
        magnitude = np.abs(values, out=scratch)
        np.less_equal(magnitude, values.dtype.type(F16_UNDERFLOW), out=mask)
        small = int(np.count_nonzero(mask))
        if small:
            zeros = int(np.count_nonzero(np.equal(values, 0, out=mask)))
            self.zeros += zeros
            self.under += small - zeros
        if largest >= F16_OVERFLOW:
            self.over += int((magnitude >= F16_OVERFLOW).sum())

    def _join(self, count: int, mean: float, squares: float) -> None:
        total = self.count + count
        apart = mean - self.mean
        self.squares += squares + apart * apart * self.count * count / total
        self.mean += apart * count / total
        self.count = total


def tensor_stats(
    source: TensorFile, entry: TensorEntry, advance: Callable[[int], None] = lambda nbytes: None
) -> TensorStats:
    """Return one tensor's statistics; ``advance`` is called with the bytes as they are read. std divides by n."""
    totals = _Totals()
    for values in chunks(source, entry):
        totals.add(_floats(values))
        # Pieces are counted in elements, progress in bytes.
        advance(entry.nbytes * values.size // max(entry.elements, 1))
    some = totals.count > 0
    return TensorStats(
        entry.name,
        entry.dtype,
        entry.shape,
        entry.elements,
        totals.low if some else None,
        totals.high if some else None,
        totals.mean if some else None,
        math.sqrt(totals.squares / totals.count) if some else None,
        totals.zeros,
        totals.nan,
        totals.inf,
        totals.over,
        totals.under,
    )


def _floats(values: NDArray[Any]) -> NDArray[Any]:
    """Return ``values`` in a type to do sums in: f32, or f64 where f32 would not hold them; complex ones as pairs."""
    if values.dtype.kind == "c":
        values = values.view(values.real.dtype)
    if values.dtype == np.float32 or values.dtype == np.float64:
        return values
    # f32 holds all integers of 16 bits, and not those of 32.
    narrow = values.dtype.itemsize <= 2 or values.dtype == np.bool_
    return values.astype(np.float32 if narrow else np.float64)
