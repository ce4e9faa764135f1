"""How sure a ratio of two medians is: a bootstrap over the turns in which samples were taken.

Neighbouring samples resemble each other (a busy second of the machine makes all of them slow), so a bootstrap over
single samples is far too sure of itself. What is drawn again here is whole turns, and, where several processes took
the samples, whole processes first. Settings that took turns with each other are drawn in pairs: what hit a turn of the
one hit its neighbour's too. Runs that did not are drawn two neighbouring turns at a time, since turns resemble their
neighbours as well, and nothing takes that out.

With few turns a percentile bootstrap is too narrow; its levels are widened as Hesterberg's expanded percentile
interval does (T. Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section 5.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

LEVEL = 0.95
_DRAWS = 2000
_POINTS = 48  # a longer turn is thinned to so many quantiles: its median hardly moves, the bootstrap stays quick


@dataclass(frozen=True, slots=True)
class Ratio:
    """``value``, and the interval that ``level`` of such intervals hold the truth in."""

    value: float
    low: float
    high: float
    level: float = LEVEL

    @property
    def shown(self) -> bool:
        """Whether the interval leaves 1 out: a difference is shown."""
        return not self.low <= 1 <= self.high

    def inverse(self) -> Ratio:
        """Return the ratio the other way round."""
        return Ratio(1 / self.value, 1 / self.high, 1 / self.low, self.level)


@dataclass(frozen=True, slots=True)
class Turns:
    """Samples in nanoseconds, how many each turn gave, and how many processes shared the turns evenly."""

    samples: Sequence[int]
    sizes: Sequence[int] = ()
    processes: int = 1

    def blocks(self) -> list[Sequence[int]]:
        """Return the samples turn by turn; without ``sizes``, in ten runs of neighbours."""
        sizes = list(self.sizes) or _tenths(len(self.samples))
        blocks, start = [], 0
        for size in sizes:
            blocks.append(self.samples[start : start + size])
            start += size
        return [block for block in blocks if len(block)]


def ratio_of_medians(top: Turns, bottom: Turns, *, paired: bool = False, level: float = LEVEL, seed: int = 0) -> Ratio:
    """Return median(top) / median(bottom) with its interval; ``paired`` if the two took turns with each other.

    With a single turn on either side nothing is known of the spread, and the interval is (0, infinity).
    """
    import numpy as np

    value = float(np.median(top.samples) / np.median(bottom.samples))
    over, under = top.blocks(), bottom.blocks()
    if not paired:
        over, under = _in_twos(over, top.processes), _in_twos(under, bottom.processes)
    if min(len(over), len(under)) < 2:
        return Ratio(value, 0.0, math.inf, level)
    rng = np.random.default_rng(seed)
    first = _draw(rng, len(over), top.processes)
    together = paired and len(over) == len(under) and top.processes == bottom.processes
    second = first if together else _draw(rng, len(under), bottom.processes)
    ratios = np.sort(_medians(over, first) / _medians(under, second))
    tail = _widened_tail((1 - level) / 2, min(len(over), len(under)))
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Ratio(value, min(float(low), value), max(float(high), value), level)


def _in_twos(blocks: list[Sequence[int]], processes: int) -> list[Sequence[int]]:
    """Join neighbouring turns where there are enough of them, those of one process alone."""
    each = len(blocks) // processes
    if each < 8 or each % 2 or len(blocks) % processes:
        return blocks
    return [[*blocks[i], *blocks[i + 1]] for i in range(0, len(blocks), 2)]


def _tenths(count: int) -> list[int]:
    parts = min(10, count)
    return [count * (i + 1) // parts - count * i // parts for i in range(parts)]


def _draw(rng: np.random.Generator, blocks: int, processes: int) -> Array:
    """Return indices of blocks, one row a draw: processes with replacement, then turns within each."""
    import numpy as np

    if processes < 2 or blocks % processes:
        return rng.integers(0, blocks, (_DRAWS, blocks))
    each = blocks // processes
    chosen = rng.integers(0, processes, (_DRAWS, processes))
    within = rng.integers(0, each, (_DRAWS, processes, each))
    drawn: Array = (chosen[:, :, None] * each + within).reshape(_DRAWS, blocks)
    return np.ascontiguousarray(drawn)


def _medians(blocks: Sequence[Sequence[int]], drawn: Array) -> Array:
    """Return the median of each draw's blocks taken together."""
    import numpy as np

    points = min(_POINTS, max(len(block) for block in blocks))
    levels = (np.arange(points) + 0.5) / points
    thinned = np.stack([np.quantile(block, levels) for block in blocks])
    medians = [np.median(thinned[rows].reshape(len(rows), -1), axis=1) for rows in np.array_split(drawn, 20)]
    return np.concatenate(medians)


def _widened_tail(tail: float, count: int) -> float:
    """Return the tail to cut off in place of ``tail`` when ``count`` independent units were drawn from."""
    z = -NormalDist().inv_cdf(tail)
    nu = count - 1
    # Student's t from the normal's quantile: the Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5).
    t = z + (z**3 + z) / (4 * nu) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * nu**3)
    return NormalDist().cdf(-t * math.sqrt(count / nu))
