"""``tlkit convert --function``: packages combined into one, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import typer

from tlkit.cli._counts import byte_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.cli.output import Sink
    from tlkit.core.multifunction import Combined


def combine(
    sink: Sink, source: str, functions: Sequence[str], output: str, *, verify: bool, seed: int, force: bool
) -> None:
    """Combine, answer with what was made, and exit with 1 where a function differs from its package."""
    from tlkit.core.multifunction import combine as run

    with sink.progress(f"combining {source}"):
        result = run(source, functions, output, verify=verify, seed=seed, force=force)
    document = {field.name: getattr(result, field.name) for field in fields(result)}
    sink.answer(document | {"ok": result.passed is not False}, lambda: _show(result))
    if result.passed is False:
        raise typer.Exit(1)


def _show(result: Combined) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    verified = {
        True: ("each function computes what its package does", "green"),
        False: ("a function DIFFERS from its package; the package is written", "bold red"),
        None: ("no (--no-verify)", "dim"),
    }
    rows = [("package", str(result.path), "bold")]
    rows += [
        ("function", f"{name} from {path}{' (the default)' if name == result.default else ''}", "")
        for name, path in result.functions.items()
    ]
    rows.append(("size", f"{byte_text(result.size)}; the packages it is made of {byte_text(result.separate)}", ""))
    rows.append(("verified", *verified[result.passed]))
    for label, value, style in rows:
        table.add_row(label, Text(value, style))
    return table
