"""The inside of a model as values by name, kept so that a large model's fits into memory.

Of each value evenly taken elements are kept, and figures of all of them, so that one watched run is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.core.compare.difference import snr_db
from tlkit.core.convert.tools.kit.reading import plain_name

Array = NDArray[Any]
BUDGET = 1 << 28
"""Bytes of elements that the inside of one side may keep."""
_MOST, _LEAST = 1 << 16, 1 << 10


@dataclass(frozen=True, slots=True)
class ConstantRange:
    """A constant operand: the largest magnitude of its finite elements, their range, whether others are infinite."""

    name: str
    low: float
    high: float
    infinite: bool


@dataclass(frozen=True, slots=True)
class InnerValue:
    """One value: its name, the operation's name and type, the names of the values that the operation takes.

    ``taken`` are evenly taken elements in the value's own order; ``low``, ``high`` and ``largest`` are of all finite
    elements, ``nan`` and ``inf`` count the others. ``place`` is the module and line of a PyTorch operation.
    """

    name: str
    operation: str
    type: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    kind: str
    taken: Array
    low: float
    high: float
    nan: int
    inf: int
    constants: tuple[ConstantRange, ...] = ()
    place: str = ""

    @property
    def plain(self) -> str:
        """The name as the captured graph has it, without what coremltools adds."""
        return plain_name(self.name)

    @property
    def largest(self) -> float:
        """The largest magnitude of the finite elements."""
        return max(abs(self.low), abs(self.high))

    @property
    def finite(self) -> bool:
        """Whether no element is a NaN or an infinity."""
        return not self.nan and not self.inf

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Inside:
    """A side's values in the order in which they were made, and the names of those that are its outputs."""

    values: Mapping[str, InnerValue]
    outputs: Mapping[str, str]


def taken(array: Array, most: int) -> Array:
    """Return at most ``most`` elements, evenly taken: of two arrays of one size those of the same places, or some of
    them."""
    flat = np.ravel(array)
    return np.array(flat[:: _step(flat.size, most)])


def _step(size: int, most: int) -> int:
    """Return the power of two that leaves ``most`` of ``size`` elements: what a large one takes, smaller ones take."""
    step = 1
    while -(-size // step) > most:
        step *= 2
    return step


def measured(
    name: str, operation: str, kind: str, inputs: tuple[str, ...], array: Array, most: int, **more: Any
) -> InnerValue:
    """Return the value ``array`` as an :class:`InnerValue`."""
    floating = array.dtype.kind == "f"
    nan = int(np.isnan(array).sum()) if floating else 0
    inf = int(np.isinf(array).sum()) if floating else 0
    finite = array[np.isfinite(array)] if nan or inf else array
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    found = taken(array, most)
    return InnerValue(name, operation, kind, inputs, array.shape, array.dtype.kind, found, low, high, nan, inf, **more)


def aligned(one: InnerValue, other: InnerValue) -> tuple[Array, Array] | None:
    """Return the elements of both that belong together, in the order of ``one``, in f64; None where that is unknown.

    Converters move transposes, so that one value may have its axes in another order on each side: of one shape, or of
    two. Which order it is, the values say.
    """
    given, found = np.asarray(one.taken, np.float64), np.asarray(other.taken, np.float64)
    if one.size != other.size:
        return None
    few = min(given.size, found.size)
    given, found = given[:: _step(given.size, few)], found[:: _step(found.size, few)]
    shape, wanted = _without_ones(other.shape), _without_ones(one.shape)
    turned = shape != wanted and sorted(shape) == sorted(wanted)
    straight = -np.inf if turned else _alike(given, found)
    if straight >= _ALIKE_DB or len(shape) < 2 or sorted(shape) != sorted(wanted) or len(shape) > _RANK:
        return given, found
    if few != one.size:
        return None if turned else (given, found)
    whole = found.reshape(shape)
    axes = [item for item in permutations(range(len(shape))) if tuple(shape[axis] for axis in item) == wanted]
    best = max((whole.transpose(item).reshape(-1) for item in axes), key=lambda item: _alike(given, item))
    return given, best if turned or _alike(given, best) > straight + _BETTER_DB else found


_ALIKE_DB, _BETTER_DB, _RANK = 26.0, 20.0, 5


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)


def _alike(one: Array, other: Array) -> float:
    both = np.isfinite(one) & np.isfinite(other)
    return snr_db(one[both], other[both]) if both.any() else -np.inf


def room(count: int) -> int:
    """Return how many elements of each of ``count`` values may be kept."""
    return max(_LEAST, min(_MOST, BUDGET // (8 * max(1, count))))
