"""The parts of the sink that do not need rich: clean text, closed pipes, and invisible progress."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_CONTROL = {*range(32), *range(127, 160)} - {ord("\n"), ord("\t")}
"""C0, DEL and C1: a terminal obeys them."""

_UNSEEN = {0x61C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF}
_UNSEEN |= {*range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080)}
"""What turns text around, breaks lines or hides, so that it reads as what it is not."""

_REPLACED = dict.fromkeys(_CONTROL | _UNSEEN | {0xFFFE, 0xFFFF}, "\N{REPLACEMENT CHARACTER}")
_ESCAPED = {code: json.dumps(chr(code))[1:-1] for code in (*_CONTROL, *_UNSEEN)}


def clean(text: str) -> str:
    """Return ``text`` fit to be shown, and written into a file of text or XML.

    Control characters (line feed and tab apart), what turns text around or hides it, and characters that are none
    become U+FFFD; halves of a surrogate pair, as names of files hold, become ``\\udc80``.
    """
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text.translate(_REPLACED)


def escaped(document: str) -> str:
    """Return a JSON ``document`` with the same characters as escapes: it reads as before, and no terminal obeys it."""
    return document.translate(_ESCAPED)


def open_streams() -> None:
    """Connect standard streams that were closed when the process started (``>&-``) to the null device.

    Otherwise the next file that is opened would get descriptor 1 or 2, and libraries would print into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        # Python itself leaves None where a stream was closed.
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


@contextmanager
def deaf_reader(stream: TextIO, gone: Callable[[TextIO], None] = lambda _: None) -> Iterator[None]:
    """Tolerate that ``stream``'s reader goes away while the body writes: the rest is dropped, and ``gone`` is told."""
    try:
        yield
    except BrokenPipeError:
        gone(stream)
        # Python flushes the stream once more at exit, and would complain then: give it somewhere to go.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)


class Progress:
    """Progress of a command; this base class shows nothing (stderr is not a terminal, or ``-q``)."""

    def advance(self, steps: float = 1) -> None:
        """Advance by ``steps``."""

    def update(self, completed: float, total: float | None = None) -> None:
        """Say that ``completed`` steps are done and, where it was not known or has changed, of how many."""

    def describe(self, description: str) -> None:
        """Change the text beside the bar."""

    def report(self, what: str, completed: float, total: float | None = None) -> None:
        """Say what is being done, and how much of it: what functions that report their progress call."""
        self.describe(what)
        self.update(completed, total)
