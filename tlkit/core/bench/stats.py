"""Summary statistics of latencies in nanoseconds: plain formulas, with nothing dropped or smoothed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PERCENTILE_METHOD = "linear interpolation between the sorted samples at rank (n - 1) * p / 100 (Hyndman-Fan type 7)"
PERCENTILES = (50.0, 90.0, 95.0, 99.0)


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary statistics of a sample of latencies, in nanoseconds. ``std_ns`` divides by n - 1, and is 0.0 for a single
    sample.

    ``percentiles_ns`` maps ``"p95"`` and the like to the value, or to None where the sample is too small to hold it
    (see :func:`samples_for`). ``throughput`` is calls per second, one at a time: n over the samples' total.
    """

    count: int
    median_ns: float
    mean_ns: float
    std_ns: float
    min_ns: int
    max_ns: int
    percentiles_ns: Mapping[str, float | None]
    throughput: float


def summarize(samples: Sequence[int], percentiles: Sequence[float] = PERCENTILES) -> Summary:
    """Sum up ``samples`` (nanoseconds, at least one, their total above zero)."""
    ordered = sorted(samples)
    count = len(ordered)
    total = sum(ordered)
    mean = total / count
    deviation = math.fsum((value - mean) ** 2 for value in ordered)
    return Summary(
        count=count,
        median_ns=percentile(ordered, 50),
        mean_ns=mean,
        std_ns=math.sqrt(deviation / (count - 1)) if count > 1 else 0.0,
        min_ns=ordered[0],
        max_ns=ordered[-1],
        percentiles_ns={f"p{p:g}": percentile(ordered, p) if count >= samples_for(p) else None for p in percentiles},
        throughput=1e9 * count / total,
    )


def percentile(ordered: Sequence[float], p: float) -> float:
    """Return the ``p``-th percentile (0 to 100) of ``ordered``, a sorted sequence, by :data:`PERCENTILE_METHOD`."""
    rank = (len(ordered) - 1) * p / 100
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)


def samples_for(p: float) -> int:
    """Return how many samples the ``p``-th percentile needs, so that at least one lies beyond it: 100 for p99, 20 for
    p95, 10 for p90, and symmetrically 100 for p1.

    With fewer, the value would be the largest sample under another name. 1 for the median, and for 0 and 100, which are
    the extremes themselves.
    """
    tail = min(p, 100 - p)
    # 100 - 99.9 is a little less than 0.1, and 100 over it more than 1000: rounding keeps ceil at that.
    return 1 if tail in (0, 50) else math.ceil(round(100 / tail, 9))
