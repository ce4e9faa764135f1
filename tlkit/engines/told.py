"""What happens deep inside that a person at a terminal wants to hear of: slow work that has begun, and remarks.

Whoever shows such things to people (the command line) listens; for a program that imports tlkit nothing is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_remarks: list[str] = []
_listener: Callable[[str], None] | None = None


@contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Tell ``listener`` what slow work begins while the body runs; an empty text says that it has ended."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


@contextmanager
def slowly(work: str) -> Iterator[None]:
    """Say that the body is slow ``work``."""
    if _listener is not None:
        _listener(work)
    try:
        yield
    finally:
        if _listener is not None:
            _listener("")


def remark(text: str) -> None:
    """Leave a remark for the end of the command; the same one once."""
    if text not in _remarks:
        _remarks.append(text)


def remarks() -> list[str]:
    """Return the remarks so far, and forget them."""
    found = list(_remarks)
    _remarks.clear()
    return found
