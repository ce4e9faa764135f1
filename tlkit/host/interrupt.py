"""Ctrl-C and SIGTERM that end a command even where a library swallows the exception.

Python turns a signal into an exception wherever it happens to be, and a bare ``except:`` there eats it: coremltools and
what it imports have several. So the wish is kept, and :func:`check` raises it again at the next safe place.

A command whose output has got its name is done: exit code 130 would say that it is not. So :func:`last_output` marks
where a command writes what it was called for, and a signal that comes after that (:func:`done`) only counts if it
comes twice.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_pending: BaseException | None = None
_held = False
_last = False
_done: set[int] | None = None
"""The signals that came after the output had its name; None before that."""


def end_on_sigterm() -> None:
    """Let SIGTERM end the process as ``sys.exit(143)`` does, where nobody handles it: temporary folders go then."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT (as KeyboardInterrupt), SIGTERM and SIGHUP (as SystemExit 143, 129) end the body; remember them.

    Handlers that somebody else has set stay as they are. Nothing is done outside the main thread, or when nested.
    """
    global _pending
    main = threading.current_thread() is threading.main_thread()
    usual: dict[int, object] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if hasattr(signal, "SIGHUP"):  # the terminal was closed
        usual[signal.SIGHUP] = signal.SIG_DFL
    found = {number: signal.getsignal(number) for number in usual} if main else {}
    taken = {number: handler for number, handler in found.items() if handler in (usual[number], _terminate)}
    for number in taken:
        signal.signal(number, _remember)
    try:
        yield
    finally:
        if _done is None:
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


def to_the_end(action: Callable[[], None]) -> None:
    """Call ``action``, which may be called twice, so that no signal cuts it short; leave raising the signal to others.

    A signal can still come before the first line here has run: then ``action`` runs in ``finally``.
    """
    global _held
    before = _held
    try:
        _held = True
        action()
    finally:
        _held = True
        try:
            action()
        finally:
            _held = before


@contextmanager
def last_output() -> Iterator[None]:
    """Mark that what the body writes is all that the running command is for. Not for libraries: the process is its."""
    global _last
    _last = True
    try:
        yield
    finally:
        _last = False


def done() -> None:
    """Say that an output has its name; inside :func:`last_output` a signal does not undo the success from now on."""
    global _done, _pending
    if _last and _done is None:
        _done, _pending = set(), None


def check() -> None:
    """Raise again what a signal raised before, if the body of :func:`interruptible` is still running after it."""
    if _pending is not None:
        raise _pending


def _remember(number: int, frame: FrameType | None) -> None:
    global _pending
    if _done is not None and number not in _done:
        _done.add(number)
        return
    _pending = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
    if not _held:
        raise _pending
