"""Predict which unit Core ML would choose for each operation of a program: the cheapest path through the units.

As published for Core ML's planner (M4, macOS 27): each operation has the units that can run it and an estimated time on
each; the cheapest path through the list of operations wins. A region on the Neural Engine or the GPU costs 0.125 ms to
start, each change of unit 0.125 ms, and ending the program there 0.125 ms; the CPU is free to start and to end on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from tlkit.mil.collector import uncollected
from tlkit.mil.program import BlobRef, Function
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
    known: dict[tuple[object, ...], tuple[dict[str, float], tuple[str, ...], int, int]] = {}
    weighed = []
    for step in found:
        # Layers repeat: what looks alike to every rule and price is weighed once.
        if (alike := known.get(sign := _signature(step))) is None:
            alike = known[sign] = (*_candidates(step, setting, where, table), step.macs, step.nbytes)
        weighed.append(alike)
    candidates = [(cost, reasons) for cost, reasons, _, _ in weighed]
    if setting is Unit.ALL and where.name in GPU_FIRST:
        candidates = _without_ane(candidates)
    chosen, tied = cheapest_path([cost for cost, _ in candidates])
    operations = [step.operation for step in found]
    recorded = modules(operations)
    origins = zip(recorded, modules_before(operations, recorded), strict=True)
    placed = [
        _placed(step, cost, reasons, macs, nbytes, unit, ties, module, "" if module else before)
        for step, (cost, reasons), (_, _, macs, nbytes), unit, ties, (module, before) in zip(
            found, candidates, weighed, chosen, tied, origins, strict=True
        )
    ]
    return Prediction(setting, where, tuple(placed), where.basis)


def _signature(step: Step) -> tuple[object, ...]:
    """Return what rules and prices can see of ``step``, of objects that live as long as its program.

    Types and small constants are one object each where a program is read from a file. Values in a weight file are left
    out: all weights of a layer's kind differ, and none is looked at.
    """
    seen: list[object] = [step.operation.type]
    for name, items in step.operands.items():
        seen.append(name)
        for item in items:
            value = item.value
            constant = None if value is None or isinstance(value.data, BlobRef) else id(value)
            seen += (id(item.kind), item.fixed, constant)
    seen.append(None)
    seen += [id(item.kind) for item in step.results]
    return tuple(seen)


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
    # A unit that cannot run an operation costs infinitely much there.
    priced = [(cost.get("cpu", math.inf), cost.get("gpu", math.inf), cost.get("ane", math.inf)) for cost in costs]
    ahead, behind = _ahead(priced), _behind(priced)
    chosen: list[int] = []
    ties: list[tuple[str, ...]] = []
    for (cpu, gpu, ane), (cpu_b, gpu_b, ane_b), (cpu_a, gpu_a, ane_a) in zip(priced, behind, ahead, strict=True):
        onward = cpu + cpu_a, gpu + gpu_a, ane + ane_a
        total = cpu_b + onward[0], gpu_b + onward[1], ane_b + onward[2]
        most = _with_ties(min(total))
        ties.append(tuple([unit for unit, cost in zip(_UNITS, total, strict=True) if cost <= most]))
        chosen.append(_onward(chosen[-1] if chosen else None, onward))
    return [_UNITS[unit] for unit in chosen], ties


_UNITS = ("cpu", "gpu", "ane")
_Costs = tuple[float, float, float]
"""Microseconds on each of ``_UNITS``."""
_END: _Costs = (0.0, prices.SWITCH, prices.SWITCH)
"""The cost of a program's beginning, or ending, on each unit."""
_TO_CPU, _TO_OTHER = prices.SWITCH, 2 * prices.SWITCH
"""The cost of a change of unit, plus that of starting a region unless it is the CPU's."""


def _ahead(priced: Sequence[_Costs]) -> list[_Costs]:
    """Return, for each operation on each unit, the least that follows, the end included."""
    found = [_END]
    for cpu, gpu, ane in reversed(priced):
        cpu_a, gpu_a, ane_a = found[-1]
        cpu, gpu, ane = cpu + cpu_a, gpu + gpu_a, ane + ane_a
        to_cpu, to_gpu, to_ane = cpu + _TO_CPU, gpu + _TO_OTHER, ane + _TO_OTHER
        found.append((min(cpu, to_gpu, to_ane), min(to_cpu, gpu, to_ane), min(to_cpu, to_gpu, ane)))
    found.pop()  # of what would come before the first
    return found[::-1]


def _behind(priced: Sequence[_Costs]) -> list[_Costs]:
    """Return, for each operation on each unit, the least that precedes, the beginning included."""
    found = [_END]
    for cpu, gpu, ane in priced:
        cpu_b, gpu_b, ane_b = found[-1]
        cpu, gpu, ane = cpu + cpu_b, gpu + gpu_b, ane + ane_b
        from_cpu, from_gpu, from_ane = cpu + _TO_OTHER, gpu + _TO_OTHER, ane + _TO_OTHER
        found.append(
            (min(cpu, gpu + _TO_CPU, ane + _TO_CPU), min(from_cpu, gpu, from_ane), min(from_cpu, from_gpu, ane))
        )
    found.pop()
    return found


def _onward(before: int | None, onward: _Costs) -> int:
    """Return the cheapest unit after ``before``, which two equal paths may not share. In a tie ``before`` stays."""
    cpu, gpu, ane = onward
    if before is None:
        total = [cpu, gpu + _END[1], ane + _END[2]]
    else:
        total = [cpu + _TO_CPU, gpu + _TO_OTHER, ane + _TO_OTHER]
        total[before] = onward[before]
    most = _with_ties(min(total))
    if before is not None and total[before] <= most:
        return before
    return 2 if total[2] <= most else 1 if total[1] <= most else 0


def _with_ties(least: float) -> float:
    """Return the most that counts as equal to ``least``."""
    return least + TIE * (least if least > 1.0 else 1.0)


def _placed(
    step: Step,
    cost: Mapping[str, float],
    reasons: tuple[str, ...],
    macs: int,
    nbytes: int,
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
        macs,
        nbytes,
        step.results[0].name if step.results else "",
        module,
        after,
    )


@cache
def _least(reasons: tuple[str, ...]) -> str:
    trusts = (all_rules()[reason].trust for reason in reasons)
    return min(trusts, key=("low", "medium", "high").index, default="medium")
