"""The sink's use of rich. Imported only when something is printed."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tlkit.cli.sink.fitting import fitted
from tlkit.cli.sink.stream import Progress, clean

PLAIN_WIDTH = 1000  # columns away from a terminal: wide enough that no table has to fold a cell
_LONGEST = 1 << 16  # columns of a line that is never folded
_ROOM = 80  # columns that a table in a file takes, where no word of it has to be broken for that
_BREAKS = dict.fromkeys(map(ord, "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\t"), "\N{REPLACEMENT CHARACTER}")
_FRAME = "[\\s\u2500-\u257f]+"  # blanks, and the lines of tables and trees


class PlainConsole(Console):
    """A console on ``stream`` that reads nothing in a text as markup, and leaves a broken pipe to its caller."""

    def __init__(self, stream: TextIO, width: int | None = None, colour: bool = False) -> None:
        terminal = stream.isatty()
        super().__init__(
            file=stream,
            width=None if terminal else width or PLAIN_WIDTH,
            markup=False,
            highlight=False,
            emoji=False,
            # FORCE_COLOR colours what goes into a pipe, and makes no terminal of it.
            force_terminal=None if terminal else False,
            color_system="auto" if terminal else "standard" if colour else None,
        )

    def on_broken_pipe(self) -> None:
        """Called by rich inside its handler: pass the BrokenPipeError on, where rich would exit with 1."""
        raise


class Safe:
    """A renderable whose text is cleaned after layout: rich's own styles pass, escape sequences in data do not.

    Line breaks in names are taken out before layout, since they would look like another row.
    """

    def __init__(self, inner: RenderableType) -> None:
        _keep_rows(inner)
        self._inner = fitted(inner)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(clean(segment.text), segment.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._inner)


def _keep_rows(what: RenderableType) -> None:
    """Let each row of a table and each node of a tree begin with one line. What explains a row comes last in it, and
    may have several."""
    if isinstance(what, Group):
        for part in what.renderables:
            _keep_rows(part)
    elif isinstance(what, Table):
        for column in what.columns[:-1] or what.columns:
            column._cells = [_on_one_line(cell) for cell in column._cells]
    elif isinstance(what, Tree):
        what.label = _on_one_line(what.label)
        for child in what.children:
            _keep_rows(child)


def _on_one_line(cell: RenderableType) -> RenderableType:
    if isinstance(cell, str):
        return cell.translate(_BREAKS)
    if isinstance(cell, Text):
        cell.plain = cell.plain.translate(_BREAKS)  # of the same length: styles stay where they are
    return cell


class Unfolded:
    """A line that is one line in a file or a pipe however long it is: a command, which is there to be pasted."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._inner


def plain_text(what: RenderableType) -> str:
    """Return ``what`` as lines for a file or a pipe, without blanks at their ends.

    They are at most 80 columns long (or ``COLUMNS``, where that is set): cells are folded between words, and a table
    that is wider changes its layout. No word, so no key or path, is broken or cut for that: where one does not fit,
    lines are as long as need be. (Words of over 1,000 columns are broken all the same.)
    """
    if isinstance(what, Group):  # each part for itself: one long path widens no table but its own
        return "".join(map(plain_text, what.renderables))
    width, text = _fitting(what)
    return _lines(what, width, colour=True) if _wants_colour() else text


def _fitting(what: RenderableType) -> tuple[int, str]:
    """Return the columns at which no word of ``what`` is broken, the room that there is or as few more as possible, and
    its lines there."""
    if isinstance(what, Unfolded):
        return _LONGEST, _lines(what, _LONGEST)
    wide = _lines(what, PLAIN_WIDTH)
    room, widest = _room(), _widest(wide)
    if widest > room:
        # Headings apart: a layout for little room leaves out that of names, and says others several times.
        words = _words(wide) - _headings(what)
        for width in _widths(what, room, widest):
            lines = _lines(what, width)
            # Every word is there: none was broken or cut.
            if not words - _words(lines):
                return width, lines
    return PLAIN_WIDTH, wide


def _wants_colour() -> bool:
    return os.environ.get("FORCE_COLOR", "") not in ("", "0") and not os.environ.get("NO_COLOR")


def _widths(what: RenderableType, room: int, widest: int) -> Iterator[int]:
    """Yield the widths to try: the room, what the longest words need, then more and more."""
    console = PlainConsole(io.StringIO())
    need = Measurement.get(console, console.options, what).minimum
    yield room
    width = max(room, need)
    while width < widest:
        yield width
        width += -(-width // 4)


def _lines(what: RenderableType, width: int, colour: bool = False) -> str:
    padded = io.StringIO()  # rich pads cells to a rectangle: nobody wants the blanks in a file
    PlainConsole(padded, width, colour).print(Safe(what))
    return "".join(f"{line.rstrip()}\n" for line in padded.getvalue().splitlines())


def _room() -> int:
    columns = os.environ.get("COLUMNS", "")
    wide = int(columns[:6]) if columns.isdecimal() else 0  # Python refuses to read 4,300 digits
    return wide if wide > 0 else _ROOM


def _widest(text: str) -> int:
    return max(map(cell_len, text.splitlines()), default=0)


def _headings(what: RenderableType) -> Counter[str]:
    headings = " ".join(str(column.header) for column in what.columns) if isinstance(what, Table) else ""
    return _words(headings) | Counter([""])


def _words(text: str) -> Counter[str]:
    return Counter(re.split(_FRAME, text))


@contextmanager
def bar(stream: TextIO, description: str, total: float | None) -> Iterator[Progress]:
    """Show a bar on the terminal ``stream`` until the body ends; ``total`` None is a bar that only moves."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    class Shown(Progress):
        def advance(self, steps: float = 1) -> None:
            bars.advance(task, steps)

        def update(self, completed: float, total: float | None = None) -> None:
            bars.update(task, completed=completed, total=total)

        def describe(self, description: str) -> None:
            bars.update(task, description=clean(description))

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Bars(*columns, console=PlainConsole(stream), transient=True) as bars:
        task = bars.add_task(clean(description), total=total)
        yield Shown()
