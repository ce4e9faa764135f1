"""Facts on a card: dim labels on the left, values on the right."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_WORD = 50  # columns
_FIRST = ("model",)  # what a card is about stays at its head
Fact = tuple[str, str | Text] | tuple[str, str, str]
"""A label and its value, or a label, a text and the text's style. A text without a style may hold rich's markup."""


def grid() -> Table:
    """Return a table without lines, two spaces between its columns."""
    return Table.grid(padding=(0, 2))


def card(facts: Iterable[Fact], label_width: int | None = None) -> RenderableType:
    """Return ``facts`` as a table, and below it a line for each with a label over ``label_width`` columns, or with a
    value that is one long word (a hash), which would widen the table."""
    table = grid()
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    long = []
    for label, value, *style in facts:
        said = Text(str(value), style[0]) if style else value
        word = max(map(cell_len, str(said).split()), default=0)
        if label_width is not None and (cell_len(label) > label_width or (word > _WORD and label not in _FIRST)):
            long.append(Text.assemble((label, "dim"), "  ", said if isinstance(said, Text) else Text.from_markup(said)))
        else:
            table.add_row(label, said)
    return Group(table, *long) if long else table
