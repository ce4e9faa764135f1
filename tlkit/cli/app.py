"""The entry point: every subcommand by name, and the handling of errors that reach the top.

A subcommand ``name`` is the function ``name`` of the module ``tlkit.cli.name``. Its module imports nothing heavy; it
imports what it needs of the toolkit when it is called.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from importlib import import_module
from typing import Annotated

import typer

from tlkit import __version__
from tlkit.cli.sink import output
from tlkit.cli.sink.stream import open_streams
from tlkit.errors import told
from tlkit.host.interrupt import end_on_sigterm, last_output

COMMANDS = {
    "convert": "PyTorch to a Core ML package, checked.",
    "edit": "Change names, shapes, types or metadata.",
    "inspect": "Show what a model file is.",
    "run": "Run a model once and show its outputs.",
    "compare": "Compare two models; find where they part.",
    "bench": "Measure latency, load time, memory and energy.",
    "fleet": "Run a plan of many jobs, here or on a cluster.",
    "doctor": "Show what can be measured on this machine.",
    "ops": "List the operations that tlkit runs.",
}

_HELP = {"help_option_names": ["-h", "--help"]}

WRITING = ("convert", "edit", "run", "compare")
"""The commands that are done when their outputs have their names; bench measures first."""


def build(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return the application with the subcommands ``names``."""
    # Plain help, not rich's: rendering it with rich costs three times the rest of `tlkit --help`.
    app = typer.Typer(
        name="tlkit",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=_HELP,
    )
    # With a callback typer keeps a subcommand's name even where it is the only one.
    app.callback()(_tlkit)
    for name in names:
        command = getattr(import_module(f"tlkit.cli.{name}"), name)
        app.command(name, short_help=COMMANDS[name])(command)
    return app


def main() -> None:
    """Run the command line and exit: 0 done, 1 a negative answer, 2 usage, 3 cannot load, 4 failed, 130 interrupted."""
    open_streams()
    gc.set_threshold(50_000)  # start-up makes many objects and no garbage: collecting costs a twentieth of `inspect`
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal cannot show is not a reason to fail
            stream.reconfigure(errors="backslashreplace")
    end_on_sigterm()
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        # One subcommand is named nearly always: the options of the others need not be built.
        with last_output() if wanted in WRITING else nullcontext():
            build([wanted] if wanted in COMMANDS else COMMANDS)()
    except Exception as error:
        output.current().error(error)
        sys.exit(told(error).exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        # The interpreter's last collection would look at every object of a process that is about to end: a tenth of
        # `inspect`. What writes files, or has torch loaded, is torn down as ever.
        if wanted not in (*WRITING, "bench"):
            gc.freeze()


def _version(wanted: bool) -> None:
    if wanted:
        output.start().answer({"version": __version__}, f"tlkit {__version__}")
        raise typer.Exit()


def _tlkit(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Convert, inspect, run and measure models for Apple devices, on a Mac or on Linux."""
