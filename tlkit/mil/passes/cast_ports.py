"""Change the element types of a function's ports: insert casts at its edges, or remove them where two cancel out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tlkit.errors import UsageError
from tlkit.mil.passes.base import Outcome, Pass
from tlkit.mil.passes.rewrite import (
    change_bodies,
    change_function,
    constant,
    defined,
    drop_unused,
    fresh,
    makers,
    references,
    remove,
    substitute,
    text,
    uses,
)
from tlkit.mil.program import Block, Function, NamedType, Operation, Program, Ref, TensorType, Type
from tlkit.mil.types import DType

TYPES = (DType.FP16, DType.FP32, DType.INT32)
"""The types that a port can have."""


@dataclass(frozen=True)
class CastInput(Pass):
    """Make the input ``port`` of ``function`` take ``dtype``; a cast inside gives the program its old type."""

    function: str
    port: str
    dtype: DType

    def run(self, program: Program) -> Outcome:
        """See :class:`~tlkit.mil.passes.base.Pass`."""
        function = program.function(self.function)
        given = next((item for item in function.inputs if item.name == self.port), None)
        if given is None:
            raise UsageError(
                f"the program has no input '{self.port}'", "the model contradicts itself: convert it again"
            )
        before = _element(given)
        if before is self.dtype:
            return Outcome(program)
        changed = change_function(program, self.function, self._changed)
        return Outcome(changed, (f"input {self.port}: {before.mil} → {self.dtype.mil}",))

    def _changed(self, function: Function) -> Function:
        given = next(item for item in function.inputs if item.name == self.port)
        taken = defined(function)
        made = change_bodies(function, lambda body: _cast_input(body, given, self.dtype, taken))
        inputs = (replace(item, type=_of(item.type, self.dtype)) if item is given else item for item in function.inputs)
        return replace(made, inputs=tuple(inputs))


@dataclass(frozen=True)
class CastOutput(Pass):
    """Make the output ``port`` of ``function`` give ``dtype``: add a final cast, or remove one that did the
    opposite."""

    function: str
    port: str
    dtype: DType

    def run(self, program: Program) -> Outcome:
        """See :class:`~tlkit.mil.passes.base.Pass`."""
        taken = defined(program.function(self.function))

        def changed(function: Function) -> Function:
            return change_bodies(function, lambda body: cast_output(body, self.port, self.dtype, taken))

        made = change_function(program, self.function, changed)
        same = made == program
        return Outcome(made, () if same else (f"output {self.port} → {self.dtype.mil}",))


def cast_output(body: Block, name: str, dtype: DType, taken: set[str]) -> Block:
    """Return ``body`` with its output ``name`` in ``dtype``; ``taken`` are the function's names."""
    made = dict(makers(body))
    if name not in made:
        raise UsageError(f"the output '{name}' is an input passed on", "change the type of the input")
    operation, item = made[name]
    before = _element(item)
    if before is dtype:
        return body
    source = _source(operation)
    undoes = source in made and _holds(dtype, before) and _is(made[source][1].type, dtype)
    # The cast is the output's only use of its source, so the source itself can become the output.
    if source is not None and undoes and uses(body, name) == 1 and source not in body.outputs:
        return substitute(_without(body, operation), {source: name})
    inside = fresh(taken, f"{name}_as_{before.mil}")
    inner = substitute(body, {name: inside})
    outputs = tuple(name if output == inside else output for output in inner.outputs)
    cast = _cast(taken | {inside}, inside, name, item.type, dtype)
    return replace(inner, outputs=outputs, operations=(*inner.operations, *cast))


def _cast_input(body: Block, given: NamedType, dtype: DType, taken: set[str]) -> Block:
    name, before = given.name, _element(given)
    if name in body.outputs:
        raise UsageError(f"'{name}' is both an input and an output", "convert the model again with the other type")
    inside = fresh(taken, f"{name}_as_{before.mil}")
    body = substitute(body, {name: inside})
    # Where the program itself casts the port to the new type, that cast is replaced by the port.
    for operation in body.operations:
        if _holds(dtype, before) and _source(operation) == inside and _is(operation.outputs[0].type, dtype):
            # The result is a port too, and cannot take the input's name.
            if operation.outputs[0].name in body.outputs:
                body = _as_identity(body, operation, name)
            else:
                body = substitute(_without(body, operation), {operation.outputs[0].name: name})
    if not uses(body, inside):
        return body
    cast = _cast(taken | {inside}, name, inside, given.type, before)
    return replace(body, operations=(*cast, *body.operations))


def _element(item: NamedType) -> DType:
    if not isinstance(item.type, TensorType) or item.type.dtype not in TYPES:
        raise UsageError(
            f"'{item.name}' has a type that tlkit does not change",
            f"it changes {', '.join(dtype.numpy_like for dtype in TYPES)}",
        )
    return item.type.dtype


def _is(kind: Type, dtype: DType) -> bool:
    return isinstance(kind, TensorType) and kind.dtype is dtype


def _of(kind: Any, dtype: DType) -> TensorType:
    made: TensorType = replace(kind, dtype=dtype)
    return made


def _holds(narrow: DType, wide: DType) -> bool:
    """Whether a value of the first type survives a round trip through the second."""
    return (narrow, wide) == (DType.FP16, DType.FP32)


def _source(operation: Operation) -> str | None:
    """Return the name of a cast's operand, None for another operation."""
    given = operation.inputs.get("x", ())
    if operation.type != "cast" or len(given) != 1 or not isinstance(given[0], Ref):
        return None
    return given[0].name


def _without(body: Block, cast: Operation) -> Block:
    """Remove a cast, and the constant that names its type if nothing else uses it."""
    return drop_unused(remove(body, cast.outputs[0].name), references(cast.inputs["dtype"]))


def _as_identity(body: Block, cast: Operation, source: str) -> Block:
    identity = replace(cast, type="identity", inputs={"x": (Ref(source),)})
    return replace(body, operations=tuple(identity if i.outputs == cast.outputs else i for i in body.operations))


def _cast(taken: set[str], source: str, result: str, kind: Type, dtype: DType) -> tuple[Operation, Operation]:
    """Return the operations that cast ``source`` to ``result``, of type ``dtype`` and ``kind``'s shape."""
    word = fresh(taken, f"{result}_dtype")
    inputs = {"x": (Ref(source),), "dtype": (Ref(word),)}
    output = NamedType(result, _of(kind, dtype))
    return constant(word, text(dtype.mil)), Operation("cast", inputs, (output,), {"name": text(f"{result}_cast")})
