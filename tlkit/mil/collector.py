"""Python's cycle collector put off while a program is built."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the cycle collector out of the body; usable as a decorator (``@uncollected()``).

    A program is very many objects that all stay: each time some thousands are new the collector would look at all of
    them again and find nothing, a third of the time that a large program takes to load.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
