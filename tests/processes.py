"""Running a command in this process, which goes on afterwards."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tlkit.host import interrupt


@contextmanager
def as_a_process() -> Iterator[None]:
    """Take back what a command in the body leaves for its process's end: its signal handlers, and that it is done."""
    before, interrupt._done = interrupt._done, None
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        interrupt._done = before
        for number, handler in handlers.items():
            signal.signal(number, handler)
