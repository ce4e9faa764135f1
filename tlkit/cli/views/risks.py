"""Known problems of a model, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.mil.risks.kit import Risk
    from tlkit.types import ModelInfo

_STYLES = {"refused": "bold red", "wrong": "yellow", "placed": "cyan", "common": "dim"}


_MEASURED = 9  # ranges that a risk shows: three operations of two operands; --json has all


def summary_of_risks(risks: Sequence[Risk]) -> RenderableType:
    """Return what Core ML refuses or a unit computes incorrectly, one line each, and where to read about the rest."""
    from rich.text import Text

    from tlkit.cli.sink.card import grid
    from tlkit.core.inspect.risks import grave
    from tlkit.mil.risks.kit import risk_text

    told = grave(tuple(risks))
    table = grid()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for risk in told:
        table.add_row(Text(risk.level, _STYLES[risk.level]), risk_text(risk))
    table.add_row(Text("risks", "dim"), Text(f"{len(risks)} known on Apple's units: --risks lists them", "dim"))
    return table


def risks_view(info: ModelInfo, risks: Sequence[Risk]) -> RenderableType:
    """Return one block per risk: severity, place and text; the operations; the way around it."""
    from rich.console import Group
    from rich.text import Text

    from tlkit.cli.sink.card import grid

    if not risks:
        return Text(f"{info.path}: no known problems on Apple's units")
    table = grid()
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for risk in risks:
        table.add_row(Text(risk.level, _STYLES[risk.level]), risk.row, Text(f"{risk.units}: {risk.text}"))
        table.add_row("", "", Text(", ".join(risk.places), "dim"))
        for span in risk.measured[:_MEASURED]:
            told = f"measured: {span.value} of {span.place} from {span.least:.4g} to {span.largest:.4g}"
            table.add_row("", "", Text(told, "dim"))
        table.add_row("", "", Text(f"way out: {risk.mend}"))
    untried = "The ways around follow from the reports (docs/fidelity.md) and were not tried on a device here."
    return Group(table, Text(untried, "dim"))
