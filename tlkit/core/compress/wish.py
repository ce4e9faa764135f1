"""What a search for compressed weights is to reach, and what it found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tlkit.core.compress.choices import WeightChoice
from tlkit.core.compress.compress import Compressed
from tlkit.words import byte_text

AS_IT_IS = str(WeightChoice())
"""What a choice is called that leaves a weight as it is."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the package has to reach: bytes, the signal to noise in dB, the share of equal top classes, or of right ones
    (``labelled``)."""

    max_size: int | None = None
    min_snr: float | None = None
    min_top1: float | None = None
    labelled: bool = False

    def good(self, snr: float, top1: float | None) -> bool:
        """Whether outputs so far from the original's are good enough."""
        enough = self.min_snr is None or snr >= self.min_snr
        return enough and (self.min_top1 is None or (top1 is not None and top1 >= self.min_top1))

    def __str__(self) -> str:
        told = [f"at most {byte_text(self.max_size)}"] if self.max_size is not None else []
        told += [f"SNR {self.min_snr:g} dB"] if self.min_snr is not None else []
        told += (
            [f"top-1 {'accuracy' if self.labelled else 'agreement'} {self.min_top1:.2%}"]
            if self.min_top1 is not None
            else []
        )
        return ", ".join(told)


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """One candidate: the bytes of its package, the signal to noise in dB as predicted from its weights' own errors, as
    run on the samples searched on, and on others, and the top-1 agreement there, or accuracy (None: no scores).

    ``uniform`` is the choice that all weights have, empty for a mixture; ``chosen`` says which was taken.
    """

    nbytes: int
    predicted_db: float
    seen_db: float
    unseen_db: float
    top1: float | None
    uniform: str = ""
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class SensitivityRow:
    """One weight at one choice by itself: its bytes, and the worst signal to noise of an output, in dB."""

    weight: str
    choice: str
    nbytes: int
    snr_db: float


@dataclass(frozen=True, slots=True)
class AutoCompressed:
    """What was found and made. ``compressed`` is None where nothing was written; ``met`` says whether the target is.

    ``frontier`` are the candidates that were run whole, from large to small; ``best`` is the one that was taken, or
    that comes closest. ``seen`` and ``unseen`` name the samples; ``runs`` is how many inferences the search took.
    """

    compressed: Compressed | None
    source: str
    target: str
    met: bool
    before: int
    frontier: tuple[FrontierPoint, ...]
    best: FrontierPoint
    choices: Mapping[str, str]
    sensitivity: tuple[SensitivityRow, ...]
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    runs: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the target is met, by what was written."""
        return self.met
