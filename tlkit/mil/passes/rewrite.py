"""Building blocks of passes: find, rename, create and remove the values and operations of a function.

Nothing here changes its arguments: each function returns a new block or function, which shares what stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from tlkit.errors import UsageError
from tlkit.mil.program import (
    Argument,
    Block,
    Function,
    ListType,
    NamedType,
    Operation,
    Program,
    Ref,
    TensorType,
    Value,
    walk,
)
from tlkit.mil.types import DType


def change_function(program: Program, name: str, change: Callable[[Function], Function]) -> Program:
    """Return ``program`` with its function ``name`` changed; UsageError where it has none of that name."""
    if name not in program.functions:
        raise UsageError(f"the program has no function '{name}'", "the model contradicts itself: convert it again")
    return replace(program, functions={**program.functions, name: change(program.functions[name])})


def change_bodies(function: Function, change: Callable[[Block], Block]) -> Function:
    """Return ``function`` with each of its bodies (one per opset that it is specialised to) changed."""
    return replace(function, specializations={opset: change(body) for opset, body in function.specializations.items()})


def change_operations(block: Block, change: Callable[[Operation], Operation]) -> Block:
    """Return ``block`` with each operation changed, those in nested blocks before the one that contains them."""

    def changed(operation: Operation) -> Operation:
        if operation.blocks:
            inner = tuple(change_operations(item, change) for item in operation.blocks)
            operation = replace(operation, blocks=inner)
        return change(operation)

    return replace(block, operations=tuple(map(changed, block.operations)))


def change_values(operation: Operation, change: Callable[[str, Value], Value]) -> Operation:
    """Return ``operation`` with each of its constants changed; ``change`` gets the input's or attribute's name and
    value."""
    inputs = {
        name: tuple(change(name, item) if isinstance(item, Value) else item for item in given)
        for name, given in operation.inputs.items()
    }
    attributes = {name: change(name, value) for name, value in operation.attributes.items()}
    return replace(operation, inputs=inputs, attributes=attributes)


def defined(function: Function) -> set[str]:
    """Return the names of all values that the function defines, including those in nested blocks."""
    names = {item.name for item in function.inputs}
    for body in function.specializations.values():
        names |= {item.name for item in body.inputs}
        for operation in walk(body.operations):
            names |= {item.name for item in operation.outputs}
            names |= {item.name for block in operation.blocks for item in block.inputs}
    return names


def fresh(taken: set[str], base: str) -> str:
    """Return a name that is not ``taken``: ``base``, or ``base`` with a number."""
    # One candidate more than there are taken names, so one is free.
    return next(name for name in (base, *(f"{base}_{count}" for count in range(len(taken)))) if name not in taken)


def uses(block: Block, name: str) -> int:
    """Return how often ``name`` is used in ``block``, its outputs and its nested blocks."""
    # Counts a nested block's own value of the same name too, which errs on the side of keeping an operation.
    count = block.outputs.count(name)
    for operation in walk(block.operations):
        count += sum(item == Ref(name) for given in operation.inputs.values() for item in given)
        count += sum(inner.outputs.count(name) for inner in operation.blocks)
    return count


def substitute(block: Block, names: Mapping[str, str]) -> Block:
    """Rename values where ``block`` and its nested blocks define and use them; a block's own name hides an outer
    one."""
    operations = tuple(_substituted(operation, names) for operation in block.operations)
    return replace(block, operations=operations, outputs=tuple(names.get(name, name) for name in block.outputs))


def _substituted(operation: Operation, names: Mapping[str, str]) -> Operation:
    def renamed(item: Argument) -> Argument:
        return Ref(names[item.name]) if isinstance(item, Ref) and item.name in names else item

    inner = []
    for block in operation.blocks:
        own = {item.name for item in block.inputs} | {o.name for op in block.operations for o in op.outputs}
        inner.append(substitute(block, {old: new for old, new in names.items() if old not in own}))
    made = replace(
        operation,
        inputs={key: tuple(map(renamed, given)) for key, given in operation.inputs.items()},
        outputs=tuple(replace(item, name=names.get(item.name, item.name)) for item in operation.outputs),
        blocks=tuple(inner),
    )
    return operation if made == operation else made


def references(given: Iterable[Argument]) -> list[str]:
    """Return the names of the values that an operation's argument refers to."""
    return [item.name for item in given if isinstance(item, Ref)]


def drop_unused(block: Block, names: Iterable[str]) -> Block:
    """Remove the operations that make ``names`` if nothing uses their results."""
    for name in names:
        if not uses(block, name):
            block = remove(block, name)
    return block


def remove(block: Block, result: str) -> Block:
    """Remove the operation that makes ``result`` if it is in ``block`` itself."""
    kept = tuple(op for op in block.operations if result not in (item.name for item in op.outputs))
    return replace(block, operations=kept)


def makers(block: Block) -> Iterator[tuple[str, tuple[Operation, NamedType]]]:
    """Yield each value that ``block`` itself makes: its name, its operation and that operation's output."""
    for operation in block.operations:
        yield from ((item.name, (operation, item)) for item in operation.outputs)


def constant(name: str, value: Value) -> Operation:
    """Return the ``const`` operation that defines ``name``."""
    return Operation("const", {}, (NamedType(name, value.type),), {"name": text(name), "val": value})


def text(word: str) -> Value:
    """Return a string constant."""
    return Value(TensorType(DType.STRING), (word,))


def texts(words: Sequence[str]) -> Value:
    """Return a list of strings."""
    return Value(ListType(TensorType(DType.STRING), len(words)), tuple(map(text, words)))


def vector(numbers: Sequence[int]) -> Value:
    """Return a vector of int32."""
    return Value(TensorType(DType.INT32, (len(numbers),)), tuple(numbers))
