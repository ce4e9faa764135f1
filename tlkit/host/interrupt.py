"""Let Ctrl-C and SIGTERM end a command even where a library swallows the exception.

Python raises a signal's exception wherever it happens to be, and a bare ``except:`` there swallows it: coremltools and
its dependencies have several. So the exception is kept, and :func:`check` raises it again at the next safe place.

Once a command's output has its final name the command has succeeded, and exit code 130 would deny that. So
:func:`last_output` marks where a command writes its result, and the first signal after that (:func:`done`) is ignored.
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
"""The signals received since the output got its name; None before that."""


def end_on_sigterm() -> None:
    """Let an unhandled SIGTERM end the process as ``sys.exit(143)`` does, so that temporary folders are removed."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT (as KeyboardInterrupt), SIGTERM and SIGHUP (as SystemExit 143 and 129) end the body, and remember
    them.

    Handlers that others have installed stay. Does nothing outside the main thread, or when nested.
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
    except Exception as error:
        if _pending is not None:  # what a library made of the signal's exception, which it took for a fault
            raise _pending from error
        raise
    finally:
        # After the result is written the handlers stay: a late signal must not turn success into 130.
        if _done is None:
            for number, handler in taken.items():
                signal.signal(number, handler)
        if taken:
            _pending = None


@contextmanager
def held() -> Iterator[None]:
    """Delay signals until the body has ended: interrupting the import of torch's C++ library aborts the process."""
    global _held
    before, _held = _held, True
    try:
        yield
    finally:
        _held = before
    check()


def to_the_end(action: Callable[[], None]) -> None:
    """Call ``action`` so that no signal cuts it short; it may be called twice.

    Signals are kept, not raised. One can still arrive before the first line here has run: then ``action`` runs in
    ``finally``.
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
    """Mark the body as writing the running command's result. For commands only: the state belongs to the process."""
    global _last
    _last = True
    try:
        yield
    finally:
        _last = False


def done() -> None:
    """Record that an output has its final name; inside :func:`last_output`, one signal is ignored from now on."""
    global _done, _pending
    if _last and _done is None:
        _done, _pending = set(), None


def check() -> None:
    """Raise a remembered signal's exception again, if the body of :func:`interruptible` is still running."""
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
