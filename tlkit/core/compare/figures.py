"""What two outputs of one input have in common beyond their distance: classes, distributions, masks.

Below, r is the reference and a the actual output, arrays of one shape. Each figure is None where it does not apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.core.compare.difference import Difference, difference, worst

Array = NDArray[Any]
METRICS = ("max-abs", "relative", "cosine", "snr", "equal", "top1", "top5", "kl", "iou")
"""What ``--metric`` may name."""
DECADES = tuple(range(-12, 7))
"""Powers of ten that bound the bins of a distribution of errors; what is outside is in the first and the last bin."""
_SUM = 1e-2  # how far from 1 the sum of a distribution may be, in f16
_CLASSES = 2


def top_agreement(reference: Array, actual: Array, k: int) -> float | None:
    """Return the share of rows whose likeliest class of r is among the ``k`` likeliest of a (rows: the last axis).

    None for integers, for single values and for fewer classes than make a choice (``k`` or fewer).
    """
    if reference.dtype.kind != "f" or not reference.ndim or reference.shape[-1] < max(_CLASSES, k + 1):
        return None
    r, a = _rows(reference), _rows(actual)
    # A row of NaN has no likeliest class: it agrees with nothing.
    sound = ~(np.isnan(r).any(-1) | np.isnan(a).any(-1))
    wanted = r.argmax(-1)
    chosen = (
        np.argpartition(-np.nan_to_num(a), k - 1, axis=-1)[:, :k] if k > 1 else np.nan_to_num(a).argmax(-1)[:, None]
    )
    return float(np.mean((chosen == wanted[:, None]).any(-1) & sound)) if len(r) else None


def kl_divergence(reference: Array, actual: Array) -> float | None:
    """Return the largest sum of r log(r / a) over rows, in nats; None where r's rows are not distributions.

    Where a is 0 and r is not, a counts as the smallest f16 number.
    """
    if reference.dtype.kind != "f" or not reference.ndim or reference.shape[-1] < _CLASSES:
        return None
    r, a = _rows(reference), _rows(actual)
    if not r.size or not np.isfinite(r).all() or (r < 0).any() or (np.abs(r.sum(-1) - 1) > _SUM).any():
        return None
    a = np.maximum(np.nan_to_num(a), 2.0**-24)
    terms = np.where(r > 0, r * np.log(np.maximum(r, 2.0**-24) / a), 0.0)
    return max(0.0, float(terms.sum(-1).max()))


def iou(reference: Array, actual: Array) -> float | None:
    """Return the intersection over union of the masks, the mean over the labels that r or a has.

    Integers are labels, 0 the background unless it is the only one. Floats of (batch, classes, height, width) with two
    classes or more are scores, of which the largest is the label; other floats are masks where they are above the
    middle of r's range.
    """
    if not reference.size:
        return None
    r, a = _labels(reference, reference), _labels(actual, reference)
    found = sorted({*np.unique(r).tolist(), *np.unique(a).tolist()})
    shares = []
    for label in [item for item in found if item] or found:
        one, other = r == label, a == label
        shares.append(float((one & other).sum() / (one | other).sum()))
    return float(np.mean(shares))


def _labels(values: Array, reference: Array) -> Array:
    if values.dtype.kind in "iub":
        return values
    if reference.ndim == 4 and reference.shape[1] >= _CLASSES:
        return np.asarray(np.nan_to_num(values).argmax(1))
    finite = reference[np.isfinite(reference)]
    middle = (float(finite.min()) + float(finite.max())) / 2 if finite.size else 0.5
    return np.asarray(values > middle).astype(np.int64)


def _rows(values: Array) -> NDArray[np.float64]:
    return np.asarray(values, np.float64).reshape(-1, values.shape[-1])


@dataclass(frozen=True, slots=True)
class OutputFigures:
    """How one output compares: the worst figure of each kind over the inputs, and which input is the worst.

    ``other`` is the output's name on the other side. ``top1`` and ``top5`` are the share of rows of all inputs,
    ``kl`` is the largest, ``iou`` the mean. ``not_finite`` counts NaN and infinities of the reference itself.
    ``errors`` counts |a - r| by decade: below the first of :data:`DECADES`, between two, from the last on.
    """

    name: str
    other: str
    shape: tuple[int, ...]
    difference: Difference
    worst: str
    top1: float | None = None
    top5: float | None = None
    kl: float | None = None
    iou: float | None = None
    not_finite: int = 0
    errors: tuple[int, ...] = ()


@dataclass
class Tally:
    """Collects the figures of outputs as they come, input by input. ``iou`` is computed where it is asked for."""

    names: Mapping[str, str] = field(default_factory=dict)
    iou: bool = False
    _items: dict[str, list[tuple[str, Difference]]] = field(default_factory=dict)
    _shares: dict[str, dict[str, list[tuple[float, int]]]] = field(default_factory=dict)
    _shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _wild: dict[str, int] = field(default_factory=dict)
    _errors: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def __call__(self, case: str, name: str, reference: Array, actual: Array) -> None:
        """Add what one input gave for the output ``name``."""
        self._items.setdefault(name, []).append((case, difference(reference, actual)))
        self._shapes.setdefault(name, reference.shape)
        floating = reference.dtype.kind == "f"
        self._wild[name] = self._wild.get(name, 0) + (int((~np.isfinite(reference)).sum()) if floating else 0)
        with np.errstate(all="ignore"):
            apart = np.abs(actual.astype(np.float64) - reference.astype(np.float64))
            place = np.digitize(apart[np.isfinite(apart)].ravel(), np.power(10.0, DECADES))
        counted = np.bincount(place, minlength=len(DECADES) + 1).astype(np.int64)
        self._errors[name] = self._errors.get(name, np.zeros_like(counted)) + counted
        found = {
            "top1": top_agreement(reference, actual, 1),
            "top5": top_agreement(reference, actual, 5),
            "kl": kl_divergence(reference, actual),
            "iou": iou(reference, actual) if self.iou else None,
        }
        rows = reference.size // reference.shape[-1] if reference.ndim and reference.shape[-1] else 1
        for key, share in found.items():
            if share is not None:
                self._shares.setdefault(name, {}).setdefault(key, []).append((share, rows))

    def figures(self) -> tuple[OutputFigures, ...]:
        """Return one entry for each output, in the order in which they came first."""
        return tuple(map(self._of, self._items))

    def worst_case(self) -> str:
        """Return the input with the worst output of all; empty where nothing was compared."""
        ranked = [(item.not_finite == 0, item.snr_db, case) for items in self._items.values() for case, item in items]
        return min(ranked)[2] if ranked else ""

    def _of(self, name: str) -> OutputFigures:
        items, shares = self._items[name], self._shares.get(name, {})
        case = min(items, key=lambda item: (item[1].not_finite == 0, item[1].snr_db))[0]
        return OutputFigures(
            name,
            self.names.get(name, name),
            self._shapes[name],
            worst(item for _, item in items),
            case,
            _mean(shares.get("top1", ())),
            _mean(shares.get("top5", ())),
            max((share for share, _ in shares.get("kl", ())), default=None),
            _mean(shares.get("iou", ())),
            self._wild[name],
            tuple(self._errors[name].tolist()),
        )


def _mean(shares: Iterable[tuple[float, int]]) -> float | None:
    pairs: Sequence[tuple[float, int]] = tuple(shares)
    total = sum(count for _, count in pairs)
    return sum(share * count for share, count in pairs) / total if total else None
