"""How large the values of a program may become, so that a small file cannot exhaust memory.

A program of 300 bytes can ask for a constant of 2^40 equal elements, or for an endless loop. No value may have more
elements than :data:`FLOOR`, or than the bytes stored in the file and the inputs justify, whichever is more; the values
alive at one time may total :data:`HELD` times that. A loop may run :data:`TURNS` times. All of this is counted before
anything is allocated. ``TLKIT_BUDGET=8`` in the environment allows eight times as much.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tlkit.errors import UsageError

FLOOR = 1 << 23
"""Elements that any value may have: 32 MiB as f32."""

STORED = 32
"""Elements per byte stored in the file: a convolution's outputs are many times larger than its weights."""

SPARING, SPARED = 192, 1 << 28
"""Elements per byte as long as they are no more than these (1 GiB as f32): networks that enlarge pictures have a
megabyte of weights and 256 channels of a million pixels."""

GIVEN = 512
"""Elements per element of an input that the user gave: an image becomes many channels, and may be upscaled."""

DRAWN = 8
"""Elements per element of a random input: the file itself chooses its shape, so it justifies less."""

HELD = 4
"""How many values of the largest size may be alive at one time."""

TURNS = 50_000
"""Iterations of a loop and of the loops nested in it, together."""

VARIABLE = "TLKIT_BUDGET"
"""The environment variable with the factor."""

# Context variables, so that each thread has its own bounds.
_factor: ContextVar[float | None] = ContextVar("factor", default=None)
_drawn: ContextVar[bool] = ContextVar("drawn", default=False)


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
    said = f"{elements:.15g} elements, where the file and its inputs warrant {allowed:.15g}"
    return said, f"if you trust the file, set {VARIABLE}={wanted} in the environment"


def turns() -> float:
    """Return how many iterations a loop may run."""
    return factor() * TURNS


def longer() -> str:
    """Return the hint for a loop that has had all its :func:`turns`."""
    return f"to let it run longer, set {VARIABLE}={math.ceil(10 * factor())} in the environment"
