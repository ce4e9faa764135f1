"""Silence for the libraries that talk while they work, without losing what they say.

coremltools logs, warns and draws tqdm bars; torch warns from Python and from C++. None of it is the user's answer, so
:func:`quiet` takes both Python streams away while such code runs and keeps the words, for error messages and ``-vv``.
Whoever holds a stream object from before (the sink, its progress bar) goes on writing to the real one.
"""

from __future__ import annotations

import io
import os
import re
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

LineListener = Callable[[str], None]


class Heard(io.TextIOBase):
    """A stream that keeps its last ``limit`` lines and hands each finished one (ended by ``\\n`` or ``\\r``) on."""

    encoding = "utf-8"

    def __init__(self, listener: LineListener | None = None, limit: int = 2000) -> None:
        super().__init__()
        self._listener = listener
        self._rest = ""
        self.lines: deque[str] = deque(maxlen=limit)

    def writable(self) -> bool:
        """A stream that a library kept after the end still takes its words: it is never closed."""
        return True

    def write(self, text: str) -> int:
        """Take ``text``; a bar that redraws itself ends its line with a carriage return, before or after it."""
        *lines, self._rest = re.split(r"[\r\n]", self._rest + text)
        if "%|" in self._rest:  # tqdm puts the carriage return first: nothing will end this line
            lines.append(self._rest)
            self._rest = ""
        for line in filter(None, lines):
            self.lines.append(line)
            if self._listener:
                self._listener(line)
        return len(text)


@contextmanager
def quiet(listener: LineListener | None = None) -> Iterator[Heard]:
    """Take stdout and stderr from the code in the body, warnings too; yield what it says.

    ``listener`` is called with each line as it comes. The process's environment gets ``TORCH_CPP_LOG_LEVEL=ERROR``
    (unless it is set), which keeps torch's C++ half quiet when the body imports it.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    sys.stdout.flush()
    heard = Heard(listener)
    with redirect_stdout(heard), redirect_stderr(heard), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield heard


_BAR = re.compile(r"^(?P<what>[^:|]+):\s+\d+%\|[^|]*\|\s*(?P<done>\d+)/(?P<total>\d+)")


def read_bar(line: str) -> tuple[str, int, int] | None:
    """Return (description, done, total) where ``line`` is a tqdm bar, else None.

    coremltools has no other way to say how far it is: reading the bars it draws needs nothing of its inside.
    """
    match = _BAR.match(line.strip())
    return (match["what"], int(match["done"]), int(match["total"])) if match else None
