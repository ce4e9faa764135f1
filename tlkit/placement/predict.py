"""Predict which unit Core ML would choose for each operation of a program: the cheapest path through the units.

As published for Core ML's planner (M4, macOS 27): each operation has the units that can run it and an estimated time on
each; the cheapest path through the list of operations wins. A region on the Neural Engine or the GPU costs 0.125 ms to
start, each change of unit 0.125 ms, and ending the program there 0.125 ms; the CPU is free to start and to end on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tlkit.mil.collector import uncollected
from tlkit.mil.program import Function
from tlkit.mil.survey.names import modules, modules_before
from tlkit.mil.work import Step, steps
from tlkit.placement import prices, rules
from tlkit.placement.facts import Chip, Rates, all_rules, chip_named
from tlkit.types import Unit

ALLOWED: Mapping[Unit, tuple[str, ...]] = {
    Unit.CPU: ("cpu",),
    Unit.GPU: ("cpu", "gpu"),
    Unit.ANE: ("cpu", "ane"),
    Unit.ALL: ("cpu", "gpu", "ane"),
}
"""What each compute-unit setting lets Core ML use."""

GPU_FIRST = ("M5 Pro", "M5 Max")
"""Chips that planned five networks of batch 16 wholly on the GPU under ``all``, a small one on the Neural Engine."""
SMALL = 4000.0
"""Microseconds of price on the Neural Engine: between MobileNetV2 of batch 1 and of batch 16."""
QUIRK = ("GPU-first",)

TIE = 1e-9  # of the price: the planner's own figures are equal to nine digits where they tie


@dataclass(frozen=True, slots=True)
class Placed:
    """One operation: the units that can run it, the one predicted, its price there, and why it is not on the ANE.
    ``microseconds`` is the planner's estimate for each unit that can run it; ``tied`` are units of equal cost;
    ``result`` is the name of what it makes. ``module`` is the path of the PyTorch module that it came from, where the
    package records it, and ``after`` otherwise the recorded module that what it reads came from (both may be empty).
    ``line`` is the line of the PyTorch source, where that is recorded (``net.py:12``).

    ``confidence`` is ``high``, ``medium``, ``low``, or ``unknown`` where no rule knows the operation.
    """

    name: str
    type: str
    supported: tuple[str, ...]
    unit: str
    tied: tuple[str, ...]
    microseconds: Mapping[str, float]
    reasons: tuple[str, ...]
    confidence: str
    macs: int
    nbytes: int
    result: str = ""
    module: str = ""
    after: str = ""
    line: str = ""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Where a function's operations would run under one setting on one chip; ``basis`` says what the prediction rests
    on."""

    setting: Unit
    chip: Chip
    operations: tuple[Placed, ...]
    basis: str

    @property
    def changes(self) -> int:
        """The number of changes of unit."""
        units = [placed.unit for placed in self.operations]
        return sum(a != b for a, b in pairwise(units))

    def share(self, unit: str) -> float:
        """Return ``unit``'s share (0..1) of the planner's estimated cost."""
        total = sum(placed.microseconds[placed.unit] for placed in self.operations)
        mine = sum(placed.microseconds[placed.unit] for placed in self.operations if placed.unit == unit)
        return mine / total if total else 0.0

    def count(self, unit: str) -> int:
        """Return how many operations run on ``unit``."""
        return sum(placed.unit == unit for placed in self.operations)


@uncollected()
def predict(
    function: Function, setting: Unit = Unit.ANE, chip: str | None = None, table: Rates | None = None
) -> Prediction:
    """Predict where ``function`` would run, by ``table``'s rates. Raises UsageError for a chip that is not known."""
    where = chip_named(chip)
    found = list(steps(function))
    candidates = [_candidates(step, setting, where, table) for step in found]
    if setting is Unit.ALL and where.name in GPU_FIRST:
        candidates = _without_ane(candidates)
    chosen, tied = cheapest_path([cost for cost, _ in candidates])
    operations = [step.operation for step in found]
    recorded = modules(operations)
    origins = zip(recorded, modules_before(operations, recorded), strict=True)
    placed = (
        _placed(step, *candidate, unit, ties, module, "" if module else before)
        for step, candidate, unit, ties, (module, before) in zip(found, candidates, chosen, tied, origins, strict=True)
    )
    return Prediction(setting, where, tuple(placed), where.basis)


def _without_ane(candidates: list[tuple[dict[str, float], tuple[str, ...]]]) -> list[Any]:
    """What is left where the GPU takes whole networks: all but the smallest."""
    if sum(cost.get("ane", 0.0) for cost, _ in candidates) < SMALL:
        return candidates
    return [
        ({unit: price for unit, price in cost.items() if unit != "ane"} if "gpu" in cost else cost, reasons or QUIRK)
        for cost, reasons in candidates
    ]


