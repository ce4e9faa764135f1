"""How a fleet ended, for other programs: a record per job, and per measured row of a bench job."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tlkit.cli.sink.formats import JUnitCase, csv_text, junit_text, markdown, markdown_table
from tlkit.cli.sink.stream import escaped
from tlkit.cli.views.bench.matrix import MatrixFigure, unit_of
from tlkit.words import jsonable, number_of

if TYPE_CHECKING:
    from tlkit.fleet.job import FleetJob
    from tlkit.fleet.run import FleetResult

COLUMNS = ("job", "verb", "model", "status", "exit_code", "seconds", "error")
MEASURED = ("machine", "row", "unit", "median_ns", "trust")
_CASES = {"no": "failure", "failed": "failure", "aside": "error", "left": "skipped"}


def measured(result: FleetResult, jobs: Sequence[FleetJob] | None = None) -> Iterator[tuple[str, MatrixFigure]]:
    """Yield the rows that bench jobs measured, each after its name, in the plan's order.

    The model of a figure has the job's settings behind it. What a document lacks is left out.
    """
    for job in result.jobs if jobs is None else jobs:
        outcome = result.outcomes.get(job.key)
        if job.verb != "bench" or outcome is None or not isinstance(outcome.answer, dict):
            continue
        more = [f"{name}={value}" for name, value in job.settings.items() if name not in ("model", "units")]
        model, machine = ", ".join([job.settings["model"], *more]), outcome.answer.get("machine") or {}
        for row in outcome.answer.get("rows") or ():
            if summary := row.get("summary"):
                trust = row.get("trust") or {}
                level, reasons = str(trust.get("level", "-")), tuple(map(str, trust.get("reasons") or ()))
                place = str(machine.get("cpu", "")), unit_of(row)
                figure = MatrixFigure(model, *place, summary["median_ns"], level, reasons)
                yield row.get("label") or unit_of(row), figure


def records(result: FleetResult) -> Iterator[dict[str, Any]]:
    """Yield one flat record per job; of a bench job, one per row that it measured. Settings are ``settings.NAME``."""
    for job in result.jobs:
        outcome = result.outcomes.get(job.key)
        settings = {name: value for name, value in job.settings.items() if name != "model"}
        record = {
            "job": job.key,
            "verb": job.verb,
            "model": job.settings.get("model", ""),
            **{f"settings.{name}": value for name, value in settings.items()},
            "status": result.status(job),
            "exit_code": outcome.code if outcome else None,
            "seconds": outcome.seconds if outcome else None,
            "error": result.error(job),
        }
        rows = [figure._asdict() | {"row": name} for name, figure in measured(result, [job])]
        yield from [record | {name: row[name] for name in MEASURED} for row in rows] or [record]


def csv(result: FleetResult) -> str:
    """Return a line per record, times in seconds or, with ``_ns``, nanoseconds; empty where there is no figure."""
    found = list(records(result))
    names = dict.fromkeys(name for record in found for name in record)
    settings = [name for name in names if name not in (*COLUMNS, *MEASURED)]
    return csv_text([*COLUMNS[:3], *settings, *COLUMNS[3:], *(name for name in MEASURED if name in names)], found)


def jsonl(result: FleetResult) -> str:
    """Return the same records as JSON, one a line."""
    return "".join(f"{escaped(json.dumps(jsonable(record), allow_nan=False))}\n" for record in records(result))


def md(result: FleetResult) -> str:
    """Return a Markdown table for a pull request's comment: a row per job, those that failed first, and the counts."""
    from tlkit.cli.views.fleet.table import SHOWN, columns, counted, more, told

    order = ("aside", "failed", "no", "left", "done")
    jobs = sorted(result.jobs, key=lambda job: order.index(result.status(job)))
    settings = columns(jobs)
    rows = []
    for job in jobs[:SHOWN]:
        outcome = result.outcomes.get(job.key)
        seconds = f"{outcome.seconds:.2f}" if outcome else "-"
        answer = result.error(job) or (told(job.verb, outcome.answer) if outcome else "")
        chosen = [job.settings.get(name, "-") for name in settings]
        rows.append([job.settings["model"], job.verb, *chosen, result.status(job), seconds, answer])
    lines = markdown_table(["model", "job", *settings, "status", "seconds", "answer"], rows)
    said = [f"{number_of(len(jobs), 'job')}: {counted(result)}", *more(jobs)]
    return "\n".join([*lines, "", *map(markdown, said)]) + "\n"


def junit(result: FleetResult) -> str:
    """Return JUnit XML: a test case per job, and its message where it failed, was set aside or was not run."""
    cases = []
    for job in result.jobs:
        outcome, status = result.outcomes.get(job.key), result.status(job)
        settings = [f"{name}={value}" for name, value in job.settings.items() if name != "model"]
        name = ", ".join([job.settings.get("model", job.key), *settings])
        seconds = f"{outcome.seconds:.4f}" if outcome else "0"
        what = _CASES.get(status, "")
        cases.append(JUnitCase(f"tlkit.{job.verb}", name, seconds, what, result.error(job) if what else ""))
    return junit_text("tlkit fleet", cases, time=f"{sum(item.seconds for item in result.outcomes.values()):.4f}")
