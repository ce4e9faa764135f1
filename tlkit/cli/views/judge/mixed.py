"""What a package that is partly in f32 looks like: which operations are, why, and what that keeps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.core.precision.mixed import MixedPrecision

_SHOWN = 30


def document(result: MixedPrecision) -> dict[str, Any]:
    """Return the result as JSON's document."""
    from dataclasses import fields

    return {field.name: getattr(result, field.name) for field in fields(result)} | {"ok": result.ok}


def show(result: MixedPrecision) -> RenderableType:
    """Return the result as text."""
    from tlkit.cli.sink.card import card

    made = ("model", str(result.path), "bold") if result.path else ("model", "nothing is written", "bold red")
    rows = [made, ("source", result.source, "")]
    rows += [("kept in f32", f"{len(result.kept)} of {result.operations} operations", "bold")]
    rows += [("", f"{item.name} ({item.type}): {item.why}", "") for item in result.kept[:_SHOWN]]
    if len(result.kept) > _SHOWN:
        rows.append(("", f"and {len(result.kept) - _SHOWN} more", ""))
    rows.append(("all in f16", f"{_db(result.half_db)} (emulated)", ""))
    for label, figure, cases in (
        ("searched on", result.seen_db, result.seen),
        ("checked on", result.unseen_db, result.unseen),
    ):
        if figure is not None:
            under = result.target_db is not None and figure < result.target_db
            verdict = f", UNDER the {result.target_db:g} dB asked for" if under else ""
            count = f"{len(cases)} input{'s' if len(cases) > 1 else ''}"
            rows.append((label, f"{count}: {_db(figure)}{verdict}", "bold red" if verdict else "green"))
    rows.append(("asked for", result.asked, ""))
    rows += [("missed", text, "bold red") for text in result.missed]
    if result.seen_db is None:
        rows.append(("verified", "no (--no-verify)", "dim"))
    rows += [("note", note, "") for note in result.notes]
    return card([*rows, ("search", f"{result.runs} runs", "dim")])


def _db(figure: float) -> str:
    if figure == -math.inf:
        return "not finite where f32 is"
    return "the same numbers as f32" if figure == math.inf else f"signal to noise {figure:.1f} dB"
