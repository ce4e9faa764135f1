"""``tlkit ops``: the operations that tlkit runs, and those that it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tlkit.cli.options import shared as options
from tlkit.cli.sink import output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.core.inspect.oplist import OpEntry

Pattern = Annotated[str, typer.Argument(metavar="[PATTERN]", help="Only names or families like this: 'conv*', pool.")]


Dialect = Annotated[
    bool, typer.Option("--dialect", help="List tlkit's own operations, which old models need and no package can hold.")
]


def ops(
    pattern: Pattern = "*",
    dialect: Dialect = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """List MIL's operations: family, the opsets that define each, its inputs, and what tlkit does not run.

    \b
    tlkit ops
    tlkit ops 'reduce_*'
    tlkit ops recurrent
    tlkit ops --dialect
    tlkit ops --json | jq '.ops[].name'
    """
    sink = output.start(json=json, quiet=quiet, verbose=verbose)
    from tlkit.core.inspect.oplist import list_ops

    entries = list_ops(pattern, dialect=dialect)
    covered = [entry for entry in entries if entry.covered]
    missing = [entry for entry in entries if not entry.covered]
    sink.answer(
        {
            "ops": [{"name": e.name, "family": e.family, "opsets": e.opsets, "inputs": e.inputs} for e in covered],
            "not_covered": [{"name": e.name, "opsets": e.opsets, "reason": e.reason} for e in missing],
        },
        lambda: _view(covered, missing),
    )


def _view(covered: list[OpEntry], missing: list[OpEntry]) -> RenderableType:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for title in ("op", "family", "opsets"):
        table.add_column(title, no_wrap=True)
    table.add_column("inputs", style="dim")
    for entry in covered:
        table.add_row(entry.name, entry.family, " ".join(entry.opsets), " ".join(entry.inputs))
    lines = [f"{len(covered)} operations", *(f"not covered: {entry.name} ({entry.reason})" for entry in missing)]
    return Group(*([table] if covered else []), *(Text(line) for line in lines))
