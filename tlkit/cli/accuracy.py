"""``tlkit run --labels``: a classifier's accuracy, printed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import typer

from tlkit.cli.sink import output
from tlkit.errors import UsageError

_ONE = ("shapes", "until", "dump", "ops", "save_outputs", "check_nan")
_FLAGS = {"shapes": "--shape", "ports": "--port", "images": "--image"}
_TAKEN = (
    *("precision", "engine", "unit", "function", "strict_mil", "stage", "cache", "emulate", "chip"),
    *("classes", "calibration", "min_top1"),
)
_LABELS = ("classes", "calibration", "min_top1", "ports", "images")


def refuse(given: dict[str, Any]) -> None:
    """UsageError for options of ``tlkit run`` that do not go with the others: ``given`` are those not at their
    defaults."""
    wanted = "labels" in given
    for name in _ONE if wanted else _LABELS:
        if name in given:
            flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
            if wanted:
                raise UsageError(
                    f"{flag} looks into one inference, and --labels is about many", "leave one of them out"
                )
            raise UsageError(f"{flag} goes with --labels", "name the labelled samples: --labels FOLDER")


def run_labels(sink: output.Sink, model: str, labels: str, values: Mapping[str, Any], top: int) -> None:
    """Judge ``model`` on the samples of ``labels``, and print it; exit 1 where it is right too rarely.

    ``values`` are the options of ``tlkit run``, of which those that have a meaning here are taken.
    """
    from tlkit.cli.views.judge.accuracy import document, show
    from tlkit.core.accuracy.accuracy import accuracy
    from tlkit.core.model.custom import customs

    notes: list[str] = []
    lists = {name: values[name] or () for name in ("inputs", "ports", "images")}
    settings = {name: values[name] for name in _TAKEN} | lists | {"custom": customs(values["custom"] or ())}
    with sink.progress(f"running {model}") as bar:
        result = accuracy(model, labels, **settings, note=notes.append, progress=bar.update)
    for note in notes:
        sink.note(note)
    rate = result.samples / result.seconds if result.seconds else 0.0
    sink.note(f"{result.samples} samples in {result.seconds:.2f} s, {rate:.1f} a second")
    sink.answer(document(result), partial(show, result, top))
    if not result.ok:
        raise typer.Exit(1)
