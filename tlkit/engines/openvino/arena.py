"""Memory in a file without a name: what is rarely looked at need not stay in memory.

OpenVINO holds on to the constants that a graph was made with, though it packs its own copy of them. In a file they
are the system's to take back; there is nothing to clean up, since the file is gone with the process.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tlkit.host.machine import cache_folder

_SMALL = 1 << 18  # bytes: not worth pages of their own


class Arena:
    """Hands out memory for constants, in a file in tlkit's cache where that can be had."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._maps: list[mmap.mmap] = []
        self._size = 0

    def room(self, count: int) -> NDArray[np.uint8]:
        """Return ``count`` bytes of memory."""
        found = self._mapped(count) if count >= _SMALL else None
        return np.empty(count, np.uint8) if found is None else np.frombuffer(found, np.uint8, count)

    def release(self) -> None:
        """Give the pages back to the system; what they hold stays in the file."""
        for each in self._maps:
            each.madvise(mmap.MADV_DONTNEED)

    def _mapped(self, count: int) -> Any:
        # Where space cannot be reserved, a full disk would end the process.
        if not hasattr(os, "posix_fallocate") or not hasattr(mmap, "MADV_DONTNEED"):
            return None
        start = -(-self._size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        try:
            if self._file is None:
                folder = cache_folder()
                folder.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # it lives as long as the arena
            os.posix_fallocate(self._file.fileno(), start, count)
            made = mmap.mmap(self._file.fileno(), count, offset=start)
        except OSError:
            return None
        self._maps.append(made)
        self._size = start + count
        return made
