"""Measures of the difference between two arrays: pure functions of numpy arrays, computed in float64.

Below, r is the reference and a the actual value, element by element.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.errors import UsageError

Array = NDArray[Any]


def max_abs(reference: Array, actual: Array) -> float:
    """Return max |a - r|, 0 for empty arrays."""
    return float(np.abs(_f64(actual) - _f64(reference)).max(initial=0.0))


def span(reference: Array) -> float:
    """Return the reference's range, max r - min r; where it is constant (or one element), max |r|, else 1."""
    values = _f64(reference)
    if values.size == 0:
        return 1.0
    return float(values.max() - values.min()) or float(np.abs(values).max()) or 1.0


def relative(reference: Array, actual: Array) -> float:
    """Return max |a - r| divided by the reference's :func:`span`."""
    return max_abs(reference, actual) / span(reference)


def cosine(reference: Array, actual: Array) -> float:
    """Return r·a / (|r| |a|), at most 1; two zero vectors agree (1), one zero vector agrees with none (0).

    Blind to scale: [1, 2] and [2, 4] have cosine 1.
    """
    r, a = _scaled(reference), _scaled(actual)
    lengths = float(np.linalg.norm(r) * np.linalg.norm(a))
    if not lengths:
        return float(not r.any() and not a.any())
    return min(1.0, float(r @ a) / lengths)


def snr_db(reference: Array, actual: Array) -> float:
    """Return the signal-to-noise ratio 10 log10(sum r² / sum (a - r)²) in decibels; infinity where a equals r."""
    noise = float(np.square(_f64(actual) - _f64(reference)).sum())
    signal = float(np.square(_f64(reference)).sum())
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def equal_share(reference: Array, actual: Array) -> float:
    """Return the share of elements with a == r, 1 for empty arrays."""
    return float(np.mean(reference == actual)) if np.size(reference) else 1.0


