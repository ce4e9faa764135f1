"""What a compression looks like: sizes of the whole and of each weight, and how the outputs compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tlkit.words import byte_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.core.compress.compress import Compressed

_SHOWN = 12


def document(result: Compressed) -> dict[str, Any]:
    """Return the result as JSON's document."""
    from dataclasses import fields

    return {field.name: getattr(result, field.name) for field in fields(result)} | {"ok": result.ok}


def show(result: Compressed) -> RenderableType:
    """Return the result as text."""
    from rich.console import Group

    from tlkit.cli.sink.card import card

    rows = [("model", str(result.path), "bold"), ("source", result.source, "")]
    rows += [("size", _sizes(result.before, result.after), "bold"), ("weights", _sizes(*result.weight_bytes), "")]
    rows += [("for", f"{result.target} and later", ""), *(("note", note, "") for note in result.notes)]
    return Group(card([*rows, *_verdict(result)]), _table(result))


def _sizes(before: int, after: int) -> str:
    return f"{byte_text(before)} → {byte_text(after)}, {after / before if before else 1.0:.1%}"


def _verdict(result: Compressed) -> list[tuple[str, str, str]]:
    check = result.check
    if check is None:
        return [("verified", "no (--no-verify)", "dim")]
    words = {True: ("within the limits", "green"), False: ("OUTSIDE the limits", "bold red")}
    rows = [
        ("verified", *words.get(bool(check.passed), ("could not be judged", "yellow"))),
        ("limits", result.limits, ""),
    ]
    rows += [
        ("", f"{name}: cosine {found.cosine:.6f}, SNR {found.snr_db:.1f} dB, max abs {found.max_abs:.3g}", "")
        for name, found in check.outputs.items()
    ]
    return [*rows, *(("", text, "red") for text in check.reasons)]


def _table(result: Compressed) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for heading in ("weight", "stored as"):
        table.add_column(heading, overflow="fold")
    for heading in ("before", "after"):
        table.add_column(heading, justify="right", no_wrap=True)
    ranked = sorted(result.weights, key=lambda item: -item.before)
    for item in ranked[:_SHOWN]:
        table.add_row(Text(item.name), item.choice, byte_text(item.before), byte_text(item.after))
    if len(ranked) > _SHOWN:
        before, after = (sum(getattr(item, key) for item in ranked[_SHOWN:]) for key in ("before", "after"))
        table.add_row(f"and {len(ranked) - _SHOWN} more", "", byte_text(before), byte_text(after))
    return table
