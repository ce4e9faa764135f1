"""What a device can do at most, measured: multiply-accumulates in a second, and bytes read and written in a second.

An operation that takes little longer than its arithmetic would at that rate is bound by arithmetic; one that takes
little longer than its bytes would, by memory; one that takes much longer than both, by its own overhead (the call,
rearranging, too little work for all cores). (Williams, Waterman and Patterson 2009, "Roofline".)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from time import perf_counter_ns
from typing import Any

import torch

from tlkit.engines.torch.device import synchronizer

_SIDE = {"cpu": 1024}  # of the matrices that are multiplied; on other devices 4096
_BYTES = {"cpu": 1 << 27}  # of the array that is copied, larger than any cache; elsewhere 1 GiB
_TAKES = 3
_OVERHEAD = 10.0
"""How many times longer than its arithmetic and its bytes an operation takes that is bound by neither."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """The most that a device did: billions of multiply-accumulates (f32) and of bytes in a second."""

    gmacs_per_s: float
    gb_per_s: float

    def bound(self, nanoseconds: float, macs: int, nbytes: int) -> str:
        """Return what bounds an operation: ``arithmetic``, ``memory`` or ``overhead``."""
        by_macs, by_bytes = macs / self.gmacs_per_s, nbytes / self.gb_per_s  # in nanoseconds
        if nanoseconds > _OVERHEAD * max(by_macs, by_bytes):
            return "overhead"
        return "arithmetic" if by_macs >= by_bytes else "memory"


@cache
def roofline(device: torch.device) -> Roofline:
    """Measure ``device``, once per process: the best of a few matrix products, and of a few copies."""
    side = _SIDE.get(device.type, 4096)
    left = torch.ones(side, side, device=device)
    size = _BYTES.get(device.type, 1 << 30) // 4
    source, goal = torch.ones(size, device=device), torch.empty(size, device=device)
    with torch.inference_mode():
        product = _best(lambda: left @ left, device)
        copy = _best(lambda: goal.copy_(source), device)
    return Roofline(side**3 / product, 2 * 4 * size / copy)


def _best(call: Callable[[], Any], device: torch.device) -> float:
    """Return the shortest of a few takes, in nanoseconds, after one that is not counted."""
    wait, times = synchronizer(device), []
    for _ in range(_TAKES + 1):
        start = perf_counter_ns()
        call()
        wait()
        times.append(perf_counter_ns() - start)
    return float(max(min(times[1:]), 1))
