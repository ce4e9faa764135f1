"""Tables on narrow terminals: no figure is cut, and no text is folded to a few letters a line.

A table that does not fit is tried in other layouts, the first that fits: its texts folded, its headings in two lines,
its first column on lines of its own above each row, and at last no table at all, a paragraph for each row.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from itertools import zip_longest

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

_WORD = 16  # columns: a text that is folded into fewer is not read any more
_NAME = 24  # the same for names, which have no blanks to fold at
_WIDE = 10_000
_INDENT = 2


def fitted(what: RenderableType) -> RenderableType:
    """Return ``what`` with each table in it laid out for the width that it is printed at."""
    if isinstance(what, Group):
        return Group(*(fitted(part) for part in what.renderables))
    return Fitted(what) if isinstance(what, Table) else what


class Fitted:
    """A table in the first layout that fits."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._table)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in (self._table, _two_lines(self._table)):
            found = _folded(table, console, options)
            if found is not None:
                yield found
                return
        if not self._table.show_header and not console.is_terminal:
            yield self._table  # facts and lists for programs: a row is a line
        elif _fits(_without_names(self._table), console, options) and _one_line_each(self._table):
            yield from _names_above(self._table, console, options)
        else:
            yield from _paragraphs(self._table, options.max_width)


def _natural(table: Table, console: Console, options: ConsoleOptions) -> int:
    return Measurement.get(console, options.update(max_width=_WIDE), table).maximum


def _fits(table: Table, console: Console, options: ConsoleOptions) -> bool:
    return _natural(table, console, options) <= options.max_width


def _folded(table: Table, console: Console, options: ConsoleOptions) -> Table | None:
    """Return ``table`` as it is, or with its texts folded as far as they can be; None where it still does not fit."""
    natural = _natural(table, console, options)
    if natural <= options.max_width:
        return table
    wide = options.update(max_width=_WIDE)
    columns, widths, needs = [], 0, 0
    for place, column in enumerate(table.columns):
        sizes = [Measurement.get(console, wide, cell) for cell in _cells(table, column)]
        width = max((size.maximum for size in sizes), default=0)
        word = max((size.minimum for size in sizes), default=0)
        least = _NAME if place == 0 and table.show_header else max(min(word, 2 * _WORD), _WORD)
        if not console.is_terminal:
            least = max(word, least)  # in a file no word is broken
        need = width if column.no_wrap else min(width, least)
        columns.append(replace(column, min_width=need))
        widths, needs = widths + width, needs + need
    if needs + natural - widths > options.max_width:
        return None
    found = copy(table)
    found.columns = columns
    return found


def _cells(table: Table, column: Column) -> Iterator[RenderableType]:
    if table.show_header:
        yield column.header
    yield from column.cells


def _two_lines(table: Table) -> Table:
    found = copy(table)
    found.columns = [
        replace(column, header=column.header.replace(" ", "\n", 1)) if isinstance(column.header, str) else column
        for column in table.columns
    ]
    return found


def _without_names(table: Table) -> Table:
    rest = copy(table)
    rest.columns = [replace(column, _index=index) for index, column in enumerate(table.columns[1:])]
    return rest


def _one_line_each(table: Table) -> bool:
    return table.show_header and not any("\n" in str(cell) for column in table.columns for cell in column.cells)


def _names_above(table: Table, console: Console, options: ConsoleOptions) -> RenderResult:
    names = list(table.columns[0].cells)
    lines = console.render_lines(_without_names(table), options, pad=False)
    head = len(lines) - len(names) - sum(not "".join(part.text for part in line).strip() for line in lines[-1:])
    for index, line in enumerate(lines):
        row = index - head
        if 0 <= row < len(names):
            yield _text(names[row], table.rows[row].style if row < len(table.rows) else "")
        yield from line
        yield Segment.line()


def _paragraphs(table: Table, width: int) -> RenderResult:
    """Yield, for each row, its first cell, and below it the others with their headings, as many to a line as fit."""
    headings = [str(column.header).replace("\n", " ") if table.show_header else "" for column in table.columns]
    for cells in zip_longest(*(column.cells for column in table.columns), fillvalue=""):
        first, *others = cells
        yield _text(first, table.columns[0].style)
        line = Text()
        for heading, cell, column in zip(headings[1:], others, table.columns[1:], strict=True):
            value = _text(cell, column.style)
            if not value.plain.strip():
                continue
            item = Text.assemble((f"{heading} ", "dim"), value) if heading else value
            if line and cell_len(line.plain) + cell_len(item.plain) + _INDENT > width - _INDENT:
                yield Padding(line, (0, 0, 0, _INDENT))
                line = Text()
            line = Text.assemble(line, "  ", item) if line else item
        if line:
            yield Padding(line, (0, 0, 0, _INDENT))


def _text(cell: RenderableType, style: object = "") -> Text:
    found = cell.copy() if isinstance(cell, Text) else Text(str(cell))
    if style and not found.style:
        found.style = style  # type: ignore[assignment]
    found.no_wrap, found.overflow = False, "fold"
    return found
