"""The table of contents: every subcommand by name, and what becomes of an error that reaches the top.

Modules of subcommands import nothing heavy; what they need of the toolkit they import when they are called.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tlkit import __version__
from tlkit.cli import bench, convert, inspect, output, run
from tlkit.errors import TlkitError

# Plain help, not rich's: rendering it with rich costs three times the rest of `tlkit --help`.
app = typer.Typer(name="tlkit", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

for command, summary in (
    (convert.convert, "PyTorch to a Core ML package, checked."),
    (inspect.inspect, "Show what a model file is."),
    (run.run, "Run a model once and show its outputs."),
    (bench.bench, "Measure latency, load time and memory."),
):
    app.command(short_help=summary)(command)


def _version(wanted: bool) -> None:
    if wanted:
        output.start().answer({"version": __version__}, f"tlkit {__version__}")
        raise typer.Exit()


@app.callback()
def tlkit(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Convert, inspect, run and measure models for Apple devices, on a Mac or on Linux."""


def main() -> None:
    """Run the command line and exit: 0 done, 1 a negative answer, 2 usage, 3 cannot load, 4 failed, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal cannot show is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except Exception as error:
        error = _explain(error)
        output.current().error(error)
        sys.exit(error.exit_code if isinstance(error, TlkitError) else 4)
    except KeyboardInterrupt:
        sys.exit(130)


def _explain(error: Exception) -> Exception:
    """Turn what the system refused (a full disk, a folder that may not be written) into an error of ours."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        told = TlkitError(f"{where}{error.strerror}", "check the path, its permissions and the space left on the disk")
        told.__cause__ = error
        return told
    return error
