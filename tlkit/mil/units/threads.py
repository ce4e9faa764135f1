"""Which threads the units' sums are shared out to.

torch's own threads wait actively for a while after each of its operations, and would do so on the processors that the
sums are computed on. So while a function is run by a unit's profile, torch runs on one thread, and the sums on as many
as it had.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import torch

_lock = Lock()
_running = 0
_before = 1
_pools: dict[int, ThreadPoolExecutor] = {}
os.register_at_fork(after_in_child=_pools.clear)  # a child has none of its parent's threads


def threads() -> int:
    """Return on how many threads sums are computed."""
    return _before if _running else torch.get_num_threads()


def apart(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``forward`` with torch on one thread while it runs; calls may run side by side."""

    @functools.wraps(forward)
    def run(*operands: Any) -> Any:
        global _running, _before
        with _lock:
            if not _running:
                _before = torch.get_num_threads()
                torch.set_num_threads(1)
            _running += 1
        try:
            return forward(*operands)
        finally:
            with _lock:
                _running -= 1
                if not _running:
                    torch.set_num_threads(_before)

    return run


def share_out(run: Callable[..., None], tasks: Iterable[tuple[Any, ...]], count: int) -> None:
    """Run tasks on ``count`` threads, this one among them; raise what one of them raised."""
    inference = torch.is_inference_mode_enabled()
    left, guard = iter(tasks), Lock()

    def work() -> None:
        with torch.inference_mode(inference):  # a thread's own setting
            while True:
                with guard:
                    task = next(left, None)
                if task is None:
                    return
                run(*task)

    with _lock:
        if count > 1 and count - 1 not in _pools:
            _pools[count - 1] = ThreadPoolExecutor(count - 1, "sums")
        pool = _pools.get(count - 1)
    others = [pool.submit(work) for _ in range(count - 1)] if pool is not None else []
    try:
        work()
    finally:
        for other in others:
            other.exception()  # none goes on when this returns
    for other in others:
        other.result()
