"""A whole fleet as one HTML page: what failed, what was measured where, and every job. No network, no script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tlkit import __version__
from tlkit.cli.sink.template import Cell, Table, render
from tlkit.cli.views.bench.matrix import matrix
from tlkit.cli.views.fleet.formats import measured
from tlkit.cli.views.fleet.table import columns, counted, told
from tlkit.words import number_of

if TYPE_CHECKING:
    from pathlib import Path

    from tlkit.fleet.job import FleetJob
    from tlkit.fleet.run import FleetResult

_SHOWN = 5000
"""Jobs that a page lists; a browser shows no more rows with ease. JSON and CSV have all."""
_KINDS = {"done": "good", "failed": "poor", "aside": "poor", "no": "why", "left": "why"}


class _Section(NamedTuple):
    """A heading, a table and what there is to say of it."""

    title: str
    table: Table
    notes: Sequence[str] = ()


def page(title: str, result: FleetResult, journal: Path) -> str:
    """Return the page of a plan's jobs."""
    seconds = sum(outcome.seconds for outcome in result.outcomes.values())
    wrong = [job for job in result.jobs if result.status(job) != "done"]
    sections = [
        _jobs("What did not end well", result, wrong),
        _matrix(result),
        _by_command(result),
        _jobs("All jobs", result, result.jobs),
    ]
    return render(
        "fleet.html",
        title=f"{title}: tlkit fleet",
        head=f"{title}: {number_of(len(result.jobs), 'job')},",
        counted=counted(result),
        kind="poor" if result.exit_code else "good",
        facts=f"journal: {journal}; {seconds:.0f} s of jobs; tlkit {__version__}",
        sections=[section for section in sections if section.table.rows],
    )


def _jobs(title: str, result: FleetResult, jobs: Sequence[FleetJob]) -> _Section:
    """Return a table of jobs: a row each, with its settings and what came of it."""
    settings = columns(jobs) if jobs else []
    rows: list[list[str | Cell]] = []
    for job in jobs[:_SHOWN]:
        outcome, status = result.outcomes.get(job.key), result.status(job)
        seconds = f"{outcome.seconds:.2f}" if outcome else "-"
        said = result.error(job) or (told(job.verb, outcome.answer) if outcome else "")
        chosen = [Cell(str(job.settings.get(name, "-")), "text") for name in settings]
        words = Cell(job.verb, "text"), *chosen, Cell(status, f"text {_KINDS[status]}")
        rows.append([str(job.settings["model"]), *words, seconds, Cell(said, "why")])
    more = len(jobs) - _SHOWN
    notes = [f"{more} more are not shown: --json has all"] if more > 0 else []
    return _Section(title, Table(["model", "job", *settings, "status", "seconds", "answer"], rows), notes)


def _matrix(result: FleetResult) -> _Section:
    """Return the table model x machine and unit, and why what is not trusted is not."""
    return _Section("Measured", *matrix([figure for _, figure in measured(result)]))


def _by_command(result: FleetResult) -> _Section:
    """Return a row per verb: how many ended how, and their seconds."""
    rows: list[list[str | Cell]] = []
    for verb in dict.fromkeys(job.verb for job in result.jobs):
        jobs = [job for job in result.jobs if job.verb == verb]
        took = sorted(outcome.seconds for job in jobs if (outcome := result.outcomes.get(job.key)))
        middle = f"{took[len(took) // 2]:.2f}" if took else "-"
        rows.append([verb, str(len(jobs)), Cell(counted(result, jobs), "text"), middle, f"{sum(took):.1f}"])
    return _Section("By command", Table(["job", "how many", "ended", "middle one, s", "in all, s"], rows))
