"""A predicted placement as one HTML page: the program along its length, coloured by unit. No network, no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tlkit import __version__
from tlkit.cli.sink.figures import percent
from tlkit.cli.sink.template import Cell, Piece, Table, render
from tlkit.core.inspect.placement import origin, origins, reasons
from tlkit.placement.facts import PlacementRule
from tlkit.placement.predict import Placed, Prediction

_NAMES = {"ane": "Neural Engine", "gpu": "GPU", "cpu": "CPU"}


@dataclass(frozen=True, slots=True)
class Region:
    """Operations in a row that are on one unit, and what the planner estimates that they cost there."""

    unit: str
    operations: tuple[Placed, ...]

    @property
    def microseconds(self) -> float:
        """The planner's price of them all."""
        return sum(placed.microseconds[placed.unit] for placed in self.operations)


def regions(prediction: Prediction) -> list[Region]:
    """Return the program's regions in order."""
    grouped = groupby(prediction.operations, key=lambda placed: placed.unit)
    return [Region(unit, tuple(items)) for unit, items in grouped]


def placement_page(model: str, predictions: Sequence[Prediction]) -> str:
    """Return the page: for each setting two strips (by operations, by cost), the regions, and the reasons."""
    first = predictions[0]
    lead = f"Predicted for {first.chip.name}, not measured: {first.basis}. "
    lead += f"Costs are the planner's estimates, not latencies. tlkit {__version__}"
    return render(
        "placement.html",
        title=f"{model}: predicted placement",
        model=model,
        lead=lead,
        settings=[_setting(prediction) for prediction in predictions],
    )


def _setting(prediction: Prediction) -> dict[str, Any]:
    found = regions(prediction)
    return {
        "title": f"{prediction.setting}: {prediction.changes} changes of unit",
        "by_operations": [_part(region, len(region.operations)) for region in found],
        "by_cost": [_part(region, region.microseconds) for region in found],
        "regions": _regions(found),
        "reasons": _reasons(prediction),
    }


def _part(region: Region, size: float) -> Piece:
    told = f"{_NAMES[region.unit]}: {len(region.operations)} operations, {region.microseconds:.3g} µs estimated"
    return Piece(region.unit, size, told)


def _regions(found: Sequence[Region]) -> Table:
    heads = ["region", "operations", "µs, estimated", "from", "to", "from module", "to module"]
    rows: list[list[str | Cell]] = []
    for region in found:
        ends = region.operations[0], region.operations[-1]
        places = [Cell(end.name, "text") for end in ends] + [Cell(origin(end), "text") for end in ends]
        rows.append([_NAMES[region.unit], str(len(region.operations)), f"{region.microseconds:.3g}", *places])
    return Table(heads, rows)


def _mend(rule: PlacementRule) -> str:
    return "\n".join([rule.mend, *rule.example.strip().splitlines()])


def _reasons(prediction: Prediction) -> Table | None:
    rows: list[list[str | Cell]] = []
    for reason in reasons(prediction):
        counts = str(len(reason.operations)), percent(reason.share)
        modules = Cell(", ".join(origins(reason.operations)), "why")
        rows.append([reason.rule.id, *counts, Cell(reason.rule.why, "why"), Cell(_mend(reason.rule), "code"), modules])
    heads = ["not on the Neural Engine", "operations", "share of cost", "why", "what to do", "module"]
    return Table(heads, rows) if rows else None
