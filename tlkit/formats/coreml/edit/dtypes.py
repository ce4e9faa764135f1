"""The element types of a function's ports: casts put in at its edges, or taken away where two undo each other."""

from __future__ import annotations

from typing import Any

from tlkit.errors import UsageError
from tlkit.formats.coreml.edit.message import Interface
from tlkit.formats.coreml.edit.names import substitute
from tlkit.formats.coreml.edit.operations import drop_unused, fresh, names_in, remove, text_constant, text_value, uses
from tlkit.mil import coreml_proto

# Numbers of MIL's DataType and of FeatureTypes' ArrayDataType, and MIL's word.
_TYPES = {"float16": (10, 65552, "fp16"), "float32": (11, 65568, "fp32"), "int32": (23, 131104, "int32")}
_NAMES = {numbers[0]: name for name, numbers in _TYPES.items()}


def set_input_dtype(target: Interface, name: str, dtype: str) -> None:
    """Make the input ``name`` take ``dtype``; inside, a cast gives what the program took before."""
    feature = _array_port(target, "input", name)
    inputs = {item.name: item for item in target.function.inputs} if target.function is not None else {}
    if name not in inputs:
        raise UsageError(f"the program has no input '{name}'", "the model contradicts itself: convert it again")
    before = _dtype(inputs[name].type, name)
    if before != dtype:
        for body in target.blocks():
            _cast_input(target, body, inputs[name], dtype)
        inputs[name].type.tensorType.dataType = _TYPES[dtype][0]
    feature.type.multiArrayType.dataType = _TYPES[dtype][1]


def set_output_dtype(target: Interface, name: str, dtype: str) -> None:
    """Make the output ``name`` give ``dtype``: a cast is its last step, unless a cast away from it was."""
    feature = _array_port(target, "output", name)
    for body in target.blocks():
        makers = {item.name: (operation, item) for operation in body.operations for item in operation.outputs}
        if name not in makers:
            raise UsageError(f"the output '{name}' is an input passed on", "change the type of the input")
        operation, item = makers[name]
        before = _dtype(item.type, name)
        if before == dtype:
            continue
        source = _source(operation)
        if source is not None and _holds(dtype, before) and source in makers and uses(body, name) == 1:
            inner = makers[source][1]
            if _is(inner.type, dtype) and source not in body.outputs:
                _drop(body, operation)
                substitute(body, {source: name})
                continue
        inside = fresh(target, f"{name}_as_{_TYPES[before][2]}")
        substitute(body, {name: inside})
        body.outputs[list(body.outputs).index(inside)] = name
        body.operations.extend(_cast(target, inside, name, item.type, dtype))
    feature.type.multiArrayType.dataType = _TYPES[dtype][1]


def _cast_input(target: Interface, body: Any, given: Any, dtype: str) -> None:
    name, before = given.name, _dtype(given.type, given.name)
    if name in body.outputs:
        raise UsageError(f"'{name}' is an input and an output in one", "convert the model again with the other type")
    inside = fresh(target, f"{name}_as_{_TYPES[before][2]}")
    substitute(body, {name: inside})
    for operation in list(body.operations):
        if _holds(dtype, before) and _source(operation) == inside and _is(operation.outputs[0].type, dtype):
            if operation.outputs[0].name in body.outputs:
                _become_identity(operation, name)
            else:
                _drop(body, operation)
                substitute(body, {operation.outputs[0].name: name})
    if uses(body, inside):
        for index, operation in enumerate(_cast(target, name, inside, given.type, before)):
            body.operations.insert(index, operation)


def _array_port(target: Interface, kind: str, name: str) -> Any:
    feature = target.port(kind, name)
    assert feature is not None  # the caller asked for it by a name it found
    which = feature.type.WhichOneof("Type")
    if which != "multiArrayType":
        what = {"imageType": "an image", "dictionaryType": "a dictionary"}.get(which, f"a {which.removesuffix('Type')}")
        raise UsageError(f"the {kind} '{name}' is {what}: its type cannot be changed", "only those of arrays can")
    return feature


def _dtype(kind: Any, name: str) -> str:
    found = _NAMES.get(kind.tensorType.dataType) if kind.WhichOneof("type") == "tensorType" else None
    if found is None:
        raise UsageError(f"'{name}' has a type that tlkit does not change", f"it changes {', '.join(_TYPES)}")
    return found


def _is(kind: Any, dtype: str) -> bool:
    return bool(kind.WhichOneof("type") == "tensorType" and kind.tensorType.dataType == _TYPES[dtype][0])


def _holds(narrow: str, wide: str) -> bool:
    """Whether a value of the first type survives a trip through the second."""
    return (narrow, wide) == ("float16", "float32")


def _source(operation: Any) -> str | None:
    """What a cast casts, None for another operation."""
    if operation.type != "cast" or len(operation.inputs["x"].arguments) != 1:
        return None
    return str(operation.inputs["x"].arguments[0].name)


def _drop(body: Any, operation: Any) -> None:
    """Take a cast away, and the constant that names its type if nothing else uses it."""
    dtypes = names_in(operation.inputs["dtype"])
    remove(body, operation.outputs[0].name)
    drop_unused(body, dtypes)


def _become_identity(operation: Any, source: str) -> None:
    operation.type = "identity"
    del operation.inputs["dtype"]
    operation.inputs["x"].arguments[0].name = source


def _cast(target: Interface, source: str, result: str, kind: Any, dtype: str) -> tuple[Any, Any]:
    """The operations that make ``result``, of ``dtype`` and ``kind``'s shape, out of ``source``."""
    mil = coreml_proto.module("MIL_pb2")
    word = fresh(target, f"{result}_dtype")
    cast = mil.Operation(type="cast", outputs=[mil.NamedValueType(name=result, type=kind)])
    cast.outputs[0].type.tensorType.dataType = _TYPES[dtype][0]
    cast.attributes["name"].CopyFrom(text_value(f"{result}_cast"))
    cast.inputs["x"].arguments.add().name = source
    cast.inputs["dtype"].arguments.add().name = word
    return text_constant(word, _TYPES[dtype][2]), cast
