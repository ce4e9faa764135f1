"""Switch Python's cycle collector off while a program is built."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Disable the cycle collector in the body; usable as a decorator (``@uncollected()``).

    A program consists of very many objects that all stay alive. The collector would visit them again after every few
    thousand allocations and find nothing, a third of a large program's load time.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
