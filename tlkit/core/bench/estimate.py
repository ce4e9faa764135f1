"""What a model would take on a chip that is not here: latency, power and efficiency per setting, estimated.

Nothing here is measured, and nothing is mixed with what is: these figures have their own document and their own view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from tlkit.core.inspect.inspection import examine
from tlkit.errors import UsageError
from tlkit.mil.program import Function
from tlkit.mil.text.api import parse_program
from tlkit.mil.work import steps
from tlkit.placement.facts import Chip, chip_named
from tlkit.placement.latency import EstimatedPower, Latency, Work, estimate, powers, work
from tlkit.placement.predict import Prediction, predict
from tlkit.types import Unit

BUILT_IN = "resnet50"
SETTINGS = (Unit.ANE, Unit.GPU, Unit.CPU)


@dataclass(frozen=True, slots=True)
class EstimatedRow:
    """One setting: where operations would run (``unit``: all on one), the latency, the power while they do.

    ``millijoules`` per run and ``per_joule`` (runs per joule) follow from the two: None where no power is published.
    """

    setting: Unit
    unit: str | None
    counts: dict[str, int]
    latency: Latency
    power: EstimatedPower
    millijoules: float | None
    per_joule: float | None


@dataclass(frozen=True, slots=True)
class Estimates:
    """The estimates of a model on a chip, a row per setting."""

    model: str
    chip: Chip
    gmacs: float
    rows: tuple[EstimatedRow, ...]


def estimates(
    model: str | None = None,
    units: Sequence[str | Unit] = SETTINGS,
    chip: str | None = None,
    function: str | None = None,
) -> Estimates:
    """Estimate ``model`` (a Core ML program; the built-in ResNet-50 for None) under each of ``units`` on ``chip``.

    Raises UsageError for a model without a MIL program, an unknown unit or chip, or a unit that the chip has not.
    """
    where = chip_named(chip)
    wanted = [unit if isinstance(unit, Unit) else Unit.parse(unit) for unit in units]
    if not where.largest and {Unit.ANE, Unit.ALL} & set(wanted):
        raise UsageError(f"the {where.name} has no Neural Engine for apps", "ask for --units gpu,cpu")
    body = _program(model, function)
    done = list(steps(body))
    rows = tuple(_row(predict(body, unit, where.name), list(map(work, done))) for unit in wanted)
    return Estimates(model or BUILT_IN, where, sum(step.macs for step in done) / 1e9, rows)


def _program(model: str | None, function: str | None) -> Function:
    if model in (None, BUILT_IN):
        text = (files("tlkit.placement") / "data" / f"{BUILT_IN}.mil").read_text(encoding="utf-8")
        return parse_program(text, lambda name: None).function(function)
    found = examine(Path(str(model)), None, function) if Path(str(model)).exists() else None
    if found is None or found.package is None or found.package.program is None:
        raise UsageError(
            f"{model}: --estimate reads MIL programs, and this is not one", "convert it first: tlkit convert"
        )
    return found.package.program.function(function)


def _row(prediction: Prediction, done: Sequence[Work]) -> EstimatedRow:
    took = estimate(prediction, done)
    counts = {unit: prediction.count(unit) for unit in ("ane", "gpu", "cpu")}
    used = [unit for unit, count in counts.items() if count]
    power = powers()[used[0]] if len(used) == 1 else EstimatedPower(None, None, None, "split between units")
    energy = power.watts * took.milliseconds if power.watts is not None else None  # W x ms = mJ
    setting = prediction.setting
    return EstimatedRow(
        setting, used[0] if len(used) == 1 else None, counts, took, power, energy, 1e3 / energy if energy else None
    )


def document(found: Estimates) -> dict[str, object]:
    """Return the estimates as data: what ``--json`` prints, under a key that no measurement has."""
    return {
        "estimates": {
            "kind": "estimate",
            "model": found.model,
            "chip": found.chip.name,
            "placement_basis": found.chip.basis,
            "gmacs": found.gmacs,
            "rows": found.rows,
        }
    }
