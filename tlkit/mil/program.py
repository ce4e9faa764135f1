"""A MIL program as immutable Python objects: ``proto.py`` and ``text/`` read it, ``passes/`` change it, ``write.py``
and ``text/`` write it, ``lower/`` makes it runnable.

Invariants, kept by every reader:

* Names are MIL's own, unchanged. A name is defined once in its block and visible in the blocks nested in it.
* An operation's input is a tuple of arguments: one for a plain input, several for a list input (``concat``'s
  ``values``). An argument is a :class:`Ref` to a name or an inline :class:`Value`.
* Constants stay in their file: a :class:`BlobRef` names a record of a weight file, and nothing is copied or decoded
  until :meth:`Value.numpy` is called. A constant that a pass computes is a :class:`Deferred`, computed when it is
  written.
* A dimension is an ``int``, or ``None`` where the program leaves it open.

numpy is imported only when an array is requested, so that reading a program is cheap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from tlkit.errors import LoadError
from tlkit.mil.blob import BlobRef, Deferred
from tlkit.mil.types import DictType, Dim, DType, ListType, StateType, TensorType, TupleType, Type

if TYPE_CHECKING:
    import numpy as np


__all__ = [
    "Argument",
    "BlobRef",
    "Block",
    "DType",
    "Deferred",
    "DictType",
    "Dim",
    "Function",
    "ListType",
    "NamedType",
    "Operation",
    "Program",
    "Ref",
    "StateType",
    "TensorType",
    "TupleType",
    "Type",
    "Value",
    "walk",
]


_LONGEST = 1 << 16  # elements of a parameter that one stored element may fill


@dataclass(frozen=True, slots=True)
class Value:
    """A constant. ``data`` is, for a tensor, a tuple of scalars, packed little-endian bytes, a :class:`BlobRef` or a
    :class:`Deferred`; for a list or tuple, a tuple of values; for a dictionary, a tuple of (key, value) pairs."""

    type: Type
    data: tuple[Any, ...] | bytes | BlobRef | Deferred
    doc: str = ""

    def numpy(self) -> np.ndarray:
        """Return the tensor as an array (read-only where it maps a file), sub-byte integers widened to 8 bits."""
        from tlkit.mil import decode

        return decode.array(self.type, self.data)

    @property
    def filled(self) -> bool:
        """Whether one element fills a large shape: a constant that is small in the file and too large for a
        parameter."""
        size = self.type.size if isinstance(self.type, TensorType) else None
        # A stored byte holds 8 elements at most (uint1): only a size beyond that is one element repeated.
        return isinstance(self.data, tuple | bytes) and (size or 0) > _LONGEST + 8 * len(self.data)

    def python(self) -> Any:
        """Return a small constant as plain Python: a scalar for rank 0, otherwise a (nested) list."""
        if isinstance(self.type, TensorType):
            # The two most common forms are handled without importing numpy.
            if isinstance(self.data, tuple) and self.type.shape == () and len(self.data) == 1:
                return self.data[0]
            if isinstance(self.data, tuple) and self.type.shape == (len(self.data),):
                return list(self.data)
            if self.filled:
                raise LoadError(f"a parameter of {self.type.size} equal elements", "the model file is damaged")
            return self.numpy().tolist()
        if isinstance(self.type, DictType) and isinstance(self.data, tuple):
            return {key.python(): value.python() for key, value in self.data}
        if isinstance(self.data, tuple):
            return [item.python() for item in self.data]
        raise LoadError(f"a {type(self.type).__name__} constant cannot live in a weight file")


@dataclass(frozen=True, slots=True)
class Ref:
    """An argument that refers by name to a value defined earlier."""

    name: str


Argument: TypeAlias = Ref | Value


@dataclass(frozen=True, slots=True)
class NamedType:
    """A name and its type: a block's or function's input, an operation's output."""

    name: str
    type: Type


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. ``attributes`` holds what is not an input: ``name``, a ``const``'s ``val``, all of iOS16's
    constexpr."""

    type: str
    inputs: Mapping[str, tuple[Argument, ...]]
    outputs: tuple[NamedType, ...]
    attributes: Mapping[str, Value] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()

    @property
    def name(self) -> str:
        """The operation's own name: the ``name`` attribute if it has one, else its first output's."""
        value = self.attributes.get("name")
        if value is not None and isinstance(value.data, tuple) and value.data:
            return str(value.data[0])
        return self.outputs[0].name if self.outputs else self.type


@dataclass(frozen=True, slots=True)
class Block:
    """A sequence of operations, and the names of its results."""

    inputs: tuple[NamedType, ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    attributes: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Function:
    """A function: typed inputs and one block per opset that it is specialised to; ``opset`` names the active one."""

    inputs: tuple[NamedType, ...]
    opset: str
    specializations: Mapping[str, Block]
    attributes: Mapping[str, Value] = field(default_factory=dict)

    @property
    def block(self) -> Block:
        """The body for the active opset."""
        body = self.specializations.get(self.opset)
        if body is None:
            raise LoadError(f"the function names opset '{self.opset}' but has no body for it")
        return body


@dataclass(frozen=True, slots=True)
class Program:
    """A whole program: its functions by name, and attributes (build information)."""

    functions: Mapping[str, Function]
    version: int = 1
    attributes: Mapping[str, Value] = field(default_factory=dict)
    doc: str = ""

    def function(self, name: str | None = None) -> Function:
        """Return the function ``name``; by default ``main``, or the only one. LoadError where there is none."""
        if name is None:
            name = "main" if "main" in self.functions or len(self.functions) != 1 else next(iter(self.functions))
        if name not in self.functions:
            raise LoadError(f"the program has no function '{name}'", f"functions: {', '.join(self.functions)}")
        return self.functions[name]


def walk(operations: Sequence[Operation]) -> Iterator[Operation]:
    """Yield every operation, including those in nested blocks, each before the ones nested in it."""
    stack = [iter(operations)]
    while stack:
        for operation in stack[-1]:
            yield operation
            if operation.blocks:
                # A stack of its own: nesting in a damaged file may exceed Python's recursion limit.
                stack.extend(iter(block.operations) for block in reversed(operation.blocks))
                break
        else:
            stack.pop()
