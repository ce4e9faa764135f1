"""Measurements of several machines as one table: a row per model, a column per machine and unit, trust in each cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit.cli.sink import figures
from tlkit.cli.sink.template import Cell, Table

if TYPE_CHECKING:
    from tlkit.core.bench.bench import BenchResult

_TRUST = ("good", "fair", "poor")  # from the best on


class MatrixFigure(NamedTuple):
    """A measured row: of which model (with the settings that are not its unit), where, its median, and how far it can
    be trusted."""

    model: str
    machine: str
    unit: str
    median_ns: float
    trust: str
    reasons: tuple[str, ...] = ()


def several_machines(runs: Sequence[BenchResult]) -> bool:
    """Whether the runs were measured on more than one machine, as far as their names tell."""
    return len({run.machine.cpu for run in runs}) > 1


def matrix_figures(runs: Iterable[BenchResult]) -> list[MatrixFigure]:
    """Return the measured rows of runs, in their order; of a row measured twice at one place the later run's."""
    found: dict[tuple[str, str, str], MatrixFigure] = {}
    for run in runs:
        for row in run.rows:
            if row.summary is None:
                continue
            more = [part for part in row.name.split("/") if part not in (row.model, row.unit)]
            model, trust = ", ".join([row.model or run.models[0].name, *more]), row.trust
            figure = MatrixFigure(
                *(model, run.machine.cpu, row.unit, row.summary.median_ns),
                *((trust.level, tuple(trust.reasons)) if trust else ("-", ())),
            )
            found[figure[:3]] = figure
    return list(found.values())


def matrix(rows: Sequence[MatrixFigure]) -> tuple[Table, list[str]]:
    """Return the table model x machine and unit, each cell medians and their trust, and why what is not good is not."""
    machines = list(dict.fromkeys(row.machine for row in rows))
    across = sorted(dict.fromkeys((row.machine, row.unit) for row in rows), key=lambda place: machines.index(place[0]))
    found: dict[str, dict[tuple[str, str], list[MatrixFigure]]] = {}
    for row in rows:
        found.setdefault(row.model, {}).setdefault((row.machine, row.unit), []).append(row)
    cells = [[name, *(_medians(there.get(place, [])) for place in across)] for name, there in found.items()]
    return Table(["model", *(f"{machine}, {unit}" for machine, unit in across)], cells), _notes(rows)


def narrow_matrix(rows: Sequence[MatrixFigure]) -> tuple[Table, list[str]]:
    """Return the same for a screen: a row per model and machine, a column per unit, of which there are few."""
    units = list(dict.fromkeys(row.unit for row in rows))
    found: dict[tuple[str, str], dict[str, list[MatrixFigure]]] = {}
    for row in sorted(rows, key=lambda row: [other.model for other in rows].index(row.model)):
        found.setdefault((row.model, row.machine), {}).setdefault(row.unit, []).append(row)
    cells = [[*names, *(_medians(there.get(unit, [])) for unit in units)] for names, there in found.items()]
    return Table(["model", "machine", *units], cells), _notes(rows)


def unit_of(row: Mapping[str, Any]) -> str:
    """Return the unit of a measured row of a document, or what was measured of a language model: ``prompt 128``."""
    return str(row.get("unit") or f"{row.get('test', '')} {row.get('tokens', '')}".strip())


def plain(cell: str | Cell) -> str:
    """Return a cell's text."""
    return cell if isinstance(cell, str) else cell.text


def _notes(rows: Sequence[MatrixFigure]) -> list[str]:
    return [
        f"{row.model} on {row.machine}, {row.unit}: {row.trust}: {'; '.join(row.reasons)}"
        for row in rows
        if row.reasons
    ]


def _medians(rows: Sequence[MatrixFigure]) -> str | Cell:
    """Return the medians of one place, coloured as the least trusted of them."""
    if not rows:
        return "-"
    known = [row.trust for row in rows if row.trust in _TRUST]
    return Cell(
        ", ".join(f"{figures.time(row.median_ns)} {row.trust}" for row in rows),
        max(known, key=_TRUST.index) if known else "",
    )
