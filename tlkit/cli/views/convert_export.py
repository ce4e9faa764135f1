"""``tlkit convert`` from a Core ML model to a PyTorch program or to ONNX: its endings, and what it says."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tlkit.errors import UsageError
from tlkit.words import byte_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.cli.sink.output import Sink
    from tlkit.core.convert.export import ExportResult

ENDINGS = (".pt2", ".onnx")
"""How the names of exported programs end; a test holds them to what :mod:`tlkit.core.convert.export` writes."""


def is_export(output: str) -> bool:
    """Whether ``output`` names an exported program."""
    return Path(output).suffix in ENDINGS


def refuse(output: str, **options: Any) -> None:
    """Raise UsageError if any of ``options`` is given: an exported program takes its ports from its model."""
    given = next((name for name, value in options.items() if value), None)
    if given:
        flag = f"--{given.replace('_', '-')}"
        raise UsageError(f"{flag} is for packages, not for {output}", "make the package so, then export it")


def export(
    sink: Sink,
    source: str,
    output: str,
    precision: str,
    functions: list[str] | None,
    *,
    verify: bool,
    seed: int,
    strict_mil: bool,
    force: bool,
) -> None:
    """Export, answer with what was made, and exit with 1 where it differs from the model."""
    from tlkit.core.convert.export import export as run

    named = functions or []
    if len(named) > 1 or any("=" in name for name in named):
        raise UsageError(f"--function {named[-1]}: {output} holds one function", "name one: --function NAME")
    function = named[0] if named else None
    with sink.progress(f"exporting {source}"):
        how: dict[str, Any] = {"precision": precision, "function": function, "strict_mil": strict_mil}
        result = run(source, output, **how, verify=verify, seed=seed, force=force)
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
