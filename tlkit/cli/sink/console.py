"""rich, as the sink uses it. Imported only when something is printed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment

from tlkit.cli.sink.stream import Progress, clean

PLAIN_WIDTH = 1000  # columns away from a terminal: wide enough that no table has to fold a cell


class PlainConsole(Console):
    """A console on ``stream`` that reads nothing in a text as markup, and leaves a broken pipe to its caller."""

    def __init__(self, stream: TextIO) -> None:
        width = None if stream.isatty() else PLAIN_WIDTH
        super().__init__(file=stream, width=width, markup=False, highlight=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Called by rich inside its handler: pass the BrokenPipeError on, where rich would exit with 1."""
        raise


class Safe:
    """A renderable whose text is cleaned after layout: rich's own styles pass, escape sequences in data do not."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(clean(segment.text), segment.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._inner)


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