def _f64(values: Array) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def _scaled(values: Array) -> NDArray[np.float64]:
    """Return ``values`` as a vector whose largest magnitude is 1, so that squaring cannot overflow."""
    flat = _f64(values).ravel()
    return flat / (float(np.abs(flat).max(initial=0.0)) or 1.0)


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two arrays of one shape; the figures are over elements that are finite in both.

    ``not_finite`` counts elements where one array is NaN or infinite and the other is not the same. ``clipped`` counts
    those, not among them, where r is infinite and a has its sign and at least f16's largest magnitude (see
    :data:`F16_LARGEST`).
    """

    elements: int
    max_abs: float
    relative: float
    cosine: float
    snr_db: float
    equal: float
    not_finite: int = 0
    clipped: int = 0


def difference(reference: Array, actual: Array) -> Difference:
    """Compare two arrays; raise :class:`UsageError` where their shapes differ (one element may be of any rank).

    >>> difference(np.array([0.0, 2.0]), np.array([0.0, 1.0])).relative
    0.5
    """
    reference, actual = np.asarray(reference), np.asarray(actual)
    if reference.shape != actual.shape and (reference.size, actual.size) != (1, 1):
        raise UsageError(f"shapes differ: {_shape(reference)} and {_shape(actual)}")
    r, a = reference.ravel(), actual.ravel()
    finite = np.isfinite(r) & np.isfinite(a)
    # Equal infinities compare equal; a NaN does not, not even to itself.
    same = (r == a) | (np.isnan(r) & np.isnan(a)) if not finite.all() else finite
    clipped = ~finite & ~same & _clipped(r, a)
    strays = int((~finite & ~same & ~clipped).sum())
    if not finite.all():
        r, a = r[finite], a[finite]
    return Difference(
        elements=reference.size,
        max_abs=max_abs(r, a),
        relative=relative(r, a),
        cosine=cosine(r, a),
        snr_db=snr_db(r, a),
        equal=equal_share(r, a),
        not_finite=strays,
        clipped=int(clipped.sum()),
    )


F16_LARGEST = 65504.0
"""The largest finite f16. coremltools writes an infinite constant as a type's largest number, this one or f32's."""


def _clipped(reference: Array, actual: Array) -> NDArray[np.bool_]:
    """Return where the reference is infinite and ``actual`` finite, of its sign, and as large as f16 holds or more."""
    r, a = _f64(reference), _f64(actual)
    return np.asarray(np.isinf(r) & np.isfinite(a) & (np.copysign(a, r) == a) & (np.abs(a) >= F16_LARGEST))


def worst(items: Iterable[Difference]) -> Difference:
    """Return the worst figure of each kind among ``items`` (at least one)."""
    items = list(items)
    return Difference(
        elements=sum(item.elements for item in items),
        max_abs=max(item.max_abs for item in items),
        relative=max(item.relative for item in items),
        cosine=min(item.cosine for item in items),
        snr_db=min((item.snr_db for item in items), default=math.inf),
        equal=min(item.equal for item in items),
        not_finite=sum(item.not_finite for item in items),
        clipped=sum(item.clipped for item in items),
    )


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Limits for a :class:`Difference`; a None limit is not checked. ``equal`` is for integer outputs.

    ``max_abs`` of 0 asks for the same numbers, infinite ones too, and for the same labels of a classifier. ``atol`` and
    ``rtol`` hold for each element: |a - r| <= atol + rtol |r|, the one that is None being 0 (see :meth:`outside`).
    """

    cosine: float
    relative: float | None = None
    snr_db: float | None = None
    equal: float = 0.99
    max_abs: float | None = None
    atol: float | None = None
    rtol: float | None = None

    def breaches(self, found: Difference, *, integer: bool = False) -> tuple[str, ...]:
        """Return one phrase for each limit that ``found`` exceeds; empty if within tolerance."""
        phrases = []
        # Where a model computes on with an infinity, its largest number may stand for it; not where the same is asked.
        if strays := found.not_finite + (found.clipped if self.max_abs == 0 else 0):
            phrases.append(f"{strays} of {found.elements} values NaN or infinite on one side only")
        if integer:
            if found.equal < self.equal:
                phrases.append(f"{found.equal:.2%} of the integers equal, under {self.equal:.0%}")
            return tuple(phrases)
        # Asked this way round, a NaN is a breach.
        if self.max_abs is not None and not found.max_abs <= self.max_abs:
            phrases.append(f"max abs {found.max_abs:.2g}, over {self.max_abs:g}")
        if not found.cosine >= self.cosine:
            phrases.append(f"cosine {found.cosine:.6f} under {self.cosine}")
        if self.relative is not None and not found.relative <= self.relative:
            phrases.append(f"error {found.relative:.2g} of the range, over {self.relative:g}")
        if self.snr_db is not None and not found.snr_db >= self.snr_db:
            phrases.append(f"signal to noise {found.snr_db:.1f} dB, under {self.snr_db:g} dB")
        return tuple(phrases)

    def outside(self, reference: Array, actual: Array) -> tuple[str, ...]:
        """Return a phrase that counts the elements further apart than ``atol`` and ``rtol`` allow; empty if none is."""
        if self.atol is None and self.rtol is None:
            return ()
        r, a = _f64(reference).ravel(), _f64(actual).ravel()
        with np.errstate(invalid="ignore"):
            # No finite value is within a share of an infinite one.
            near = (np.abs(a - r) <= (self.atol or 0.0) + (self.rtol or 0.0) * np.abs(r)) & np.isfinite(r)
        count = int((~(near | (r == a) | (np.isnan(r) & np.isnan(a)) | _clipped(r, a))).sum())
        limit = f"atol {self.atol or 0:g}, rtol {self.rtol or 0:g}"
        return (f"{count} of {r.size} values outside {limit}",) if count else ()


TOLERANCES = {
    # A cosine of 0.999 is an error of 4.5 % of the length, 27 dB: the SNR adds what the cosine cannot see, scale.
    "f16": Tolerance(cosine=0.999, snr_db=26.0),
    "f32": Tolerance(cosine=0.9999, relative=1e-4),
}
"""Limits by a package's compute precision, as measured from the source model in float32."""
# A cosine is never below -1: this limits nothing.
EXACT = Tolerance(cosine=-1.0, equal=1.0, max_abs=0.0)
"""Limits for two models that are one program: the same numbers, NaN and infinity in the same places."""


def _shape(array: Array) -> str:
    return "x".join(map(str, array.shape)) or "scalar"
