"""C's allocator, where it is glibc's: told to keep what an engine uses again, or to give back what nobody does.

By default glibc returns freed memory to the system as soon as enough of it lies together, and an inference's
intermediate results are that: the next inference takes the same pages anew, and the kernel has to clear each. A
MobileNetV2 in f16-faithful eager mode met 2,900 page faults an inference, a quarter of its time, and a different number
in each process, so that one start was 6 % (standard deviation) slower or faster than the next for as long as it lived.
Inference runtimes keep their memory therefore (ONNX Runtime calls it an arena), and so does tlkit's.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h's names for mallopt, with M_ before them
_KEPT = 1 << 30  # bytes: larger arrays come from the system each time, and more than that free at the end goes back


@cache
def keep_freed() -> None:
    """Keep freed memory in this process, up to 1 GiB at a time, from now on.

    Someone who has set up the allocator himself (``MALLOC_…``, ``GLIBC_TUNABLES``) is left alone.
    """
    mallopt = _glibc("mallopt")
    if mallopt is None or any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return
    for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
        mallopt(option, _KEPT)


def give_back() -> None:
    """Collect what only cycles hold, and hand freed pages to the system: glibc keeps them, hundreds of MB after a
    conversion."""
    gc.collect()
    if (trim := _glibc("malloc_trim")) is not None:
        trim(0)


def _glibc(name: str) -> ctypes._NamedFuncPointer | None:
    """Return a function of glibc's; elsewhere (macOS, musl) there is none."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
