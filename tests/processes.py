"""Running a command in this process, which goes on afterwards, and limits on what it may do."""

from __future__ import annotations

import resource
import signal
import sys
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


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Let no file grow beyond ``size`` bytes in the body, as on a disk that is full."""
    limits, kept = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    # Python would leave the first bytes of a module's bytecode, and stumble over them whenever it is imported.
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        sys.dont_write_bytecode = kept