def _candidates(step: Step, setting: Unit, chip: Chip, table: Rates | None) -> tuple[dict[str, float], tuple[str, ...]]:
    reasons = rules.against_ane(step, chip.largest)
    allowed = list(ALLOWED[setting])
    if reasons and "ane" in allowed:
        allowed.remove("ane")
    if rules.against_gpu(step) and "gpu" in allowed:
        allowed.remove("gpu")
    return prices.microseconds_on(step, allowed, chip.prices, table), reasons


def cheapest_path(costs: Sequence[Mapping[str, float]]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the cheapest unit for each operation, and all units on paths of equal cost.

    ``costs`` has, for each operation in order, microseconds by unit. Linear in the number of operations.
    """
    if not costs:
        return [], []
    # ahead: the least that follows an operation on each unit, its end included; behind: the least that precedes it.
    ahead: list[dict[str, float]] = [{} for _ in costs]
    ahead[-1] = {unit: _end(unit) for unit in costs[-1]}
    for index in range(len(costs) - 2, -1, -1):
        later = {unit: cost + ahead[index + 1][unit] for unit, cost in costs[index + 1].items()}
        ahead[index] = {unit: _least_of(later, _AFTER[unit]) for unit in costs[index]}
    behind = [{unit: _end(unit) for unit in costs[0]}]
    for index in range(1, len(costs)):
        before = {unit: cost + behind[-1][unit] for unit, cost in costs[index - 1].items()}
        behind.append({unit: _least_of(before, _BEFORE[unit]) for unit in costs[index]})
    chosen: list[str] = []
    ties: list[tuple[str, ...]] = []
    for index, here in enumerate(costs):
        total = {unit: behind[index][unit] + cost + ahead[index][unit] for unit, cost in here.items()}
        best = min(total.values())
        limit = best + TIE * max(best, 1.0)
        ties.append(tuple(unit for unit, cost in total.items() if cost <= limit))
        chosen.append(_onward(chosen[-1] if chosen else "", here, ahead[index]))
    return chosen, ties


def _least_of(costs: Mapping[str, float], changes: Mapping[str, float]) -> float:
    """Return the least of costs by unit, each with the change of unit that it takes."""
    least = math.inf
    for unit, cost in costs.items():
        cost += changes[unit]
        if cost < least:
            least = cost
    return least


def _onward(before: str, here: Mapping[str, float], ahead: Mapping[str, float]) -> str:
    """Return the cheapest unit after ``before``, which two equal paths may not share. In a tie ``before`` stays."""
    total = {unit: (_AFTER[before][unit] if before else _end(unit)) + cost + ahead[unit] for unit, cost in here.items()}
    most = min(total.values())
    most += TIE * max(most, 1.0)
    return next(unit for unit in (before, "ane", "gpu", "cpu") if unit in total and total[unit] <= most)


def _end(unit: str) -> float:
    """Return the cost of a program's beginning, or ending, on ``unit``."""
    return 0.0 if unit == "cpu" else prices.SWITCH


def _change(before: str, after: str) -> float:
    """Return the cost of a change of unit, plus that of starting a region unless it is the CPU's."""
    if before == after:
        return 0.0
    return prices.SWITCH if after == "cpu" else 2 * prices.SWITCH


_UNITS = ("cpu", "gpu", "ane")
_AFTER = {before: {after: _change(before, after) for after in _UNITS} for before in _UNITS}
_BEFORE = {after: {before: _change(before, after) for before in _UNITS} for after in _UNITS}


def _placed(
    step: Step,
    cost: Mapping[str, float],
    reasons: tuple[str, ...],
    unit: str,
    tied: Sequence[str],
    module: str,
    after: str,
) -> Placed:
    told = reasons
    if unit != "ane" and not reasons and "ane" in cost:
        # Cheaper there on its own, but not by enough to pay for changing the unit.
        told = ("island",) if cost["ane"] < cost[unit] else ("cheaper-elsewhere",)
    confidence = "unknown" if "unknown-op" in reasons else _least(told)
    equal = tuple(other for other in tied if other != unit) if len(tied) > 1 else ()
    return Placed(
        step.operation.name,
        step.type,
        tuple(cost),
        unit,
        equal,
        cost,
        told,
        confidence,
        step.macs,
        step.nbytes,
        step.results[0].name if step.results else "",
        module,
        after,
    )


def _least(reasons: Iterable[str]) -> str:
    trusts = (all_rules()[reason].trust for reason in reasons)
    return min(trusts, key=("low", "medium", "high").index, default="medium")
