"""Ctrl-C and SIGTERM that end a command even where a library swallows the exception.

Python turns a signal into an exception wherever it happens to be, and a bare ``except:`` there eats it: coremltools and
what it imports have several. So the wish is kept, and :func:`check` raises it again at the next safe place.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_pending: BaseException | None = None
_held = False


def end_on_sigterm() -> None:
    """Let SIGTERM end the process as ``sys.exit(143)`` does, where nobody handles it: temporary folders go then."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT (as KeyboardInterrupt) and SIGTERM (as SystemExit 143) end the body, and remember that they came.

    Handlers that somebody else has set stay as they are. Nothing is done outside the main thread, or when nested.
    """
    global _pending
    main = threading.current_thread() is threading.main_thread()
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    found = {number: signal.getsignal(number) for number in usual} if main else {}
    taken = {number: handler for number, handler in found.items() if handler in (usual[number], _terminate)}
    for number in taken:
        signal.signal(number, _remember)
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
        if taken:
            _pending = None


@contextmanager
def held() -> Iterator[None]:
    """Let the body end before a signal ends the command: an import of torch's C++ half aborts the process otherwise."""
    global _held
    before, _held = _held, True
    try:
        yield
    finally:
        _held = before
    check()


def check() -> None:
    """Raise again what a signal raised before, if the body of :func:`interruptible` is still running after it."""
    if _pending is not None:
        raise _pending


def _remember(number: int, frame: FrameType | None) -> None:
    global _pending
    _pending = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
    if not _held:
        raise _pending
