"""``tlkit convert`` from a Core ML model to a PyTorch program or ONNX: file endings and report."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import typer

from tlkit.words import byte_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.cli.sink.output import Sink
    from tlkit.core.convert.export import ExportResult


def answer(sink: Sink, result: ExportResult) -> None:
    """Report what was made; exit with 1 where it differs from the model."""
    for note in result.notes:
        sink.note(note)
    sink.answer(_document(result), lambda: _show(result))
    if not result.ok:
        raise typer.Exit(1)


def _document(result: ExportResult) -> dict[str, Any]:
    return {field.name: getattr(result, field.name) for field in fields(result)} | {"ok": result.ok}


def _show(result: ExportResult) -> RenderableType:
    from tlkit.cli.sink.card import card

    rounding = "rounded to f16 where the model says f16" if result.precision == "f16" else "without f16's rounding"
    operations = ", ".join(f"{name.removeprefix('aten.')} {count}" for name, count in result.operations.items())
    return card(
        (
            ("file", str(result.path), "bold"),
            ("source", result.source, ""),
            ("made", f"{result.format}, f32 arithmetic {rounding}", ""),
            ("size", byte_text(result.size), ""),
            ("ops", f"{sum(result.operations.values())}: {operations}", ""),
            *_verdict(result),
        )
    )


def _verdict(result: ExportResult) -> list[tuple[str, str, str]]:
    found = result.verification
    if found is None:
        return [("verified", "no (--no-verify)", "dim")]
    reasons = [("", reason, "red") for reason in found.reasons]
    if found.passed is None:
        return [("verified", "could not be run here; the file is written", "yellow"), *reasons]
    if not found.passed:
        return [("verified", "DIFFERS from the model; the file is written", "bold red"), *reasons]
    rows = [("", f"{name}: max abs {d.max_abs:.2e}, cosine {d.cosine:.6f}", "") for name, d in found.outputs.items()]
    return [("verified", "gives what the model gives on a seeded input", "green"), *rows]
