"""Switch Python's cycle collector off while a program is built."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 200_000
"""Objects made in the body from which on visiting all of them costs something."""


@contextmanager
def uncollected() -> Iterator[None]:
    """Disable the cycle collector in the body; usable as a decorator (``@uncollected()``).

    A program consists of very many objects that all stay alive. The collector would visit them again after every few
    thousand allocations and find nothing, a third of a large program's load time. Nor does it visit those of a large
    program all at once afterwards: they count as old from the start.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            # What somebody else froze stays frozen; counting it takes as long as it is many, so large programs only.
            if gc.get_count()[0] > MANY and not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()  # into the oldest generation, all at once
            gc.enable()
