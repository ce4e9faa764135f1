"""Compare rows: how much faster one is than another, with what confidence, and whether a difference is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tlkit.core.bench.intervals import Ratio, Turns, ratio_of_medians
from tlkit.core.bench.rows import Row
from tlkit.errors import UsageError


@dataclass(frozen=True, slots=True)
class Comparison:
    """``row`` against the row ``against``: ``speedup`` is the other's median over this one's, per item.

    ``verdict`` is "no difference shown" where the interval spans 1. ``paired``: the two took turns in one run.
    """

    row: str
    against: str
    speedup: Ratio
    verdict: Literal["faster", "slower", "no difference shown"]
    paired: bool = True
    efficiency: float | None = None


def turns(row: Row) -> Turns:
    """Return a row's samples with their turns."""
    return Turns(row.samples_ns, row.turns)


def comparisons(rows: Sequence[Row], against: str | None) -> tuple[Comparison, ...]:
    """Compare every measured row with the one called ``against``; None is the first measured one.

    Raises UsageError if no row has that name.
    """
    measured = [row for row in rows if row.summary]
    if against is not None and against not in [row.name for row in rows]:
        raise UsageError(f"--against {against}: no such row", f"rows: {', '.join(row.name for row in rows)}")
    base = next((row for row in measured if against is None or row.name == against), None)
    if base is None:
        return ()
    return tuple(compare_rows(row, base, paired=True) for row in measured if row is not base)


def compare_rows(row: Row, base: Row, *, paired: bool) -> Comparison:
    """Return the speed-up of ``row`` over ``base``; ``paired`` if they took turns with each other."""
    ratio = ratio_of_medians(turns(base), turns(row), paired=paired)
    scale = row.batch / base.batch  # an inference of a larger batch does more
    ratio = Ratio(ratio.value * scale, ratio.low * scale, ratio.high * scale, ratio.level)
    verdict: Literal["faster", "slower", "no difference shown"] = "no difference shown"
    if ratio.shown:
        verdict = "faster" if ratio.value > 1 else "slower"
    return Comparison(row.name, base.name, ratio, verdict, paired, _efficiency(row, base))


def same_inputs(one: Row, other: Row) -> bool:
    """Whether the two were given inputs of the same shapes."""
    return one.batch == other.batch and [i.shape for i in one.inputs] == [i.shape for i in other.inputs]


def over_cpu(row: Row, rows: Sequence[Row]) -> float | None:
    """Return how many times more inferences per joule the row gives than the CPU row of the same model and inputs."""
    same = (other for other in rows if other.unit == "cpu" and other.model == row.model and same_inputs(other, row))
    base = next(same, None)
    return None if base is None else _efficiency(row, base)


def _efficiency(row: Row, base: Row) -> float | None:
    if row.energy is None or base.energy is None or row.energy.per_joule is None or base.energy.per_joule is None:
        return None
    return row.energy.per_joule * row.batch / (base.energy.per_joule * base.batch)
