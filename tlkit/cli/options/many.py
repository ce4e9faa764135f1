"""The options of commands that take many inputs: what runs side by side, and where."""

from __future__ import annotations

from typing import Annotated

import typer

Jobs = Annotated[int | None, typer.Option("--jobs", metavar="N", min=1, help="How many jobs run at a time here.")]
Cluster = Annotated[
    str | None, typer.Option("--cluster", metavar="ADDRESS|auto", help="Run on a Ray cluster (the extra `ray`).")
]
Part = Annotated[
    str | None,
    typer.Option("--part", metavar="K/N", help="Of a data set, run only the K-th of N parts (K from 1)."),
]
Rows = Annotated[
    str | None,
    typer.Option("--rows", metavar="FILE", help="Of a data set, write the rows to a file, as lines of JSON."),
]
