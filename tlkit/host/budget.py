"""How much a program may make out of little, so that a small file stays small.

A text of 300 bytes can ask for a constant of 2^40 equal elements, or for a loop without end. No value may have more
elements than :data:`FLOOR`, or than what is stored in the file and what it is run on warrant, whichever is more; what
is held at one time may be :data:`HELD` such values. A loop may turn :data:`TURNS` times. All of that is counted before
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
"""Elements that any program may make: 32 MiB as f32."""

STORED = 32
"""Elements for each byte that the file stores: a convolution's outputs are many times its weights."""

GIVEN = 512
"""Elements for each element of an input that the user gave: a picture becomes many channels, and larger ones."""

DRAWN = 8
"""Elements for each element of an input that was drawn at random, in a shape that the file itself asks for."""

HELD = 4
"""Values of the largest size that may be held at one time."""

TURNS = 50_000
"""Turns of a loop and of those inside it, together."""

VARIABLE = "TLKIT_BUDGET"
"""The environment variable with the factor."""

_factor: ContextVar[float | None] = ContextVar("factor", default=None)
_drawn: ContextVar[bool] = ContextVar("drawn", default=False)


def factor() -> float:
    """Return by how much the budget is multiplied: what the environment says, or infinity where it is lifted."""
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
    """Let the body make what it will: the program comes from the user's own code."""
    token = _factor.set(math.inf)
    try:
        yield
    finally:
        _factor.reset(token)


@contextmanager
def drawn(really: bool = True) -> Iterator[None]:
    """Say that what the body runs a program on was drawn (if ``really``), and is not a reason to make much of it."""
    token = _drawn.set(really)
    try:
        yield
    finally:
        _drawn.reset(token)


def is_drawn() -> bool:
    """Return whether :func:`drawn` holds."""
    return _drawn.get()


def warranted(stored: int = 0, inputs: int = 0) -> float:
    """Return how many elements one value may have, of a file that stores so many bytes, run on so many elements."""
    each = DRAWN if is_drawn() else GIVEN
    return factor() * max(FLOOR, STORED * stored + each * inputs)


def over(elements: float, allowed: float | None = None) -> tuple[str, str] | None:
    """Return what to say of a value of so many elements where ``allowed`` (:func:`warranted` nothing, if left out) are
    fewer, and what to do about it; None for a value that is fine."""
    allowed = warranted() if allowed is None else allowed
    if elements <= allowed:
        return None
    wanted = math.ceil(factor() * elements / allowed)
    said = f"{elements:.15g} elements, where the file and its inputs warrant {allowed:.15g}"
    return said, f"if you trust the file, set {VARIABLE}={wanted} in the environment"


def turns() -> float:
    """Return how many times a loop may turn."""
    return factor() * TURNS
