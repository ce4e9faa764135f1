"""Whether the commands of a plan are what their subcommands take: options that exist, with values of their types.

Looked at before any job starts; what depends on the model or the node (a file, a unit that is not there) is its job's
to tell.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer.main import get_command

from tlkit.core.convert.tools.targets import choose_target
from tlkit.errors import UsageError
from tlkit.placement.facts import chip_named
from tlkit.types import Unit

if TYPE_CHECKING:
    from pathlib import Path

    from tlkit.fleet.job import FleetJob


def check_options(plan: Path, jobs: Iterable[FleetJob]) -> None:
    """Raise UsageError for the first option of a job that its subcommand does not have, or whose value it refuses."""
    seen: set[tuple[str, str, str | None]] = set()
    for job in jobs:
        known = options_of(job.verb)
        for flag, value in _given(job.words, known):
            if (job.verb, flag, value) in seen:
                continue
            seen.add((job.verb, flag, value))
            if wrong := _wrong(known, flag, value):
                raise UsageError(f"{plan}: {job.verb} {wrong}", f"tlkit {job.verb} --help lists its options")


@cache
def options_of(verb: str) -> dict[str, Any]:
    """Return a subcommand's options, by each of their names, as Typer builds them."""
    app = typer.Typer(add_completion=False)
    app.command(verb)(getattr(import_module(f"tlkit.cli.{verb}"), verb))
    options: list[Any] = [item for item in get_command(app).params if item.param_type_name == "option"]
    return {name: option for option in options for name in (*option.opts, *option.secondary_opts)}


def _given(words: Iterable[str], known: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Yield the options among a job's words, each with its value; None for one that takes none or has none."""
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if name not in known and not word.startswith("--"):
            continue
        takes = name in known and not known[name].is_flag and not known[name].count
        yield name, value if equals else next(left, None) if takes else None


def _wrong(known: Mapping[str, Any], flag: str, value: str | None) -> str:
    """Return what is wrong with an option and its value, after the subcommand's name; empty where nothing is."""
    if flag not in known:
        near = difflib.get_close_matches(flag, known, 1)
        return f"has no option {flag}" + (f"; {near[0]} is one" if near else "")
    option = known[flag]
    if value is None:
        return "" if option.is_flag or option.count else f"{flag} needs a value"
    try:
        option.type.convert(value, option, None)
    except Exception as error:  # Typer's own kind, which has no name outside of it
        return f"{flag}: {str(getattr(error, 'message', error)).rstrip('.')}"
    return _unknown(flag, option.metavar or "", value)


def _unknown(flag: str, metavar: str, value: str) -> str:
    """Return what is wrong with a value of which only some words are right, as its metavar says; or nothing.

    Words between bars are all that there are, with ``[,...]`` behind them in a list; units, chips and systems are those
    of their tables.
    """
    if found := _WORDS.fullmatch(metavar):
        words, parts = found[1].split("|"), value.split(",") if found[2] else [value]
        other = next((part for part in parts if part not in words), None)
        return "" if other is None else f"{flag}: '{other}' is not one of {', '.join(words)}"
    if (parse := _TABLES.get(metavar)) is not None:
        try:
            for part in value.split(","):
                parse(part)
        except UsageError as error:
            return f"{flag}: {error.message}; {error.hint}"
    return ""


_WORDS = re.compile(r"([a-z0-9.]+(?:\|[a-z0-9.]+)+)(\[,\.\.\.\])?")
_TABLES: dict[str, Callable[[str], object]] = {
    "UNIT": Unit.parse,
    "UNITS": Unit.parse,
    "CHIP": chip_named,
    "OS": choose_target,
}
