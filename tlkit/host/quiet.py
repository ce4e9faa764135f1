"""Silence libraries that print while they work, without losing what they print.

coremltools logs, warns and draws tqdm bars; torch warns from Python and from C++. None of it answers the user, so
:func:`quiet` redirects both Python streams while such code runs and keeps the text for error messages and ``-vv``.
Stream objects obtained earlier (the sink's, its progress bar's) still write to the real streams.
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
    """A stream that keeps its last ``limit`` lines and passes each finished one (ended by ``\\n`` or ``\\r``) on."""

    encoding = "utf-8"

    def __init__(self, listener: LineListener | None = None, limit: int = 2000) -> None:
        super().__init__()
        self._listener = listener
        self._rest = ""
        self.lines: deque[str] = deque(maxlen=limit)

    def writable(self) -> bool:
        """Always true: a library may keep the stream and write to it after the body has ended."""
        return True

    def write(self, text: str) -> int:
        """Take ``text``; a redrawn progress bar has its carriage return before or after it."""
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
    """Redirect stdout, stderr and warnings of the body; yield the stream that collects them.

    ``listener`` is called with each line as it comes. The process's environment gets ``TORCH_CPP_LOG_LEVEL=ERROR``
    (unless it is set), which keeps torch's C++ half quiet when the body imports it.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    sys.stdout.flush()
    heard = Heard(listener)
    with redirect_stdout(heard), redirect_stderr(heard), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield heard


# E.g. `Running MIL default pipeline:  40%|████      | 2/5 [00:00<00:01, 3.2 passes/s]`.
_BAR = re.compile(r"^(?P<what>[^:|]+):\s+\d+%\|[^|]*\|\s*(?P<done>\d+)/(?P<total>\d+)")


def read_bar(line: str) -> tuple[str, int, int] | None:
    """Return (description, done, total) where ``line`` is a tqdm bar, else None.

    coremltools reports its progress in no other way, and reading its bars needs none of its internals.
    """
    match = _BAR.match(line.strip())
    return (match["what"], int(match["done"]), int(match["total"])) if match else None


@contextmanager
def hushed() -> Iterator[None]:
    """Send what the process writes to its standard error, whoever writes it, nowhere while the body runs.

    For libraries that print from C++ what their exceptions say too; the body must print nothing of its own.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
