"""What the workers and their watcher share: counts, the input in hand, and which lines have been seen."""

from __future__ import annotations

import mmap
import struct
import time

COLUMNS = ("inputs", "read", "refused", "raw", "crash", "hang", "memory", "outside")
"""What is counted for each target: ``read`` and ``refused`` are the good ends, the rest must stay 0."""

LARGEST = 1 << 22
"""The largest input in bytes."""

_HEAD = struct.Struct("<dqqq")  # since when (0: idle), target, length, whether it is tried a second time


class Board:
    """Memory shared by all processes forked after it was made."""

    def __init__(self, workers: int, targets: int, lines: int) -> None:
        self._targets = targets
        self._counts = memoryview(mmap.mmap(-1, workers * targets * len(COLUMNS) * 8)).cast("q")
        self._slowest = memoryview(mmap.mmap(-1, workers * targets * 8)).cast("d")
        self._spent = memoryview(mmap.mmap(-1, workers * targets * 8)).cast("d")
        self._hands = [mmap.mmap(-1, _HEAD.size + LARGEST) for _ in range(workers)]
        self.seen = memoryview(mmap.mmap(-1, targets * lines))

    def count(self, worker: int, target: int, column: str, by: int = 1) -> None:
        """Count one input of a worker; each worker has counters of its own, so none needs a lock."""
        self._counts[(worker * self._targets + target) * len(COLUMNS) + COLUMNS.index(column)] += by

    def spend(self, worker: int, target: int, seconds: float) -> None:
        """Say how long an input took."""
        at = worker * self._targets + target
        self._spent[at] += seconds
        self._slowest[at] = max(self._slowest[at], seconds)

    def spent(self, worker: int, target: int) -> float:
        """Return the seconds that a worker has given to a target."""
        return self._spent[worker * self._targets + target]

    def totals(self, target: int) -> tuple[dict[str, int], float, float]:
        """Return a target's counts over all workers, the slowest input's seconds, and the seconds in all."""
        width = len(COLUMNS)
        places = range(target, len(self._slowest), self._targets)
        counts = {
            name: sum(self._counts[place * width + index] for place in places) for index, name in enumerate(COLUMNS)
        }
        return counts, max(self._slowest[place] for place in places), sum(self._spent[place] for place in places)

    def take(self, worker: int, target: int, case: bytes, again: bool) -> None:
        """Say that ``worker`` begins to read ``case``."""
        hand = self._hands[worker]
        hand[_HEAD.size : _HEAD.size + len(case)] = case
        hand[: _HEAD.size] = _HEAD.pack(time.monotonic(), target, len(case), again)

    def drop(self, worker: int) -> None:
        """Say that it is done with it."""
        self._hands[worker][:8] = bytes(8)

    def held(self, worker: int) -> tuple[float, int, bytes, bool] | None:
        """Return since when (``time.monotonic``) a worker reads which target's input, or None where it reads none."""
        hand = self._hands[worker]
        since, target, length, again = _HEAD.unpack(hand[: _HEAD.size])
        return (since, target, hand[_HEAD.size : _HEAD.size + length], bool(again)) if since else None
