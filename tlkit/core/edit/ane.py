"""``--ane``: rewrites of a program for the Neural Engine, each made only where it improves the prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tlkit.mil.passes.ane.embeddings import GatherAlong
from tlkit.mil.passes.ane.kernels import SmallKernels
from tlkit.mil.passes.ane.layout import ChannelsFirst
from tlkit.mil.passes.ane.narrow import Narrow
from tlkit.mil.passes.ane.order import First
from tlkit.mil.passes.ane.ranks import FewerAxes
from tlkit.mil.passes.base import Outcome, Pass, run_passes
from tlkit.mil.program import Function, Program
from tlkit.mil.work import steps
from tlkit.placement.latency import estimate, work
from tlkit.placement.predict import predict
from tlkit.types import Unit


@dataclass(frozen=True, slots=True)
class Judged:
    """What is predicted of a function under CPU_AND_NE: the planner's ``cost`` in microseconds, the Neural Engine's
    share of it (0..1), what of it is elsewhere, the estimated latency in milliseconds, and the operations by unit."""

    cost: float
    share: float
    elsewhere: float
    milliseconds: float
    operations: int
    on_ane: int


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One rewrite: what it does, whether it was made, the prediction before and with it.

    ``caution`` says what is not known about it; empty where nothing is.
    """

    function: str
    change: str
    made: bool
    before: Judged
    after: Judged
    caution: str = ""


_CAUTION: Mapping[type[Pass], str] = {
    GatherAlong: "a guess: published is only that an M4 lists the Neural Engine for it, not how fast it is there",
}


def judged(function: Function, chip: str | None = None) -> Judged:
    """Return what is predicted of ``function`` on ``chip``."""
    prediction = predict(function, Unit.ANE, chip)
    cost = sum(placed.microseconds[placed.unit] for placed in prediction.operations)
    away = sum(placed.microseconds[placed.unit] for placed in prediction.operations if placed.unit != "ane")
    latency = estimate(prediction, map(work, steps(function)))
    count = len(prediction.operations)
    return Judged(cost, prediction.share("ane"), away, latency.milliseconds, count, prediction.count("ane"))


def for_ane(program: Program, chip: str | None = None) -> tuple[Program, tuple[Rewrite, ...]]:
    """Return ``program`` with the rewrites that help on ``chip``, and every rewrite that applied, made or not.

    A rewrite helps if it lowers the estimated latency and does not drive work off the Neural Engine, or if it takes
    cost off the other units while the latency stays below the original's. So no function is predicted to be slower than
    it was.
    """
    told: list[Rewrite] = []
    for name in program.functions:
        program, found = _of_function(program, name, chip)
        told += found
    return program, tuple(told)


def _of_function(program: Program, name: str, chip: str | None) -> tuple[Program, list[Rewrite]]:
    """Try the rewrites in rounds, until a round makes none: one may help only after another."""
    first = best = judged(program.functions[name], chip)
    told: dict[type[Pass], Rewrite] = {}
    again = True
    while again:
        again = False
        for change in _rewrites(program, name):
            if type(change) in told and told[type(change)].made:
                continue
            outcome, after = _tried(program, name, change, chip)
            if outcome is None:
                continue
            good, caution = helps(first, best, after), _CAUTION.get(type(change), "")
            told.pop(type(change), None)  # the order is that in which they were made
            told[type(change)] = Rewrite(name, outcome.changes[0], good, best, after, caution)
            if good:
                program, best, again = outcome.program, after, True
    return program, sorted(told.values(), key=lambda item: not item.made)


_LEAST = 1e-3  # of a latency or a cost: less is not an improvement
_DRIVEN = 0.05  # of the whole cost: what more than this leaves the Neural Engine for is no rewrite for it


def helps(first: Judged, before: Judged, after: Judged) -> bool:
    """Whether a rewrite helps a function that was ``first`` and, by other rewrites, is ``before``: see
    :func:`for_ane`."""
    if after.milliseconds > first.milliseconds:
        return False
    faster = after.milliseconds < before.milliseconds * (1 - _LEAST)
    if after.elsewhere > before.elsewhere + _DRIVEN * before.cost:
        return False
    return faster or (after.elsewhere < before.elsewhere * (1 - _LEAST) and after.share >= before.share)


def _tried(program: Program, name: str, change: Pass, chip: str | None) -> tuple[Outcome | None, Judged]:
    """Make a rewrite, with the CPU's operations first where that is better: what it adds for the CPU is in the way."""
    outcome = run_passes(program, [change])
    after = judged(outcome.program.functions[name], chip)
    if not outcome.changes:
        return None, after
    ordered = run_passes(outcome.program, [_first(outcome.program, name)])
    if ordered.changes:
        also = judged(ordered.program.functions[name], chip)
        if also.milliseconds < after.milliseconds:
            change_text = f"{outcome.changes[0]}, {ordered.changes[0]}"
            return Outcome(ordered.program, (change_text,)), also
    return outcome, after


def _first(program: Program, name: str) -> Pass:
    # Operations on integers and truth values are the CPU's, and cut a region where they stand.
    found = steps(program.functions[name])
    return First(name, frozenset(item.name for step in found for item in step.results if not item.kind.dtype.is_float))


def _rewrites(program: Program, name: str) -> Iterator[Pass]:
    yield from (FewerAxes(name), Narrow(name), SmallKernels(name), ChannelsFirst(name), GatherAlong(name))
    yield _first(program, name)
