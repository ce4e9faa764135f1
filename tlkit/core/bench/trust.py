"""How far a row can be trusted, and how to improve it: verdicts on its samples and on the machine's state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tlkit.core.bench.rows import Row, Trust
from tlkit.core.bench.stats import Summary, percentile, summarize
from tlkit.core.bench.versus import turns
from tlkit.host.conditions import Conditions

FEW = 30
"""Samples below which no row is called good."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """The bounds above which a figure is no longer good, and above which it is poor."""

    fair: float
    poor: float

    def level(self, value: float) -> int:
        return (value > self.fair) + (value > self.poor)


# Judgement, not law: a difference of 5 % cannot be seen through a spread or a drift of as much.
_SPREAD = _Limit(0.05, 0.20)
_DRIFT = _Limit(0.03, 0.10)
_VARIATION = _Limit(0.25, 1.0)
_STARTS = _Limit(0.05, 0.15)
_OTHERS = _Limit(0.05, 0.20)
_LEVELS: tuple[Literal["good", "fair", "poor"], ...] = ("good", "fair", "poor")


def judge(row: Row, conditions: Conditions | None = None, *, tokens: bool = False) -> Trust | None:
    """Return the verdict on a measured row; None where there is nothing to judge.

    ``tokens``: it is one of a language model, of which other figures are shown, and which takes no ``--warmup``.
    """
    if row.summary is None or not row.samples_ns:
        return None
    variation = row.summary.std_ns / row.summary.mean_ns
    spread, drift, starts = _spread(row.samples_ns, row.summary), _drift(row.samples_ns), _starts(row)
    found = [*_of_samples(row, spread, drift, variation, tokens), *_of_starts(starts, len(row.turns))]
    found += _of_machine(row, conditions) if conditions else []
    return Trust(
        level=_LEVELS[max((level for level, _, _ in found), default=0)],
        variation=variation,
        spread=spread,
        drift=drift,
        starts=starts,
        reasons=tuple(reason for level, reason, _ in found if level),
        advice=tuple(dict.fromkeys(advice for level, _, advice in found if level and advice)),
    )


def _spread(samples: Sequence[int], summary: Summary) -> float:
    ordered = sorted(samples)
    return (percentile(ordered, 75) - percentile(ordered, 25)) / summary.median_ns


def _drift(samples: Sequence[int]) -> float:
    third = len(samples) // 3
    if third < 3:
        return 0.0
    first, last = summarize(samples[:third], ()), summarize(samples[-third:], ())
    return last.median_ns / first.median_ns - 1


def _starts(row: Row) -> float | None:
    medians = turns(row).medians()
    return max(medians) / min(medians) - 1 if len(medians) > 1 else None


def _of_starts(starts: float | None, processes: int) -> list[tuple[int, str, str]]:
    if starts is None:
        return []
    reason = f"one start of the process is {starts:.0%} slower than another"
    return [(_STARTS.level(starts), reason, f"take more of them: --processes {2 * processes}")]


def _of_samples(row: Row, spread: float, drift: float, variation: float, tokens: bool) -> list[tuple[int, str, str]]:
    found = [
        (_SPREAD.level(spread), f"half the samples lie {spread:.0%} apart", "measure longer, on a quieter machine"),
        (
            _VARIATION.level(variation),
            f"standard deviation {variation:.0%} of the mean",
            "look at the median, not at tokens/s" if tokens else "look at p95, not at the mean",
        ),
        (
            _DRIFT.level(abs(drift)),
            f"the last third is {abs(drift):.0%} {'slower' if drift > 0 else 'faster'} than the first",
            "let the machine cool down, then measure again"
            if tokens
            else "warm up longer, or let the machine cool down: --warmup, --duration",
        ),
    ]
    if len(row.samples_ns) < FEW:
        found.append((1, f"only {len(row.samples_ns)} samples", f"take more: -n {FEW} or above"))
    if row.settled is False:
        found.append((1, "warm-up ended before its windows agreed", "raise --warmup"))
    if row.timer_ns and row.summary and row.timer_ns > 0.05 * row.summary.median_ns:
        share = row.timer_ns / row.summary.median_ns
        found.append((1, f"timing itself is {share:.0%} of a sample", "measure a larger batch"))
    return found


def _of_machine(row: Row, conditions: Conditions) -> list[tuple[int, str, str]]:
    found: list[tuple[int, str, str]] = []
    others = conditions.other_load
    if others is not None:
        advice = "stop other programs"
        if row.threads and row.threads > 1 and _OTHERS.level(others):
            # An OpenMP thread that waits spins; when its partner has lost its core, it burns a whole time slice.
            advice += ", or give the model fewer threads than there are cores: --threads 1"
        found.append((_OTHERS.level(others), f"other processes used {others:.0%} of the machine", advice))
    if conditions.low_power:
        found.append((2, "low-power mode is on", "turn it off"))
    if conditions.power_source == "battery":
        found.append((1, "on battery", "connect the power supply"))
    if conditions.throttled:
        found.append((2, "the processor was slowed down by heat", "let it cool down, then measure again"))
    if conditions.governor in ("powersave", "conservative") and not conditions.governor_is_driver:
        found.append((1, f"the CPU governor is {conditions.governor}", "set it to performance: cpupower frequency-set"))
    return found
