"""What a classifier's accuracy looks like: the shares, the classes, which are taken for which, the worst samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.core.accuracy.accuracy import Accuracy, Mistake
    from tlkit.core.accuracy.figures import CalibrationFigures

_MATRIX = 12
"""Up to so many classes the confusion matrix is shown whole; of more, the pairs that are confused most."""
_ROWS = 20


def document(result: Accuracy) -> dict[str, Any]:
    """Return the result as JSON's document."""
    from dataclasses import fields

    return {field.name: getattr(result, field.name) for field in fields(result)} | {"ok": result.ok}


def show(result: Accuracy, top: int) -> RenderableType:
    """Return the result as text, with the ``top`` worst samples."""
    from rich.console import Group

    from tlkit.cli.sink.card import card

    low, high = result.interval
    rows = [
        ("model", f"{result.model} ({result.ran})", "bold"),
        ("samples", f"{result.samples} of {result.labels}", ""),
    ]
    told = f"{result.top1:.2%} ({result.right} of {result.samples}; 95 % interval {low:.2%} to {high:.2%})"
    rows.append(("top-1", told, "bold green" if result.ok else "bold red"))
    if not result.ok:
        rows.append(("", f"under the {result.min_top1:.2%} asked for", "red"))
    rows += [("top-5", f"{result.top5:.2%}", "")] if result.top5 is not None else []
    rows += _calibration(result.calibration) if result.calibration is not None else []
    rows += [("note", text, "dim") for text in result.notes]
    parts: list[RenderableType] = [card(rows), _classes(result)]
    wrong = [item for item in result.confusions if item.label != item.answer]
    if wrong:
        parts.append(_matrix(result) if len(result.by_class) <= _MATRIX else _pairs(result))
    parts += [_worst(result.worst[:top])] if result.worst[:top] else []
    return Group(*parts)


def _calibration(found: CalibrationFigures) -> list[tuple[str, str, str]]:
    of = " (of the softmax of its scores)" if found.softmax else ""
    told = f"ECE {found.ece:.4f}, largest error {found.mce:.4f}, {len(found.bins)} bins{of}"
    return [("calibration", told, ""), ("", f"log loss {found.nll:.4f} nats, Brier {found.brier:.4f}", "")]


def _classes(result: Accuracy) -> RenderableType:
    from rich.text import Text

    from tlkit.cli.sink.named_table import NamedTable

    table = NamedTable()
    table.add_column("class", no_wrap=True)
    for heading in ("samples", "recall", "precision", "F1"):
        table.add_column(heading, justify="right", no_wrap=True)
    ranked = result.by_class
    if len(ranked) > _ROWS:  # the worst of many
        ranked = tuple(sorted(ranked, key=lambda item: (item.recall is None, item.recall or 0.0, item.label)))[:_ROWS]
    for item in ranked:
        shares = (_share(value) for value in (item.recall, item.precision, item.f1))
        table.add_row(Text(item.label), str(item.samples), *shares)
    if len(result.by_class) > _ROWS:
        table.caption = f"the {_ROWS} of {len(result.by_class)} classes that are found most rarely"
    return table


def _matrix(result: Accuracy) -> RenderableType:
    from rich.text import Text

    from tlkit.cli.sink.named_table import NamedTable

    names = [item.label for item in result.by_class]
    counts = {(item.label, item.answer): item.samples for item in result.confusions}
    table = NamedTable()
    table.add_column("is / said to be", no_wrap=True)
    for name in names:
        table.add_column(Text(name), justify="right", no_wrap=True)
    for row in names:
        cells = [(counts.get((row, column), 0), "" if row == column else "bold red") for column in names]
        table.add_row(
            Text(row), *(Text(str(count) if count else "·", style if count else "dim") for count, style in cells)
        )
    return table


def _pairs(result: Accuracy) -> RenderableType:
    from rich.text import Text

    from tlkit.cli.sink.named_table import NamedTable

    table = NamedTable()
    for heading in ("is", "said to be"):
        table.add_column(heading, no_wrap=True)
    table.add_column("samples", justify="right", no_wrap=True)
    wrong = sorted((item for item in result.confusions if item.label != item.answer), key=lambda item: -item.samples)
    for item in wrong[:_ROWS]:
        table.add_row(Text(item.label), Text(item.answer), str(item.samples))
    return table


def _worst(mistakes: tuple[Mistake, ...]) -> RenderableType:
    from rich.text import Text

    from tlkit.cli.sink.named_table import NamedTable

    table = NamedTable()
    table.add_column("worst samples", overflow="fold")
    for heading in ("is", "said to be"):
        table.add_column(heading, no_wrap=True)
    for heading in ("score", "its own"):
        table.add_column(heading, justify="right", no_wrap=True)
    for item in mistakes:
        scores = ("-" if value is None else f"{value:.4f}" for value in (item.score, item.label_score))
        table.add_row(Text(item.sample), Text(item.label), Text(item.answer), *scores)
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
