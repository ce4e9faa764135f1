"""``tlkit inspect`` of every model in a folder with options that look into models, side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tlkit.cli.many.words import words_of
from tlkit.cli.sink import output
from tlkit.errors import LoadError, UsageError

if TYPE_CHECKING:
    from tlkit.fleet.job import FleetJob, JobOutcome

_FORWARDED = (
    *("ops", "depth", "mil", "weights", "tensors", "stats", "hashes", "tree", "risks", "inputs", "seed"),
    *("placement", "units", "chip", "measured", "per_op", "format", "function", "stage", "offline"),
)
_ONE = ("html", "graph", "diff")
_SIDE_BY_SIDE = ("jobs", "cluster")


def inspects_many(path: Path, given: Mapping[str, Any]) -> bool:
    """Whether ``path`` is a folder of models of which more than a list is asked for.

    ``given`` are the options of ``tlkit inspect`` that are not at their defaults. UsageError where they ask one model
    for what is one file, or many where there is one.
    """
    from tlkit.core.inspect.folder import is_collection

    side_by_side = [name for name in _SIDE_BY_SIDE if name in given]
    if not given.keys() & {*_FORWARDED, *_ONE, *_SIDE_BY_SIDE}:
        return False
    if not path.is_dir() or not is_collection(path):
        if side_by_side:
            raise UsageError(f"--{side_by_side[0]} goes with a folder of models", "name one, or leave it out")
        return False
    if one := next((name for name in _ONE if name in given), None):
        raise UsageError(f"--{one} is about one model, and {path} is a folder of them", "name one of them")
    return True


def inspect_many(sink: output.Sink, path: Path, given: Mapping[str, Any]) -> None:
    """Inspect each model under ``path``, and tell each as soon as it is known; then exit as the jobs ended.

    With ``--json`` a line of JSON per model: its path, how it ended, and the document that ``tlkit inspect`` gives.
    """
    from tlkit.cli.many.side_by_side import executor_for, run_side_by_side
    from tlkit.core.inspect.folder import model_paths
    from tlkit.fleet.job import FleetJob

    words = [*words_of(given, _FORWARDED), *(["--json"] if sink.json else []), "--quiet"]
    here, models = os.getcwd(), [str(found) for found in model_paths(path)]
    if not models:
        raise LoadError(f"{path}: no model in it", "name a model, or a folder of models")
    jobs = [FleetJob(name, "inspect", (name, *words), here, {"model": name}) for name in models]

    def over(job: FleetJob, outcome: JobOutcome) -> None:
        told = {"path": job.key, "status": outcome.status, "error": outcome.error, "inspection": outcome.answer}
        text = outcome.answer if isinstance(outcome.answer, str) else json.dumps(outcome.answer)
        sink.row(told, f"{job.key}\n{outcome.error or text}\n")

    executor = executor_for(given.get("jobs", 0), given.get("cluster"))
    try:
        result = run_side_by_side(sink, jobs, executor, over)
    finally:
        executor.close()
    for job in jobs:
        if job.key in result.aside:
            sink.row(
                {"path": job.key, "status": "aside", "error": result.error(job)}, f"{job.key}\n{result.error(job)}\n"
            )
    raise typer.Exit(result.exit_code)
