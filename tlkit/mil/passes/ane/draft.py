"""A block being rewritten: what its values are, and the operations that were emitted so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tlkit.mil.passes.base import Outcome
from tlkit.mil.passes.rewrite import change_bodies, change_function, constant, defined, fresh, text, vector
from tlkit.mil.program import (
    Argument,
    Block,
    Deferred,
    Function,
    NamedType,
    Operation,
    Program,
    Ref,
    TensorType,
    Value,
    walk,
)
from tlkit.mil.types import DType

Shape = tuple[int, ...]
_ROWS = 1 << 20  # elements of a permuted constant that are made at a time
_EFFECTS = frozenset(("write_state", "coreml_update_state"))


@dataclass(frozen=True)
class Permuted(Deferred):
    """The elements of ``source`` with its axes in another order: result axis i is source axis ``perm[i]``."""

    source: Value
    perm: tuple[int, ...]

    def pieces(self) -> Iterator[bytes | memoryview]:
        """See :class:`~tlkit.mil.program.Deferred`."""
        array = self.source.numpy().transpose(self.perm)
        step = max(1, _ROWS * len(array) // max(1, array.size))
        for start in range(0, len(array), step):
            yield array[start : start + step].tobytes()


class Draft:
    """The operations that replace a block's, in order; ``taken`` are the names that the function has used."""

    def __init__(self, block: Block, inputs: Sequence[NamedType], taken: set[str]) -> None:
        self.operations: list[Operation] = []
        self.kinds = {item.name: item.type for item in (*inputs, *block.inputs)}
        self.constants: dict[str, Value] = {}
        self._taken = taken
        self._block = block

    def emit(self, operation: Operation) -> None:
        """Add an operation as it is."""
        self.operations.append(operation)
        self.know(operation)

    def know(self, operation: Operation) -> None:
        """Remember the types of an operation's results, and a constant's value."""
        self.kinds |= {item.name: item.type for item in operation.outputs}
        if operation.type == "const" and "val" in operation.attributes:
            self.constants[operation.outputs[0].name] = operation.attributes["val"]

    def shape(self, name: str) -> Shape | None:
        """The fixed shape of a value; None where a dimension is open, or it is not a tensor."""
        kind = self.kinds.get(name)
        if not isinstance(kind, TensorType) or kind.shape is None or None in kind.shape:
            return None
        return tuple(size or 0 for size in kind.shape)

    def dtype(self, name: str) -> DType | None:
        """The element type of a tensor."""
        kind = self.kinds.get(name)
        return kind.dtype if isinstance(kind, TensorType) else None

    def name(self, base: str) -> str:
        """Return a new name like ``base``."""
        made = fresh(self._taken, base)
        self._taken.add(made)
        return made

    def constant(self, base: str, value: Value) -> str:
        """Add a constant; return its name."""
        name = self.name(base)
        self.emit(constant(name, value))
        return name

    def add(self, op: str, result: str, shape: Shape, like: str, /, **inputs: str | bool | int | Sequence[int]) -> str:
        """Add an operation with one result of ``like``'s element type.

        Its inputs are names of values; flags, numbers and lists of numbers become constants. Returns ``result``.
        """
        given: dict[str, tuple[Argument, ...]] = {}
        for key, item in inputs.items():
            name = item if isinstance(item, str) else self.constant(f"{result}_{key}", _value(item))
            given[key] = (Ref(name),)
        kind = self.kinds[like]
        assert isinstance(kind, TensorType)
        made = Operation(op, given, (NamedType(result, replace(kind, shape=shape)),), {"name": text(result)})
        self.emit(made)
        return result

    def permuted(self, name: str, perm: tuple[int, ...], shape: Shape) -> str:
        """Add a constant's elements in another order and shape; return the new constant."""
        value = self.constants[name]
        assert isinstance(value.type, TensorType)
        data = value.data if perm == tuple(range(len(perm))) else Permuted(value, perm)
        return self.constant(f"{name}_ane", Value(replace(value.type, shape=shape), data))

    def flag(self, operation: Operation, name: str, default: Any = None) -> Any:
        """Return a constant input as plain Python."""
        given = operation.inputs.get(name)
        if not given:
            return default
        first = given[0]
        value = self.constants.get(first.name) if isinstance(first, Ref) else first
        return default if value is None else value.python()

    def block(self) -> Block:
        """The block with the new operations, without those that nothing uses."""
        return prune(replace(self._block, operations=tuple(self.operations)))


def _value(item: bool | int | Sequence[int]) -> Value:
    if isinstance(item, bool):
        return Value(TensorType(DType.BOOL), (item,))
    return Value(TensorType(DType.INT32), (item,)) if isinstance(item, int) else vector(item)


def argument(operation: Operation, name: str) -> str | None:
    """Return the name of the value that an input refers to; None for an inline value, a list or an absent input."""
    given = operation.inputs.get(name, ())
    return given[0].name if len(given) == 1 and isinstance(given[0], Ref) else None


def prune(block: Block) -> Block:
    """Return ``block`` without the operations whose results nothing uses."""
    used = set(block.outputs)
    kept: list[Operation] = []
    for operation in reversed(block.operations):
        if operation.type in _EFFECTS or any(item.name in used for item in operation.outputs):
            kept.append(operation)
            for inner in walk((operation,)):
                used |= {item.name for given in inner.inputs.values() for item in given if isinstance(item, Ref)}
                used |= {name for body in inner.blocks for name in body.outputs}
    return replace(block, operations=tuple(reversed(kept)))


def rewritten(
    program: Program, name: str, change: Callable[[Block, Function, set[str]], tuple[Block, int]], told: str
) -> Outcome:
    """Return ``program`` with each body of function ``name`` changed; ``told`` has ``{}`` for how many changes."""
    taken, total = defined(program.function(name)), 0

    def function(item: Function) -> Function:
        def body(block: Block) -> Block:
            nonlocal total
            made, count = change(block, item, taken)
            total += count
            return made if count else block

        return change_bodies(item, body)

    changed = change_function(program, name, function)
    return Outcome(changed, (told.format(total),)) if total else Outcome(program)


Rewrites = Mapping[str, Callable[[Draft, Operation], bool]]


def each(block: Block, function: Function, taken: set[str], rewrites: Rewrites) -> tuple[Block, int]:
    """Rewrite operations one at a time: by type, a function that emits other operations, or says that it did not."""
    draft, count = Draft(block, function.inputs, taken), 0
    for operation in block.operations:
        change = rewrites.get(operation.type)
        if change is not None and change(draft, operation):
            draft.know(operation)
            count += 1
        else:
            draft.emit(operation)
    return draft.block(), count
