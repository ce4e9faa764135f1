"""A short trial: which of several ways to run one inference is the fastest on this machine, now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

_ROUNDS = 9
_SECONDS = 1.0
"""What a trial may take, beyond two calls of each."""


def at_once(calls: Sequence[Callable[[], object]]) -> Callable[[], object]:
    """Return a call that makes all of ``calls`` at the same time, each in a thread, and waits for them."""
    if len(calls) == 1:
        return calls[0]
    pool = ThreadPoolExecutor(len(calls))
    return lambda: [running.result() for running in [pool.submit(call) for call in calls]]


def trial(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Return the seconds of each call: the shortest of several, in turns.

    A turn is two calls, of which the first is not timed: threads of the one before wait actively for some milliseconds
    after its call, and hold the processors. Other work on the machine lengthens calls and never shortens them, so the
    shortest says the most.
    """
    for call in calls.values():
        call()
    taken = dict.fromkeys(calls, float("inf"))
    start = perf_counter()
    for _ in range(_ROUNDS):
        for name, call in calls.items():
            call()
            before = perf_counter()
            call()
            taken[name] = min(taken[name], perf_counter() - before)
        if perf_counter() - start > _SECONDS:
            break
    return taken
