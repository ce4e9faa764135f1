"""Estimated latencies, as people read them: in magenta, with "est." in every heading and the basis below."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tlkit.cli.sink.card import card
from tlkit.core.bench.estimate import EstimatedRow, Estimates
from tlkit.placement.latency import EstimatedPower

STYLE = "magenta"
_NAMES = {"ane": "Neural Engine", "gpu": "GPU", "cpu": "CPU"}


def estimates_view(found: Estimates) -> RenderableType:
    """Return a row per setting: where it would run, latency, power, energy per run, and what each rests on."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    for heading in ("setting", "runs on (predicted)"):
        table.add_column(heading)
    for heading in ("est. latency", "est. range", "est. power", "est. energy", "est. runs/J"):
        table.add_column(heading, justify="right", style=STYLE, no_wrap=True)
    for row in found.rows:
        table.add_row(*_cells(row))
    facts = [
        ("model", f"{found.model}, {found.gmacs:.3g} GMACs", "bold"),
        ("estimated", f"for {found.chip.name}: nothing here is measured", STYLE),
        ("placement", found.chip.basis, ""),
    ]
    notes = [Text(f"{row.setting}: {row.latency.basis}; power {row.power.basis}", "dim") for row in found.rows]
    return Group(card(facts), Text(), table, Text(), *notes)


def _cells(row: EstimatedRow) -> list[str]:
    total = sum(row.counts.values())
    ran = ", ".join(f"{_NAMES[unit]} {count}/{total}" for unit, count in row.counts.items() if count)
    took = row.latency
    energy = "n/a" if row.millijoules is None else f"~{row.millijoules:.3g} mJ"
    efficiency = "n/a" if row.per_joule is None else f"~{row.per_joule:.3g}"
    span = f"{took.low:.3g} to {took.high:.3g} ms"
    return [str(row.setting), ran, f"~{took.milliseconds:.3g} ms", span, _watts(row.power), energy, efficiency]


def _watts(power: EstimatedPower) -> str:
    return "n/a" if power.watts is None else f"~{power.watts:.2g} W ({power.low:.2g} to {power.high:.2g})"
