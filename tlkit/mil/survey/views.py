"""Which values are only another look at memory that is there already, as PyTorch would have it.

Strides are in elements. A reshape is a look if the new shape's strides can be told from the old ones (PyTorch's
``computeStride``), and a copy otherwise; a transpose and a slice always are looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tlkit.mil.program import Operation, Ref, Value

Strides = tuple[int, ...]
Known = Callable[[str], Value | None]
"""Gives the constant of a name, None for what is not one."""

RESHAPES = frozenset(("reshape", "expand_dims", "squeeze", "flatten2d", "reshape_like"))
LOOKS = RESHAPES | {"transpose", "slice_by_index", "slice_by_size", "split", "identity"}
"""Operations whose results may be looks at their ``x``."""


def in_order(shape: Sequence[int]) -> Strides:
    """Return the strides of a tensor that lies in memory in order."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def look(
    operation: Operation, shape: Sequence[int], strides: Strides, made: Sequence[int], constant: Known
) -> Strides | None:
    """Return the strides of a result of shape ``made`` that looks at an ``x`` of ``shape`` and ``strides``; None where
    it has to be a copy."""
    kind = operation.type
    if kind in RESHAPES:
        return reshaped(shape, strides, made)
    if kind == "transpose":
        order = _setting(operation, "perm", constant)
        return tuple(strides[axis] for axis in order) if _is_order(order, len(shape)) else in_order(made)
    if kind == "slice_by_index":
        return _sliced(operation, strides, len(made), constant)
    return strides if len(made) == len(shape) else in_order(made)


def reshaped(shape: Sequence[int], strides: Strides, made: Sequence[int]) -> Strides | None:
    """Return the strides that make a tensor of shape ``made`` of one of ``shape``; None where there are none."""
    if not shape or not math.prod(shape):
        return in_order(made)
    found, place = [0] * len(made), len(made) - 1
    base, given, taken = strides[-1], 1, 1
    for axis in range(len(shape) - 1, -1, -1):
        given *= shape[axis]
        # A run of axes that lie one in the other ends where the next stride does not follow from them.
        if axis and (shape[axis - 1] == 1 or strides[axis - 1] == given * base):
            continue
        while place >= 0 and (taken < given or made[place] == 1):
            found[place] = taken * base
            taken *= made[place]
            place -= 1
        if taken != given:
            return None
        if axis:
            base, given, taken = strides[axis - 1], 1, 1
    return tuple(found) if place < 0 else None


def _sliced(operation: Operation, strides: Strides, rank: int, constant: Known) -> Strides:
    steps = _setting(operation, "stride", constant) or [1] * len(strides)
    gone = _setting(operation, "squeeze_mask", constant) or [False] * len(strides)
    if len(steps) != len(strides) or len(gone) != len(strides):
        return (1,) * rank
    kept = tuple(stride * int(step) for stride, step, out in zip(strides, steps, gone, strict=True) if not out)
    return kept if len(kept) == rank else (1,) * rank


def _setting(operation: Operation, name: str, constant: Known) -> Any:
    arguments = operation.inputs.get(name, ())
    if not arguments:
        return None
    value = constant(arguments[0].name) if isinstance(arguments[0], Ref) else arguments[0]
    if value is None or not isinstance(value.data, tuple | bytes):
        return None
    found = value.python()
    return found if isinstance(found, list) else [found]


def _is_order(order: Any, rank: int) -> bool:
    return isinstance(order, list) and sorted(axis % rank for axis in order) == list(range(rank)) if rank else False
