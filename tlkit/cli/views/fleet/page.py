"""A whole fleet as one HTML page: what failed, what was measured where, and every job. No network, no script."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tlkit import __version__
from tlkit.cli.sink import figures
from tlkit.cli.views.fleet.formats import FleetFigure, measured
from tlkit.cli.views.fleet.table import columns, counted, told
from tlkit.cli.views.judge.compare_page import framed, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from tlkit.fleet.job import FleetJob
    from tlkit.fleet.run import FleetResult

_SHOWN = 5000
"""Jobs that a page lists; a browser shows no more rows with ease. JSON and CSV have all."""
_CLASSES = {"done": "good", "failed": "poor", "aside": "poor", "no": "note", "left": "note"}
_TRUST = {"good": "good", "fair": "note", "poor": "poor"}


def page(title: str, result: FleetResult, journal: Path) -> str:
    """Return the page of a plan's jobs."""
    style = "poor" if result.exit_code else "good"
    seconds = sum(outcome.seconds for outcome in result.outcomes.values())
    facts = f"journal: {journal}; {seconds:.0f} s of jobs; tlkit {__version__}"
    wrong = [job for job in result.jobs if result.status(job) != "done"]
    parts = [
        f"<h1>{text_of(title)}: {len(result.jobs)} jobs, <span class={style}>{counted(result)}</span></h1>",
        f"<p class=note>{text_of(facts)}</p>",
        *_section("What did not end well", _jobs(result, wrong)),
        *_section("Measured", _matrix(list(measured(result)))),
        *_section("By command", _by_command(result)),
        *_section("All jobs", _jobs(result, result.jobs)),
    ]
    return framed(f"{title}: tlkit fleet", "".join(parts))


def _section(title: str, parts: Iterable[str]) -> Iterator[str]:
    made = "".join(parts)
    if made:
        yield f"<h2>{title}</h2>{made}"


def _jobs(result: FleetResult, jobs: Sequence[FleetJob]) -> Iterator[str]:
    """Yield a table of jobs: a row each, with its settings and what came of it."""
    if not jobs:
        return
    settings = columns(jobs)
    rows = []
    for job in jobs[:_SHOWN]:
        outcome, status = result.outcomes.get(job.key), result.status(job)
        seconds = f"{outcome.seconds:.2f}" if outcome else "-"
        said = result.error(job) or (told(job.verb, outcome.answer) if outcome else "")
        chosen = [text_of(job.settings.get(name, "-")) for name in settings]
        word = _marked(_CLASSES[status], status)
        rows.append([text_of(job.settings["model"]), job.verb, *chosen, word, seconds, text_of(said)])
    yield _table(["model", "job", *map(text_of, settings), "status", "seconds", "answer"], rows)
    if len(jobs) > _SHOWN:
        yield f"<p class=note>{len(jobs) - _SHOWN} more are not shown: --json has all</p>"


def _matrix(rows: Sequence[FleetFigure]) -> Iterator[str]:
    """Yield the table model x machine and unit, each cell a median and its trust, and why what is not good is not."""
    if not rows:
        return
    across = list(dict.fromkeys((row.machine, row.unit) for row in rows))
    found: dict[str, dict[tuple[str, str], list[FleetFigure]]] = {}
    for row in rows:
        found.setdefault(_model(row), {}).setdefault((row.machine, row.unit), []).append(row)
    cells = [
        [text_of(name), *(" ".join(map(_median, there.get(place, []))) or "-" for place in across)]
        for name, there in found.items()
    ]
    yield _table(["model", *(text_of(f"{machine}, {unit}") for machine, unit in across)], cells)
    for row in rows:
        if row.reasons:
            where = f"{_model(row)} on {row.machine}, {row.unit}: {row.trust}: {'; '.join(row.reasons)}"
            yield f"<p class=note>{text_of(where)}</p>"


def _model(row: FleetFigure) -> str:
    """Return the model of a row, with the settings that are not its unit."""
    more = [f"{name}={value}" for name, value in row.job.settings.items() if name not in ("model", "units")]
    return ", ".join([row.job.settings["model"], *more])


def _median(row: FleetFigure) -> str:
    return f"{figures.time(row.median_ns)} {_marked(_TRUST.get(row.trust, 'note'), row.trust)}"


def _by_command(result: FleetResult) -> Iterator[str]:
    """Yield a row per verb: how many ended how, and their seconds."""
    rows = []
    for verb in dict.fromkeys(job.verb for job in result.jobs):
        jobs = [job for job in result.jobs if job.verb == verb]
        took = sorted(outcome.seconds for job in jobs if (outcome := result.outcomes.get(job.key)))
        middle = f"{took[len(took) // 2]:.2f}" if took else "-"
        rows.append([verb, str(len(jobs)), counted(result, jobs), middle, f"{sum(took):.1f}"])
    yield _table(["job", "how many", "ended", "middle one, s", "in all, s"], rows)


def _marked(style: str, text: str) -> str:
    return f"<span class={style}>{text_of(text)}</span>"


def _table(heads: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already."""
    lines = "".join(f"<tr>{''.join(f'<td>{cell}' for cell in row)}" for row in rows)
    return f"<table><tr>{''.join(f'<th>{head}' for head in heads)}{lines}</table>"
