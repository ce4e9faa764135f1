"""What ``--compress auto`` found: the package, the frontier of size against error, and what each weight became."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tlkit.words import byte_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.core.compress.wish import AutoCompressed, FrontierPoint


def document(result: AutoCompressed) -> dict[str, Any]:
    """Return the result as JSON's document."""
    from dataclasses import fields

    return {field.name: getattr(result, field.name) for field in fields(result)} | {"ok": result.ok}


def show(result: AutoCompressed) -> RenderableType:
    """Return the result as text."""
    from rich.console import Group

    from tlkit.cli.sink.card import card

    made, best = result.compressed, result.best
    rows = [
        ("model", str(made.path), "bold") if made else ("model", "nothing is written (--force writes the best)", "red")
    ]
    share = best.nbytes / result.before if result.before else 1.0
    rows += [("source", result.source, ""), ("target", result.target, "")]
    rows += [("size", f"{byte_text(result.before)} → {byte_text(best.nbytes)}, {share:.1%}", "bold")]
    share_of = "accuracy" if "accuracy" in result.target else "agreement"
    top1 = f", top-1 {share_of} {best.top1:.2%}" if best.top1 is not None else ""
    verdict = "kept" if result.met else "MISSED: the best found has"
    rows += [(verdict, f"{_db(best.unseen_db)}{top1} on {len(result.unseen)} inputs that the search did not see",
              "green" if result.met else "bold red")]  # fmt: skip
    rows += [("weights", note, "") for note in result.notes]
    rows += [
        (
            "search",
            f"{result.runs} runs on {len(result.seen)} + {len(result.unseen)} inputs, {result.seconds:.1f} s",
            "dim",
        )
    ]
    return Group(card(rows), _frontier(result))


def _frontier(result: AutoCompressed) -> RenderableType:
    from rich.text import Text

    from tlkit.cli.sink.named_table import NamedTable

    table = NamedTable()
    table.add_column("candidate", no_wrap=True)
    for heading in ("size", "predicted dB", "searched on dB", "checked on dB", "top-1"):
        table.add_column(heading, justify="right", no_wrap=True)
    for point in result.frontier:
        figures = (f"{value:.1f}" for value in (point.predicted_db, point.seen_db, point.unseen_db))
        top1 = "-" if point.top1 is None else f"{point.top1:.2%}"
        table.add_row(Text(_name(point), "bold" if point.chosen else ""), byte_text(point.nbytes), *figures, top1)
    return table


def _name(point: FrontierPoint) -> str:
    return f"{'→ ' if point.chosen else ''}{f'all {point.uniform}' if point.uniform else 'mixed'}"


def _db(figure: float) -> str:
    return (
        f"signal to noise {figure:.1f} dB"
        if math.isfinite(figure)
        else "the same numbers"
        if figure > 0
        else "not finite"
    )


def page_text(result: AutoCompressed) -> str:
    """Return the page of ``--report``: the frontier drawn, and tables of it and of the sensitivities."""
    from tlkit.cli.sink.template import Table, chart, render
    from tlkit.cli.views import svg

    drawn = [point for point in result.frontier if math.isfinite(point.unseen_db)]
    marked = next((index for index, point in enumerate(drawn) if point.chosen), -1)
    points = [(point.nbytes / 1e6, point.unseen_db, point.uniform) for point in drawn]
    axes = ("size in MB", "signal to noise in dB, inputs not searched on")
    candidates = [
        [_name(point), byte_text(point.nbytes), *map("{:.1f}".format, (point.predicted_db, point.seen_db)),
         f"{point.unseen_db:.1f}", "-" if point.top1 is None else f"{point.top1:.2%}"]
        for point in result.frontier
    ]  # fmt: skip
    weights = [
        [row.weight, row.choice, str(row.nbytes), f"{row.snr_db:.1f}",
         "yes" if result.choices.get(row.weight) == row.choice else ""]
        for row in result.sensitivity
    ]  # fmt: skip
    return render(
        "compressed.html",
        title=f"{result.source}, compressed: tlkit",
        source=result.source,
        target=result.target,
        verdict="met" if result.met else "missed",
        kind="good" if result.met else "poor",
        remarks=result.notes,
        frontier=chart(svg.curve(points, axes, marked)) if points else None,
        candidates=Table(["candidate", "size", "predicted dB", "searched on dB", "checked on dB", "top-1"], candidates),
        sensitivity=Table(["weight", "stored as", "bytes", "by itself, dB", "taken"], weights),
    )
