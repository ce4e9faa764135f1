"""The one sink: every word that tlkit prints goes through here.

stdout carries the answer and nothing else, as text or, with ``--json``, as exactly one JSON document; notes, warnings,
errors and progress go to stderr in both modes. Rules that hold for every command:

* The JSON document is an object that begins with ``schema_version``. JSON cannot represent non-finite floats, so they
  are the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``.
* Text from a model file may contain anything: it is never interpreted as markup, and control characters and those that
  reverse text are replaced (in JSON: escaped), so that a model's description cannot control the terminal or mislead its
  reader.
* Away from a terminal there are no colours and no bars. Lines are folded at 80 columns (or ``COLUMNS``) between words;
  no word is broken, and a message or a ``str`` is never folded.
* A reader that closes the pipe (``| head``) is not an error: the rest of the answer is silently dropped.

rich is imported when text is printed, not before.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from tlkit.cli.sink.stream import Progress, clean, deaf_reader, escaped
from tlkit.errors import one_line, told
from tlkit.words import jsonable

if TYPE_CHECKING:
    from rich.console import RenderableType

    Show = RenderableType | Callable[[], RenderableType]

SCHEMA_VERSION = 1


class Sink:
    """The destination of one command's answer and messages.

    ``json`` chooses the mode of the answer. ``quiet`` drops notes and progress (never warnings or errors); ``verbose``
    1 shows :meth:`debug` lines, 2 adds tracebacks to errors, as does ``TLKIT_DEBUG=1`` in the environment.
    """

    def __init__(
        self,
        *,
        json: bool = False,
        quiet: bool = False,
        verbose: int = 0,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.json = json
        self.quiet = quiet
        self.verbose = verbose
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self._answered = False
        self.unheard = False
        """Whether the answer's reader has gone: what takes time to make need not be made."""

    def answer(self, data: Mapping[str, Any], show: Show) -> None:
        """Print the command's result, once.

        ``data`` is the document for ``--json``: dataclasses, mappings, sequences, paths, enums, numpy scalars and
        arrays all become JSON. ``show`` is the same for people: a rich renderable, a function that builds one (called
        in text mode only), or a ``str``, which is printed as it is, never wrapped.
        """
        if self._answered:
            raise RuntimeError("a command gives one answer")
        self._answered = True
        if self.json:
            document = {"schema_version": SCHEMA_VERSION} | jsonable(data)
            self._write(self._stdout, escaped(json.dumps(document, ensure_ascii=False, allow_nan=False)) + "\n")
        else:
            self._print(self._stdout, show() if callable(show) else show)

    def row(self, data: Mapping[str, Any], text: str) -> None:
        """Print one of many rows at once: a line of JSON, or of text."""
        if self.json:
            document = {"schema_version": SCHEMA_VERSION} | jsonable(data)
            self._write(self._stdout, escaped(json.dumps(document, ensure_ascii=False, allow_nan=False)) + "\n")
        else:
            self._print(self._stdout, text)

    def piece(self, text: str) -> None:
        """Print a piece of a text that grows, as soon as it is known; nothing with ``--json``, whose document has the
        whole."""
        if not self.json:
            self._write(self._stdout, clean(text))

    def note(self, message: str) -> None:
        """Print helpful information that requires no action (dropped by ``-q``)."""
        if not self.quiet:
            self._message("note", message, "dim")

    def warn(self, message: str) -> None:
        """Print a warning: the answer may differ from what the user expects."""
        self._message("warning", message, "yellow")

    def debug(self, message: str) -> None:
        """Print details, only with ``-v``."""
        if self.verbose:
            self._message("debug", message, "dim")

    def error(self, error: BaseException) -> None:
        """Print an error: one line, then a line that says what to do; the traceback when debugging."""
        shown = told(error)
        if self.verbose > 1 or os.environ.get("TLKIT_DEBUG", "0") not in ("", "0"):
            self._write(self._stderr, clean("".join(traceback.format_exception(error))))
        self._message("tlkit: error", shown.message, "bold red")
        if shown.hint:
            self._write(self._stderr, f"  {clean(shown.hint)}\n")

    @contextmanager
    def progress(self, description: str, total: float | None = None) -> Iterator[Progress]:
        """Show a bar while the body runs, if stderr is a terminal and ``-q`` was not given.

        ``total`` is the number of steps, None while it is unknown. Yields a :class:`Progress` to move it with; the
        bar is gone when the body ends.
        """
        if self.quiet or not self._stderr.isatty():
            yield Progress()
            return
        from tlkit.cli.sink import console

        with console.bar(self._stderr, description, total) as shown:
            yield shown

    def _message(self, label: str, message: str, style: str) -> None:
        from rich.text import Text

        self._print(self._stderr, Text.assemble((f"{label}:", style), " ", clean(one_line(message))), soft_wrap=True)

    def _print(self, stream: TextIO, what: RenderableType, soft_wrap: bool = False) -> None:
        if isinstance(what, str):
            self._write(stream, clean(what) + ("" if what.endswith("\n") else "\n"))
            return
        from tlkit.cli.sink.console import PlainConsole, Safe, plain_text

        if not stream.isatty() and not soft_wrap:
            self._write(stream, plain_text(what))
            return
        with deaf_reader(stream):
            PlainConsole(stream).print(Safe(what), soft_wrap=soft_wrap)
            stream.flush()

    def _write(self, stream: TextIO, text: str) -> None:
        with deaf_reader(stream, self._gone):
            stream.write(text)
            stream.flush()

    def _gone(self, stream: TextIO) -> None:
        self.unheard |= stream is self._stdout


def start(*, json: bool = False, quiet: bool = False, verbose: int = 0) -> Sink:
    """Make the sink of this process's command; errors that end the command are printed through it too."""
    global _current
    _current = Sink(json=json, quiet=quiet, verbose=verbose)
    return _current


def current() -> Sink:
    """Return the sink that :func:`start` made, or a plain one if no command has started."""
    return _current or Sink()


_current: Sink | None = None
