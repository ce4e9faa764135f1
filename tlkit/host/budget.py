"""How large the values of a program may become, so that a small file cannot exhaust memory.

A program of 300 bytes can ask for a constant of 2^40 equal elements, or for an endless loop. No value may have more
elements than :data:`FLOOR`, or than the bytes stored in the file and the inputs justify, whichever is more; the values
alive at one time may total :data:`HELD` times that. The loops of one inference may turn :data:`TURNS` times, or take
:data:`SECONDS`. Sizes are counted before anything is allocated. ``TLKIT_BUDGET=8`` in the environment allows eight
times as much.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tlkit.errors import ExecutionError, UsageError

FLOOR = 1 << 23
"""Elements that any value may have: 32 MiB as f32."""

STORED = 32
"""Elements per byte stored in the file: a convolution's outputs are many times larger than its weights."""

SPARING, SPARED = 384, 1 << 28
"""Elements per byte as long as they are no more than these (1 GiB as f32): networks that enlarge pictures have a
megabyte of weights, half of that in f16, and 256 channels of a million pixels."""

GIVEN = 512
"""Elements per element of an input that the user gave: an image becomes many channels, and may be upscaled."""

DRAWN = 8
"""Elements per element of a random input: the file itself chooses its shape, so it justifies less."""

HELD = 4
"""How many values of the largest size may be alive at one time."""

TURNS = 50_000
"""Iterations of all loops of an inference, together."""

SECONDS = 5.0
"""What all loops of an inference may take together, in processor time of the thread that runs them: no other load on
the machine lengthens it."""

_NOWHERE = 1 << 42  # elements; 16 TiB of f32
VARIABLE = "TLKIT_BUDGET"
"""The environment variable with the factor."""

# Context variables, so that each thread has its own bounds.
_factor: ContextVar[float | None] = ContextVar("factor", default=None)
_drawn: ContextVar[bool] = ContextVar("drawn", default=False)
_loops: ContextVar[Loops | None] = ContextVar("loops", default=None)


def factor() -> float:
    """Return the factor of the budget: the environment's, or infinity inside :func:`lifted`. UsageError if not above
    0."""
    lifted = _factor.get()
    if lifted is not None:
        return lifted
    text = os.environ.get(VARIABLE, "1")
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not found > 0:
        raise UsageError(f"{VARIABLE}={text}: not a number above 0", f"{VARIABLE}=8 allows eight times as much")
    return found


@contextmanager
def lifted() -> Iterator[None]:
    """Lift the budget in the body: its program comes from the user's own code."""
    token = _factor.set(math.inf)
    try:
        yield
    finally:
        _factor.reset(token)


@contextmanager
def drawn(really: bool = True) -> Iterator[None]:
    """Mark the inputs in the body as random (if ``really``), so that their size justifies less (:data:`DRAWN`)."""
    token = _drawn.set(really)
    try:
        yield
    finally:
        _drawn.reset(token)


def is_drawn() -> bool:
    """Return whether the caller is inside :func:`drawn`."""
    return _drawn.get()


def warranted(stored: int = 0, inputs: int = 0) -> float:
    """Return how many elements one value may have: ``stored`` bytes in the file, ``inputs`` elements in its inputs."""
    each = DRAWN if is_drawn() else GIVEN
    return factor() * max(FLOOR, STORED * stored + each * inputs, min(SPARING * stored, SPARED))


def over(elements: float, allowed: float | None = None, coming: float = 0) -> tuple[str, str] | None:
    """Return (message, hint) for a value of more than ``allowed`` elements, None for one within it. ``allowed``
    defaults to what any program may have (:func:`warranted` without arguments); the hint is enough for a value of
    ``coming`` elements, too."""
    allowed = warranted() if allowed is None else allowed
    if elements <= allowed:
        return None
    # ``allowed`` contains the current factor, so the factor to suggest is relative to it.
    wanted = math.ceil(factor() * max(elements, coming) / allowed)
    if elements > _NOWHERE:
        return f"{elements:.15g} elements, which no machine holds", "the file is damaged: fetch it again"
    said = f"{elements:.15g} elements, where the file and its inputs warrant {allowed:.15g}"
    return said, f"if you trust the file, set {VARIABLE}={wanted} in the environment"


def turns() -> float:
    """Return how many iterations the loops of an inference may run."""
    return factor() * TURNS


def seconds() -> float:
    """Return how many seconds the loops of an inference may take."""
    return factor() * SECONDS


class Loops:
    """What the loops of one inference may still do. Entered by each loop, those inside others too."""

    def __init__(self) -> None:
        self._turns, self._seconds = turns(), seconds()
        self._depth, self._since = 0, 0.0

    def __enter__(self) -> Callable[[], None]:
        self._since = self._since if self._depth else time.thread_time()
        self._depth += 1
        return self._turn

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._seconds -= time.thread_time() - self._since

    def _turn(self) -> None:
        """Count one iteration; ExecutionError where there were too many, or they took too long."""
        self._turns -= 1
        if self._turns < 0:
            raise ExecutionError(f"a loop has turned {turns():.15g} times and does not end", longer())
        if time.thread_time() - self._since > self._seconds:
            raise ExecutionError(f"a loop has run for {seconds():.15g} s and does not end", longer())


@contextmanager
def inference() -> Iterator[None]:
    """Count the loops in the body together."""
    token = _loops.set(Loops())
    try:
        yield
    finally:
        _loops.reset(token)


def loops() -> Loops:
    """Return what the loops of the inference at hand may still do; of a new one where none is at hand."""
    return _loops.get() or Loops()


def longer() -> str:
    """Return the hint for a loop that has had all its :func:`turns` or :func:`seconds`."""
    return f"to let it run longer, set {VARIABLE}={math.ceil(10 * factor())} in the environment"
