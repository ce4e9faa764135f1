"""What outputs have to keep beside f32: figures of them, and limits for those."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.core.compare.difference import difference
from tlkit.errors import UsageError

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """The worst signal to noise (dB) and cosine of any output, and the share of rows whose top class is the same.

    ``top1`` is None where no output is a row of scores. Minus infinity, -1 and 0 where finiteness or over 1 % of the
    integers differ.
    """

    snr: float = math.inf
    cosine: float = 1.0
    top1: float | None = None


@dataclass(frozen=True, slots=True)
class KeepLimits:
    """The limits; None: not asked for."""

    snr: float | None = None
    cosine: float | None = None
    top1: float | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for what no output can keep."""
        if self.cosine is not None and not -1 <= self.cosine <= 1:
            raise UsageError(f"--min-cosine {self.cosine:g}: not a cosine, from -1 to 1", "write 0.999")
        if self.top1 is not None and not 0 < self.top1 <= 1:
            raise UsageError(f"--min-top1 {self.top1:g}: not a share from 0 to 1", "write 0.99")

    def missed(self, found: Kept) -> tuple[str, ...]:
        """Return a phrase for each limit that ``found`` is under; UsageError for top classes where there are none."""
        phrases = []
        if self.snr is not None and not found.snr >= self.snr:
            phrases.append(f"signal to noise {found.snr:.1f} dB, under {self.snr:g} dB")
        if self.cosine is not None and not found.cosine >= self.cosine:
            phrases.append(f"cosine {found.cosine:.6f}, under {self.cosine:g}")
        if self.top1 is not None:
            if found.top1 is None:
                raise UsageError("--min-top1: no output is a row of scores of classes", "use --min-snr or --min-cosine")
            if found.top1 < self.top1:
                phrases.append(f"top-1 agreement {found.top1:.2%}, under {self.top1:.2%}")
        return tuple(phrases)

    def stricter(self, margin: float) -> KeepLimits:
        """Return limits that ask for ``margin`` dB more: of a cosine, by its distance from 1."""
        found = replace(self, snr=None if self.snr is None else self.snr + margin)
        return replace(found, cosine=None if self.cosine is None else 1 - (1 - self.cosine) / 10 ** (margin / 10))

    def __str__(self) -> str:
        told = [f"SNR {self.snr:g} dB"] if self.snr is not None else []
        told += [f"cosine {self.cosine:g}"] if self.cosine is not None else []
        told += [f"top-1 agreement {self.top1:.2%}"] if self.top1 is not None else []
        return ", ".join(told)


def kept(pairs: Iterable[tuple[Array, Array]]) -> Kept:
    """Return the figures of pairs of reference and actual outputs, over all of them."""
    snr, cosine, rows = math.inf, 1.0, []
    for reference, actual in pairs:
        found = difference(reference, actual)
        whole = reference.dtype.kind in "iub"
        if found.not_finite or (whole and found.equal < 0.99):
            snr, cosine = -math.inf, -1.0
        elif not whole:
            snr, cosine = min(snr, found.snr_db), min(cosine, found.cosine)
        if not whole and reference.ndim and reference.shape[-1] > 1:
            same = np.nan_to_num(reference).argmax(-1) == np.nan_to_num(actual).argmax(-1)
            rows.append(float(np.mean(same)) if not found.not_finite else 0.0)
    return Kept(snr, cosine, float(np.mean(rows)) if rows else None)
