"""What travels between a network's layers: a MIL value, and the dimensions of 1 that the network sees around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tlkit.errors import LoadError

Shape: TypeAlias = tuple[int | None, ...]
"""A shape; None is a length that only a run tells."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A value ``name`` of ``shape`` in the program, which the network sees with ``lead`` ones before and ``trail``
    after it.

    A network of rank 5 sees [1, 1, C, 1, 1] where the program has [C]: most operations need not know, so that no
    operation is spent on dimensions of 1.
    """

    name: str
    shape: Shape
    lead: int = 0
    trail: int = 0

    @property
    def logical(self) -> Shape:
        """The shape that the network sees."""
        return (1,) * self.lead + self.shape + (1,) * self.trail

    @property
    def rank(self) -> int:
        """The rank that the network sees."""
        return self.lead + len(self.shape) + self.trail


def product(lengths: Sequence[int | None]) -> int | None:
    """Return the product, None where a length is not known."""
    result = 1
    for length in lengths:
        if length is None:
            return None
        result *= length
    return result


def broadcast(*shapes: Shape) -> Shape:
    """Return what shapes broadcast to; LoadError where they do not."""
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    result: list[int | None] = []
    for lengths in zip(*padded, strict=True):
        known = {length for length in lengths if length not in (1, None)}
        if len(known) > 1:
            told = " and ".join(map(str, shapes))
            raise LoadError(f"shapes {told} do not broadcast", "the network is damaged")
        # An open length beside a known one has to be that one, or 1.
        result.append(known.pop() if known else (None if None in lengths else 1))
    return tuple(result)


def axis_of(axis: int, rank: int) -> int:
    """Return ``axis`` counted from 0; LoadError where there is no such axis."""
    if not -rank <= axis < rank:
        raise LoadError(f"there is no axis {axis} in a rank of {rank}", "the network is damaged")
    return axis % rank


def replaced(shape: Shape, axis: int, length: int | None) -> Shape:
    """Return ``shape`` with another length at ``axis`` (from 0)."""
    return (*shape[:axis], length, *shape[axis + 1 :])
