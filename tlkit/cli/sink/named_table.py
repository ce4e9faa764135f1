"""A table of named things: names on the left, what is said of each beside it."""

from __future__ import annotations

from rich import box
from rich.table import Table


class NamedTable(Table):
    """A table whose first column has names; :mod:`tlkit.cli.sink.fitting` lays it out where space is scarce."""

    def __init__(self) -> None:
        super().__init__(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
