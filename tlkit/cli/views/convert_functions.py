"""``tlkit convert --function``: the report on several sources combined as functions of one package."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import typer

from tlkit.words import byte_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.cli.sink.output import Sink
    from tlkit.core.convert.functions import Combined


def answer(sink: Sink, result: Combined) -> None:
    """Report what was made; exit with 1 where a function differs from its source."""
    document = {field.name: getattr(result, field.name) for field in fields(result)}
    sink.answer(document | {"ok": result.ok}, lambda: _show(result))
    if not result.ok:
        raise typer.Exit(1)


def _show(result: Combined) -> RenderableType:
    from tlkit.cli.sink.card import card

    verified = {
        True: ("each function computes what its source does", "green"),
        False: ("a function DIFFERS from its source; the package is written", "bold red"),
        None: ("could not be judged; the package is written", "red") if result.reasons else ("no (--no-verify)", "dim"),
    }
    rows = [("package", str(result.path), "bold")]
    rows += [
        ("function", f"{name} from {path}{' (the default)' if name == result.default else ''}", "")
        for name, path in result.functions.items()
    ]
    rows.append(("size", f"{byte_text(result.size)}; a package for each function {byte_text(result.separate)}", ""))
    rows.append(("verified", *verified[result.passed]))
    for function, found in result.verifications.items():
        rows += [
            ("", f"{function}: {name}: max abs {d.max_abs:.2e}, cosine {d.cosine:.6f}", "")
            for name, d in found.outputs.items()
        ]
    return card(rows + [("", reason, "red") for reason in result.reasons])
