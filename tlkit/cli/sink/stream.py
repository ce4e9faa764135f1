"""What the sink needs before rich: clean text, readers that go away, and progress that nobody watches."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def clean(text: str) -> str:
    """Return ``text`` with control characters (line feed and tab apart) replaced: no escape sequence survives."""
    return text.translate(_CONTROL)


def open_streams() -> None:
    """Give the standard streams that were closed when the process started (``>&-``) somewhere to go: to nobody.

    Otherwise the next file that is opened gets the number 1 or 2, and whatever a library prints ends up in it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


@contextmanager
def deaf_reader(stream: TextIO) -> Iterator[None]:
    """Let ``stream``'s reader go away while the body writes: from then on what is written to it is dropped."""
    try:
        yield
    except BrokenPipeError:
        # Python flushes the stream once more at exit, and would complain then: give it somewhere to go.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)


class Progress:
    """What a command moves along; this one is a bar that nobody sees (stderr is no terminal, or ``-q``)."""

    def advance(self, steps: float = 1) -> None:
        """Move on by ``steps``."""

    def update(self, completed: float, total: float | None = None) -> None:
        """Say that ``completed`` steps are done and, where it was not known or has changed, of how many."""

    def describe(self, description: str) -> None:
        """Change the words beside the bar."""
