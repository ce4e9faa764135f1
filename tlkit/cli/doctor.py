"""``tlkit doctor``: what this machine has, what can be measured on it, and what is missing to measure the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tlkit.cli.options import shared as options
from tlkit.cli.sink import output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.core.doctor import Diagnosis, Finding

_STYLES = {"yes": "green", "no": "red", "limited": "yellow"}


Contribute = Annotated[
    str | None,
    typer.Option(
        "--contribute",
        metavar="FILE",
        help="On a Mac: measure a fixed set of probes and write plans and latencies, without whose machine it is.",
    ),
]


def doctor(
    contribute: Contribute = None,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Show what this machine has, and what can be measured on it.

    \b
    tlkit doctor          chip, units, memory, versions, counters
    tlkit doctor --json   the same for programs
    tlkit doctor --contribute m4.json   this Mac's plans and latencies

    Without --contribute it runs no model, imports none of the large packages, and always exits with 0: what is missing
    is an answer.
    """
    sink = output.start(json=json, quiet=quiet, verbose=verbose)
    from dataclasses import fields

    from tlkit.core.doctor import doctor as look

    with sink.progress("measuring" if contribute else "looking"):
        found = look(contribute, force)
    sink.answer({field.name: getattr(found, field.name) for field in fields(found)}, lambda: _render(found))


def _render(found: Diagnosis) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from tlkit.cli.sink.card import Fact, card
    from tlkit.words import byte_text

    machine = found.machine
    processor = f"{machine.cpu} ({machine.architecture}), {machine.cores} cores, {byte_text(machine.memory)}"
    facts: list[Fact] = [
        ("machine", processor),
        ("system", f"{machine.os}, Python {machine.python}"),
        ("versions", ", ".join(f"{name} {version or '-'}" for name, version in found.versions.items())),
    ]
    if found.conditions.load_average is not None:
        facts.append(("load", f"{found.conditions.load_average:.2f} processes per core, over the last minute"))
    parts = (
        card(facts),
        Text(),
        _list("Units", found.units),
        Text(),
        _list("Engines", found.engines),
        Text(),
        _list("To measure", found.measurable),
    )
    return Group(*parts)


def _list(title: str, findings: tuple[Finding, ...]) -> RenderableType:
    from rich.text import Text

    from tlkit.cli.sink.card import grid

    table = grid()
    table.title, table.title_justify = Text(title, "bold"), "left"
    for finding in findings:
        hint = f"; {finding.hint}" if finding.hint and finding.hint not in finding.detail else ""
        status = Text(finding.status, _STYLES[finding.status])
        table.add_row(finding.what, status, f"{finding.detail}{hint}")
    return table
