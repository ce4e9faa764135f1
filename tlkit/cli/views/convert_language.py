"""What ``tlkit convert`` says of a language model's package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from tlkit.cli.sink.output import Sink
from tlkit.words import byte_text

if TYPE_CHECKING:
    from tlkit.core.language.package import LanguagePackage


def answer(sink: Sink, result: LanguagePackage) -> None:
    """Print what was made; exit 1 where the package says something else than its source."""
    counts = result.tensors
    lines = [f"{result.path}: {byte_text(result.size)}, a context of {result.context} tokens, {result.precision}"]
    lines.append("functions: main (1 token)" + (f", prefill ({result.prefill})" if result.prefill > 1 else ""))
    kinds = [f"{counts['blocks']} in the file's blocks", f"{counts['nested']} in nested blocks"]
    lines.append(f"weights: {', '.join(kinds)}, {counts['dense']} dense")
    if result.compared:
        said = f"greedy tokens: {result.same} of {result.compared} as the source says"
        lines.append(said + ("" if result.gap is None else f"; where not, its lead is at most {result.gap:.3f} logits"))
    lines += [f"note: {note}" for note in result.notes]
    sink.answer({"package": result, "ok": result.ok}, "\n".join(lines))
    if not result.ok:
        raise typer.Exit(1)
