"""Memory that a library is done with, given back before the next one takes as much again."""

from __future__ import annotations

import ctypes
import gc
import sys


def give_back() -> None:
    """Collect what only cycles hold, and hand freed pages to the system: glibc keeps them, hundreds of MB after a
    conversion."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl has none
        if trim is not None:
            trim(0)
