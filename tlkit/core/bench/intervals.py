"""Confidence intervals for the ratio of two medians; the sampling unit is the process, or a turn if there is only one.

Neighbouring samples are correlated (a busy second of the machine slows all of them), so treating them as independent
would give far too narrow an interval. And a process is a little faster or slower than its twin for its whole life
(where its memory lies, which core it got), which no number of its own samples can show. So:

* Where several processes took the samples, each is one observation, its median (A. Georges et al., "Statistically
  Rigorous Java Performance Evaluation", 2007; T. Kalibera and R. Jones, "Rigorous Benchmarking in Reasonable Time",
  2013). The interval is Student's t on their logarithms: Welch's, or, where the processes took turns with each other,
  that of pairs, whose observation is the median over the turns of how far apart the two were in the same turn: a busy
  moment hits both, or is one turn of many.
* Where each side is a single process, a bootstrap over its turns, in pairs where they took turns with each other, else
  two neighbouring turns at a time, since turns resemble their neighbours as well. With few turns a percentile bootstrap
  is too narrow; its levels are widened as Hesterberg's expanded percentile interval does (T. Hesterberg, "What Teachers
  Should Know About the Bootstrap", 2015, section 5.3).

What neither can see is allowed for by judgement: see :data:`APART` and :data:`START`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, median, variance
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

LEVEL = 0.95

APART = 0.01
"""The least standard deviation between two runs, from changes of the machine (neighbours, heat) that neither run can
see; that of the runs' own processes is used where it is larger, since busy minutes outlast a run."""

START = 0.01
"""The assumed standard deviation between starts of a process, where only one start was measured."""

# Enough for the tails of a 95 % interval: some 50 draws lie beyond each end.
_DRAWS = 2000
_POINTS = 48  # a longer turn is thinned to so many quantiles: its median hardly moves, the bootstrap stays quick


@dataclass(frozen=True, slots=True)
class Ratio:
    """``value``, and its confidence interval: a share ``level`` of such intervals contain the true ratio."""

    value: float
    low: float
    high: float
    level: float = LEVEL

    @property
    def shown(self) -> bool:
        """Whether the interval excludes 1, so that a difference is shown."""
        return not self.low <= 1 <= self.high


@dataclass(frozen=True, slots=True)
class Turns:
    """Samples in nanoseconds, process by process, and the number from each turn of each process."""

    samples: Sequence[int]
    sizes: Sequence[Sequence[int]] = ()

    def processes(self) -> list[list[Sequence[int]]]:
        """Return the samples by process and turn; without ``sizes``, as ten turns of one process."""
        found, start = [], 0
        for sizes in self.sizes or [_tenths(len(self.samples))]:
            turns = []
            for size in sizes:
                turns.append(self.samples[start : start + size])
                start += size
            found.append([turn for turn in turns if len(turn)])
        return [turns for turns in found if turns]

    def medians(self) -> list[float]:
        """Return the median of each process."""
        return [median([sample for turn in turns for sample in turn]) for turns in self.processes()]


def ratio_of_medians(top: Turns, bottom: Turns, *, paired: bool = False, level: float = LEVEL, seed: int = 0) -> Ratio:
    """Return median(top) / median(bottom) with its interval; ``paired`` if the two took turns with each other.

    For several processes it is a geometric mean: of their medians or, if paired, of the pairs' ratios. With a single
    turn on either side the spread is unknown, and the interval is (0, infinity).
    """
    over, under = top.medians(), bottom.medians()
    if paired and len(over) == len(under) > 1:
        value, below, above = _of_pairs(top, bottom, level)
    elif max(len(over), len(under)) > 1:
        value, below, above = _of_processes(over, under, level)
    else:
        value, below, above = _of_turns(top.processes()[0], bottom.processes()[0], paired, level, seed)
    # Variances add. Paired rows share the machine's state, so only unpaired ones get APART; a single process each gets
    # START twice, once per side.
    hidden = (0.0 if paired else max(APART**2, _spread(over), _spread(under))) + (
        2 * START**2 if len(over) == len(under) == 1 else 0.0
    )
    allowed = -NormalDist().inv_cdf((1 - level) / 2) * math.sqrt(hidden)
    # On logarithms, so that the ratio and its inverse have matching intervals.
    low, high = math.exp(value - math.hypot(below, allowed)), math.exp(value + math.hypot(above, allowed))
    return Ratio(math.exp(value), low, high, level)


def _of_pairs(top: Turns, bottom: Turns, level: float) -> tuple[float, float, float]:
    """Return the logarithm of the ratio, and how far below and above it the interval reaches.

    Turns of the same number were taken side by side; a process that finished sooner has fewer.
    """
    differences = [
        median(math.log(median(one) / median(other)) for one, other in zip(over, under, strict=False))
        for over, under in zip(top.processes(), bottom.processes(), strict=True)
    ]
    half = _half(variance(differences) / len(differences), len(differences) - 1, level)
    return fmean(differences), half, half


