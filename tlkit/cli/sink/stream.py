"""What the sink needs before rich: clean text, readers that go away, and progress that nobody watches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def clean(text: str) -> str:
    """Return ``text`` with control characters (line feed and tab apart) replaced: no escape sequence survives."""
    return text.translate(_CONTROL)


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
