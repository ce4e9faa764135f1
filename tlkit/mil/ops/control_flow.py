"""Choices, loops and lists. A MIL list is an immutable tuple of tensors: a write makes a new one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tlkit.errors import ExecutionError
from tlkit.host import budget
from tlkit.mil.ops.kit.registry import CARRIERS, Ints, Tensor, Tensors, op
from tlkit.mil.types import DType


@op(exact=True)
def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``a`` where ``cond`` is true, else ``b``, with broadcasting."""
    return torch.where(cond, a, b)


@op(exact=True)
def cond(pred: Any, blocks: Any) -> Any:
    """The first block's results if ``pred``, else the second's."""
    block, captured = blocks[0 if bool(pred) else 1]
    return _results(block(*captured))


@op(exact=True)
def while_loop(loop_vars: Tensors, blocks: Any) -> Any:
    """Repeat the second block while the first gives true; both take the loop's variables, and the second returns new
    ones."""
    (test, test_captured), (body, body_captured) = blocks
    values: Any = tuple(loop_vars)
    with budget.loops() as turn:
        # A block returns a tuple, here of one bool.
        while bool(test(*values, *test_captured)[0]):
            turn()
            values = body(*values, *body_captured)
    return _results(values)


_ENTRY = 8  # elements that a list entry counts as, since every write copies the list


@dataclass(frozen=True)
class TensorList:
    """A list: ``items`` has None where nothing was written yet; ``shape`` is an element's, with a name for a dimension
    that is unknown before the first write."""

    items: tuple[Tensor | None, ...]
    shape: tuple[int | str, ...]
    dtype: torch.dtype
    fixed: bool

    def read(self, index: int) -> Tensor:
        """The element at ``index``: zeros where nothing was written."""
        if not 0 <= index < len(self.items):
            raise ExecutionError(f"index {index} is outside a list of {len(self.items)}")
        item = self.items[index]
        return item if item is not None else self._zeros()

    def write(self, pairs: Sequence[tuple[int, Tensor]]) -> TensorList:
        """A list with these (index, element) pairs written; it grows unless its length is fixed."""
        length = max([len(self.items), *(index + 1 for index, _ in pairs)])
        if (self.fixed and length > len(self.items)) or any(index < 0 for index, _ in pairs):
            raise ExecutionError(f"a write outside a list of {len(self.items)}")
        _refuse_long(length)
        items = list(self.items) + [None] * (length - len(self.items))
        for index, element in pairs:
            items[index] = element
        return replace(self, items=tuple(items))

    def _zeros(self) -> Tensor:
        for item in self.items:
            if item is not None:
                return torch.zeros_like(item)
        known = [d for d in self.shape if isinstance(d, int)]
        if len(known) < len(self.shape):
            raise ExecutionError("a list of elements of unknown shape is read before anything is written to it")
        return torch.zeros(known, dtype=self.dtype)


@op(exact=True)
def make_list(
    elem_shape: Sequence[int | str] = (), init_length: int = 1, dynamic_length: bool = True, dtype: str = "fp32"
) -> Any:
    """A list of ``init_length`` elements of zeros; ``dynamic_length`` lets it grow."""
    shape = elem_shape if isinstance(elem_shape, (tuple, list)) else (elem_shape,)
    _refuse_long(init_length)
    return TensorList((None,) * init_length, tuple(shape), CARRIERS[DType.named(dtype)], not dynamic_length)


@op(exact=True)
def list_length(ls: Any) -> Tensor:
    """The number of elements, int32."""
    return torch.tensor(len(ls.items), dtype=torch.int32)


@op(exact=True)
def list_read(ls: Any, index: int) -> Tensor:
    """The element at ``index``."""
    element: Tensor = ls.read(index)
    return element


@op(exact=True)
def list_write(ls: Any, index: int, value: Tensor) -> Any:
    """The list with ``value`` at ``index``."""
    return ls.write([(index, value)])


@op(exact=True)
def list_gather(ls: Any, indices: Ints) -> Tensor:
    """The elements at ``indices``, stacked along a new first dimension."""
    return torch.stack([ls.read(index) for index in indices])


@op(exact=True)
def list_scatter(ls: Any, indices: Ints, value: Tensor) -> Any:
    """The list with the slices of ``value`` at ``indices``."""
    return ls.write(list(zip(indices, value.unbind(0), strict=True)))


def _refuse_long(length: int) -> None:
    said = budget.over(length * _ENTRY)
    if said:
        raise ExecutionError(f"a list of {length} elements is as large as {said[0]}", said[1])


def _results(values: Any) -> Any:
    """An op with one output returns it bare."""
    return values if len(values) > 1 else values[0]
