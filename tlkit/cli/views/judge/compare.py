"""What a comparison looks like: a row an output, the verdict, and where the two part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.core.compare.figures import OutputFigures
    from tlkit.core.judge.compare import Judgement


def document(result: Judgement, notes: list[str]) -> dict[str, Any]:
    """Return the comparison as JSON's document: what the text shows, unrounded."""
    found = result.verification
    return {
        "a": result.a,
        "b": result.b,
        "told": result.told,
        "ok": result.ok,
        "passed": found.passed,
        "reasons": found.reasons,
        "limits": result.limits,
        "outputs": result.outputs,
        "inputs": found.cases,
        "worst": result.worst,
        "notes": (*notes, *result.notes),
        "bisection": result.bisection,
    }


def show(result: Judgement) -> RenderableType:
    """Return the comparison as text."""
    from rich.console import Group

    from tlkit.cli.sink.card import card

    found = result.verification
    rows = [("a", f"{result.a} ({result.told[0]})", "bold"), ("b", f"{result.b} ({result.told[1]})", "bold")]
    inputs = f"{len(found.cases)}: {', '.join(found.cases[:3])}{', ...' if len(found.cases) > 3 else ''}"
    rows += [("inputs", inputs, ""), ("limits", result.limits, "")]
    if found.passed is None:
        verdict = ("could not be judged", "yellow")
    else:
        verdict = ("they agree", "green") if found.passed else ("they DIFFER", "bold red")
    rows.append(("verdict", *verdict))
    rows += [("", text, "red" if found.passed is False else "") for text in found.reasons[:8]]
    if len(found.reasons) > 8:
        rows.append(("", f"and {len(found.reasons) - 8} more", "dim"))
    rows += [("worst", result.worst, "")] if len(found.cases) > 1 else []
    rows += [("note", text, "dim") for text in result.notes]
    parts = [card(rows), _table(result.outputs)]
    if result.bisection is not None:
        from tlkit.cli.views.judge.bisect import bisection_card

        parts.append(bisection_card(result.bisection))
    return Group(*parts)


def figure_columns(item: OutputFigures) -> list[tuple[str, str]]:
    """Return an output's figures as (heading, text), those that do not apply left out."""
    found = item.difference
    cells = [("max abs", f"{found.max_abs:.3g}"), ("relative", f"{found.relative:.3g}")]
    cells += [("cosine", f"{found.cosine:.6f}"), ("SNR dB", f"{found.snr_db:.1f}")]
    if found.not_finite >= found.elements > 0:  # nothing is left that the figures could be of
        cells = [(name, "-") for name, _ in cells]
    shares = (("top-1", item.top1), ("top-5", item.top5), ("IoU", item.iou))
    cells += [
        (name, f"{share:.2%}" if name != "IoU" else f"{share:.4f}") for name, share in shares if share is not None
    ]
    if item.kl is not None:
        cells.append(("KL nats", f"{item.kl:.3g}"))
    if found.not_finite:
        cells.append(("not finite", str(found.not_finite)))
    return cells


def _table(outputs: tuple[OutputFigures, ...]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = {item.name: dict(figure_columns(item)) for item in outputs}
    heads = list(dict.fromkeys(head for row in cells.values() for head in row))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("output", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for name, row in cells.items():
        table.add_row(Text(name), *(row.get(head, "-") for head in heads))
    return table
