"""The C allocator, where it is glibc's: keep freed memory for an engine that reuses it, or return it to the system.

By default glibc returns freed memory to the system as soon as enough of it is contiguous. The intermediate results of
an inference are, so the next inference gets fresh pages, each of which the kernel has to clear. In f16-faithful eager
mode a MobileNetV2 took 2,900 page faults per inference, a quarter of its time. The number differed between processes,
so a process was 6 % (standard deviation) slower or faster than the next for its whole life. Inference runtimes keep
their memory for this reason (ONNX Runtime calls it an arena), and so does tlkit.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Mapping

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h's names for mallopt, with M_ before them
_APART = 1 << 17  # bytes: glibc's own threshold until a larger array has been freed
_KEPT = 1 << 30  # bytes: larger arrays come from the system each time, and more than that free at the end goes back


def keep_freed() -> None:
    """Keep freed memory in this process, up to 1 GiB at a time, from now on.

    Does nothing where the user has tuned the allocator (``MALLOC_…``, ``GLIBC_TUNABLES``).
    """
    # The first keeps free memory at the heap's end; the second makes large arrays come from the heap at all.
    _set({_TRIM_THRESHOLD: _KEPT, _MMAP_THRESHOLD: _KEPT})


def part_with_freed() -> None:
    """Return large arrays to the system as soon as they are freed, from now on.

    For an engine that reuses its memory itself: what it frees then is of a size that it does not need again, as caches
    that have grown, and would stay as holes in the heap. Threads share one heap, for the same reason.
    """
    _set({_MMAP_THRESHOLD: _APART, _ARENA_MAX: 1})


def _set(options: Mapping[int, int]) -> None:
    mallopt = _glibc("mallopt")
    if mallopt is None or any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return
    for option, value in options.items():
        mallopt(option, value)


def give_back() -> None:
    """Run the garbage collector and return freed pages to the system: glibc keeps hundreds of MB after a conversion."""
    gc.collect()
    trim()


def trim() -> None:
    """Return freed pages to the system."""
    if (found := _glibc("malloc_trim")) is not None:
        found(0)


class _Info(ctypes.Structure):
    """malloc.h's ``struct mallinfo2``."""

    _fields_ = [("sizes", ctypes.c_size_t * 10)]


_FORDBLKS = 8  # its field of the bytes that lie free in the heaps, their ends included


def take_free() -> None:
    """Take all large blocks that lie free in this process's heap and never return them.

    For a child whose memory is about to be bounded: the bound counts what the system hands out, and what an engine has
    freed before (:func:`keep_freed`: up to 1 GiB) could be filled without being seen. No page of it is touched.
    """
    malloc, mallinfo = _glibc("malloc"), _glibc("mallinfo2")  # the second from glibc 2.33 on
    if malloc is None or mallinfo is None:
        return
    malloc.restype, malloc.argtypes, mallinfo.restype = ctypes.c_void_p, [ctypes.c_size_t], _Info
    free = mallinfo().sizes[_FORDBLKS]
    for size in (1 << power for power in range(30, 19, -1)):
        while free >= size and malloc(size):
            before, free = free, mallinfo().sizes[_FORDBLKS]
            if before - free < size:
                break  # that came from the system, as no free block is as long


def _glibc(name: str) -> ctypes._NamedFuncPointer | None:
    """Return a glibc function, or None where there is none (macOS, musl)."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
