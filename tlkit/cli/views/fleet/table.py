"""What ``tlkit fleet`` shows: the jobs of a plan before, and how each ended after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.words import byte_text, number_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.fleet.job import FleetJob
    from tlkit.fleet.run import FleetResult

_STYLES = {"done": "green", "no": "yellow", "failed": "red", "aside": "red", "left": "dim"}
SHOWN = 200
"""Rows of the table on a screen; JSON has all."""


def planned_document(jobs: Sequence[FleetJob]) -> dict[str, Any]:
    """Return the jobs of a plan, with what each needs."""
    return {
        "jobs": [
            {
                "job": job.key,
                "command": ["tlkit", job.verb, *job.words],
                "folder": job.folder,
                "settings": job.settings,
                "needs": job.needs,
                "timeout": job.timeout,
            }
            for job in jobs
        ]
    }


def planned(jobs: Sequence[FleetJob]) -> RenderableType:
    """Return the table of ``--dry-run``: a line per job, and what it needs."""
    table = _table(jobs, ["needs"])
    for job in jobs[:SHOWN]:
        needs = [job.needs.unit, byte_text(job.needs.memory) if job.needs.memory else "", "alone" * job.needs.alone]
        needs += [f"at most {job.timeout:g} s"] if job.timeout else []
        table.add_row(job.settings["model"], job.verb, *_settings(jobs, job), ", ".join(filter(None, needs)) or "-")
    return _group(table, [number_of(len(jobs), "job"), *more(jobs)])


def document(result: FleetResult, journal: Path) -> dict[str, Any]:
    """Return how each job ended, with its own document."""
    tally = result.tally
    counts = [result.status(job) for job in result.jobs]
    return {
        "journal": journal,
        "counts": {status: counts.count(status) for status in _STYLES},
        "from_before": tally.before,
        "jobs": [
            {
                "job": job.key,
                "verb": job.verb,
                "settings": job.settings,
                "status": result.status(job),
                "error": result.error(job),
                "exit_code": outcome.code if (outcome := result.outcomes.get(job.key)) else None,
                "seconds": outcome.seconds if outcome else None,
                "answer": outcome.answer if outcome else None,
            }
            for job in result.jobs
        ],
    }


def table(result: FleetResult, journal: Path) -> RenderableType:
    """Return the table of how each job ended, those that failed last, so that they are seen."""
    from rich.text import Text

    order = ("done", "left", "no", "failed", "aside")
    jobs = sorted(result.jobs, key=lambda job: order.index(result.status(job)))
    shown = _table(jobs, ["", "seconds", "answer"])
    shown.columns[-2].justify = "right"
    for job in jobs[-SHOWN:]:
        outcome, status = result.outcomes.get(job.key), result.status(job)
        seconds = f"{outcome.seconds:.2f}" if outcome else "-"
        said = result.error(job) or (told(job.verb, outcome.answer) if outcome else "")
        shown.add_row(
            job.settings["model"], job.verb, *_settings(jobs, job), Text(status, _STYLES[status]), seconds, said
        )
    before = f" ({result.tally.before} of them before)" if result.tally.before else ""
    return _group(shown, [f"{number_of(len(jobs), 'job')}: {counted(result)}{before}; journal: {journal}", *more(jobs)])


def counted(result: FleetResult, jobs: Sequence[FleetJob] | None = None) -> str:
    """Return how many jobs ended how: ``6 done, 3 failed``."""
    counts = [result.status(job) for job in (result.jobs if jobs is None else jobs)]
    return ", ".join(f"{counts.count(status)} {status}" for status in _STYLES if status in counts)


def told(verb: str, answer: Any) -> str:
    """Return the figure of a job's document that a table shows: a median, a format, an output, the worst SNR."""
    from tlkit.cli.sink import figures
    from tlkit.cli.views.bench.matrix import unit_of

    if not isinstance(answer, dict):
        return ""
    if verb == "bench":
        rows = [row for row in answer.get("rows") or () if row.get("summary")]
        return ", ".join(f"{unit_of(row)} {figures.time(row['summary']['median_ns'])}" for row in rows)
    if verb == "inspect":
        metadata = answer.get("metadata") or answer
        return " ".join(str(metadata[key]) for key in ("format", "quantization") if metadata.get(key))
    if verb == "run":
        return ", ".join(map(_output, answer.get("outputs") or ()))
    sizes = (answer.get("size"), answer.get("after"))
    shown = [_strays(answer), *(byte_text(size) for size in sizes if isinstance(size, int))]
    return ", ".join(filter(None, shown))


def _output(item: dict[str, Any]) -> str:
    """Return one output of an inference: its label, or its shape and mean."""
    if item.get("label") is not None:
        return f"{item['name']} {item['label']}"
    dims, mean = "x".join(map(str, item.get("shape") or ())), item.get("mean")
    return " ".join(filter(None, (item["name"], dims, f"mean {mean:.4g}" if isinstance(mean, float) else "")))


def _strays(answer: dict[str, Any]) -> str:
    """Return how far a comparison's output that strays the most is from what it should be; empty where none was."""
    check: dict[str, Any] = answer.get("verification") or answer.get("check") or answer
    outputs = check.get("outputs") or ()
    items = [item for item in (outputs.values() if isinstance(outputs, dict) else outputs) if isinstance(item, dict)]
    found = [item.get("difference") or item for item in items]
    ratios = [item["snr_db"] for item in found if isinstance(item.get("snr_db"), int | float)]
    return f"SNR {min(ratios):.1f} dB" if ratios else ""


def _table(jobs: Sequence[FleetJob], more: Sequence[str]) -> Any:
    from tlkit.cli.sink.named_table import NamedTable

    made = NamedTable()
    for title in ("model", "job", *columns(jobs), *more):
        made.add_column(title, overflow="fold")
    return made


def columns(jobs: Sequence[FleetJob]) -> list[str]:
    """Return the names of the settings that the jobs have, besides the model."""
    return list(dict.fromkeys(key for job in jobs for key in job.settings if key != "model"))


def _settings(jobs: Sequence[FleetJob], job: FleetJob) -> list[str]:
    return [job.settings.get(key, "-") for key in columns(jobs)]


def more(jobs: Sequence[FleetJob]) -> list[str]:
    """Return a sentence where there are more jobs than a table shows."""
    return [f"{len(jobs) - SHOWN} more are not shown: --json has all"] if len(jobs) > SHOWN else []


def _group(table: Any, lines: Sequence[str]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    return Group(table, *map(Text, lines))