def _of_processes(top: list[float], bottom: list[float], level: float) -> tuple[float, float, float]:
    """Return the logarithm of the ratio, and how far below and above it the interval reaches."""
    over, under = [math.log(value) for value in top], [math.log(value) for value in bottom]
    half = _half(*_welch(over, under), level)
    return fmean(over) - fmean(under), half, half


def _half(square: float, freedom: float, level: float) -> float:
    """Return how far an interval reaches on each side of a mean of variance ``square``."""
    # Welch's degrees of freedom are fractional: rounding down widens the interval, the safe side.
    return student_t((1 + level) / 2, max(1, math.floor(freedom))) * math.sqrt(square)


def _spread(medians: list[float]) -> float:
    """Return the variance of the logarithms of the processes' medians; 0 for a single process."""
    return variance(map(math.log, medians)) if len(medians) > 1 else 0.0


def _welch(one: list[float], other: list[float]) -> tuple[float, float]:
    """Return the variance of the difference of the means, and its degrees of freedom.

    A side with a single process is assumed to vary like the other.
    """
    if min(len(one), len(other)) == 1:
        several = one if len(one) > 1 else other
        # The single value is one more draw of the same spread: s^2 / n + s^2.
        return variance(several) * (1 + 1 / len(several)), len(several) - 1
    parts = [(variance(values) / len(values), len(values) - 1) for values in (one, other)]
    square = sum(part for part, _ in parts)
    # The degrees of freedom are Welch and Satterthwaite's.
    return square, square**2 / sum(part**2 / count for part, count in parts) if square else 1.0


def student_t(p: float, freedom: int) -> float:
    """Return the ``p``-quantile (0.5 to 1) of Student's t, by bisection of its distribution."""
    low, high = 0.0, 1.0
    while _within(high, freedom) < 2 * p - 1:
        # Double the upper end until it brackets the quantile.
        low, high = high, 2 * high
    # 60 halvings exhaust a double's 53 bits.
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 2 * p - 1 else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """Return how probably Student's t lies within ±t (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, freedom - odd + 1, 2):
        total += term
        term *= cosine**2 * k / (k + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _of_turns(
    top: list[Sequence[int]], bottom: list[Sequence[int]], paired: bool, level: float, seed: int
) -> tuple[float, float, float]:
    """Return the logarithm of the ratio, and how far below and above it the interval reaches."""
    import numpy as np

    value = math.log(np.median(np.concatenate(top)) / np.median(np.concatenate(bottom)))
    # Joined in twos, since neighbouring turns resemble each other and would count as more independent than they are.
    over, under = (top, bottom) if paired else (_in_twos(top), _in_twos(bottom))
    if min(len(over), len(under)) < 2:
        return value, math.inf, math.inf
    rng = np.random.default_rng(seed)
    first = rng.integers(0, len(over), (_DRAWS, len(over)))
    together = paired and len(over) == len(under)
    # The same draw for both sides keeps turns that ran side by side together.
    second = first if together else rng.integers(0, len(under), (_DRAWS, len(under)))
    ratios = np.log(_medians(over, first) / _medians(under, second))
    tail = _widened_tail((1 - level) / 2, min(len(over), len(under)))
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return value, max(0.0, value - float(low)), max(0.0, float(high) - value)


def _in_twos(turns: list[Sequence[int]]) -> list[Sequence[int]]:
    """Join neighbouring turns where there are enough of them."""
    if len(turns) < 8 or len(turns) % 2:
        return turns
    return [[*turns[i], *turns[i + 1]] for i in range(0, len(turns), 2)]


def _tenths(count: int) -> list[int]:
    parts = min(10, count)
    return [count * (i + 1) // parts - count * i // parts for i in range(parts)]


def _medians(blocks: Sequence[Sequence[int]], drawn: Array) -> Array:
    """Return the median of each draw's blocks taken together."""
    import numpy as np

    points = min(_POINTS, max(len(block) for block in blocks))
    levels = (np.arange(points) + 0.5) / points
    thinned = np.stack([np.quantile(block, levels) for block in blocks])
    # In 20 portions, so that the table of all draws does not fill the memory.
    medians = [np.median(thinned[rows].reshape(len(rows), -1), axis=1) for rows in np.array_split(drawn, 20)]
    return np.concatenate(medians)


def _widened_tail(tail: float, count: int) -> float:
    """Return the tail to cut off in place of ``tail`` when ``count`` independent units were drawn from."""
    return NormalDist().cdf(-student_t(1 - tail, count - 1) * math.sqrt(count / (count - 1)))
