"""Facts on a card: labels on the left, dim, and what they say on the right."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

Fact = tuple[str, str | Text] | tuple[str, str, str]
"""A label and its value, or a label, a text and the text's style. A text without a style may hold rich's markup."""


def grid() -> Table:
    """Return a table without lines, two spaces between its columns."""
    return Table.grid(padding=(0, 2))


def card(facts: Iterable[Fact], label_width: int | None = None) -> Table:
    """Return ``facts`` as a table; values fold, and labels only where ``label_width`` bounds them."""
    table = grid()
    if label_width is None:
        table.add_column(style="dim", no_wrap=True)
    else:
        table.add_column(style="dim", overflow="fold", max_width=label_width)
    table.add_column(overflow="fold")
    for label, value, *style in facts:
        table.add_row(label, Text(str(value), style[0]) if style else value)
    return table
