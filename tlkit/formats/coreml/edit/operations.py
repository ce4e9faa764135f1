"""Operations of a MIL function, made, counted and taken away: what the edits of a program are built from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tlkit.formats.coreml.edit.message import Interface, defined
from tlkit.mil import coreml_proto

_STRING, _INT32 = 2, 23  # MIL's DataType


def fresh(target: Interface, base: str) -> str:
    """Return a name that nothing in the function has: ``base``, or that and a number."""
    taken = defined(target) | set(target.names())
    return next(name for name in (base, *(f"{base}_{count}" for count in range(len(taken)))) if name not in taken)


def uses(body: Any, name: str) -> int:
    """How often ``name`` is used in ``body``, counting it among the outputs; a nested block's use counts."""
    count = list(body.outputs).count(name)
    for operation in body.operations:
        count += sum(item.name == name for given in operation.inputs.values() for item in given.arguments)
        count += sum(uses(inner, name) for inner in operation.blocks)
    return count


def names_in(argument: Any) -> list[str]:
    """Return the values that an operation's argument names."""
    return [item.name for item in argument.arguments if item.WhichOneof("binding") == "name"]


def drop_unused(body: Any, names: Iterable[str]) -> None:
    """Take away the operations that make ``names``, where nothing uses what they make."""
    for name in names:
        if not uses(body, name):
            remove(body, name)


def remove(body: Any, result: str) -> None:
    """Take away the operation that makes ``result``, if ``body`` itself has it."""
    makes = (index for index, operation in enumerate(body.operations) if result in (o.name for o in operation.outputs))
    index = next(makes, None)
    if index is not None:
        del body.operations[index]


def text_constant(name: str, word: str) -> Any:
    """Return the ``const`` operation that defines ``name`` as a string."""
    return _constant(name, text_value(word))


def int_constant(name: str, numbers: Sequence[int]) -> Any:
    """Return the ``const`` operation that defines ``name`` as a vector of int32."""
    value = coreml_proto.module("MIL_pb2").Value()
    value.type.tensorType.dataType = _INT32
    value.type.tensorType.rank = 1
    value.type.tensorType.dimensions.add().constant.size = len(numbers)
    value.immediateValue.tensor.ints.values.extend(numbers)
    return _constant(name, value)


def _constant(name: str, value: Any) -> Any:
    mil = coreml_proto.module("MIL_pb2")
    operation = mil.Operation(type="const", outputs=[mil.NamedValueType(name=name, type=value.type)])
    operation.attributes["name"].CopyFrom(text_value(name))
    operation.attributes["val"].CopyFrom(value)
    return operation


def text_value(word: str) -> Any:
    """Return a MIL string constant."""
    value = coreml_proto.module("MIL_pb2").Value()
    value.type.tensorType.dataType = _STRING
    value.immediateValue.tensor.strings.values.append(word)
    return value
