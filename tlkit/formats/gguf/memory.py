"""A free list for large float32 results: fresh pages from the kernel cost as much as decoding.

The C allocator keeps freed arrays only up to 32 MB; a language model's matrix is larger as float32.

``host/allocator.py`` answers the same question for engines, whose memory torch asks for, by a setting of glibc for the
whole process. It was tried here in place of this list (``benchmarks/gguf_quants.py``, 4096x4096, alternating runs on a
busy machine of two cores): Q8_0 took 3.5 and 4.3 ns per element with the setting, 1.6 and 3.7 with the list, and the
ratio to the gguf package, whose memory the setting keeps as well, fell from 6.7 and 4.3 to 2.2 and 1.4. Besides, there
is no such setting on macOS, and whoever reads one file would keep up to 1 GiB in the process. So there are two.
"""

from __future__ import annotations

import weakref

import numpy as np
from numpy.typing import NDArray

_LARGE = 1 << 22  # elements; smaller arrays are reused by the allocator itself
_KEPT = 1 << 26  # elements that nobody uses and that stay allocated, at most (256 MB)

_free: dict[int, NDArray[np.float32]] = {}  # by id(): changed by single calls only, since any thread may free


def floats(count: int) -> NDArray[np.float32]:
    """Return ``count`` uninitialised float32 numbers; a large array may reuse the memory of a freed one."""
    if count < _LARGE:
        return np.empty(count, np.float32)
    memory = _fitting(count)
    found = np.frombuffer(memory.data, np.float32, count)  # whatever is a view of it keeps it alive
    # When the process ends, there is nobody to keep memory for.
    weakref.finalize(found, _give_back, memory).atexit = False
    return found


def _fitting(count: int) -> NDArray[np.float32]:
    """Return free memory that is large enough but less than twice as large, or fresh memory."""
    for key, memory in list(_free.items()):
        if count <= memory.size < 2 * count and _free.pop(key, None) is not None:
            return memory
    return np.empty(count, np.float32)


def _give_back(memory: NDArray[np.float32]) -> None:
    if sum(kept.size for kept in list(_free.values())) + memory.size > _KEPT:
        _free.clear()
    if memory.size <= _KEPT:
        _free[id(memory)] = memory
