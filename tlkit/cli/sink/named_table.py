"""A table of named things that stays readable on a narrow terminal."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

_ROOM = 24  # columns: a name that has to be folded into fewer is not read any more
_HEAD = 3  # lines: an empty one, the headings, a rule


class NamedTable(Table):
    """A table whose first column, names, moves to separate lines where space is scarce."""

    def __init__(self) -> None:
        super().__init__(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rest = copy(self)
        rest.columns = [replace(column, _index=index) for index, column in enumerate(self.columns[1:])]
        natural = Measurement.get(console, options.update(max_width=10_000), _plain(rest)).maximum
        names = [str(cell) for cell in self.columns[0].cells]
        longest = max(map(cell_len, names), default=0)
        if options.max_width - natural >= min(longest, _ROOM) + 3:
            yield from super().__rich_console__(console, options)
            return
        lines = console.render_lines(_plain(rest), options, pad=False)
        for index, line in enumerate(lines):
            row = index - _HEAD
            if 0 <= row < len(names):
                yield Text(names[row], self.rows[row].style or "", overflow="fold")
            yield from line
            yield Segment.line()


def _plain(table: Table) -> Table:
    """Return ``table`` as one of rich's own."""
    # Printed as what it is, it would end up in its own __rich_console__ again.
    table.__class__ = Table
    return table
