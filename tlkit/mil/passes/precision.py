"""Make an f16 program an f32 one: types, constants and casts; casts at the edges keep the types of its ports.

The weights do not regain the bits that f16 cut off; only the arithmetic no longer rounds to f16.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tlkit.errors import LoadError, UsageError
from tlkit.mil import immediate
from tlkit.mil.immediate import Data
from tlkit.mil.passes.base import Outcome, Pass, run_passes
from tlkit.mil.passes.cast_ports import CastInput, CastOutput
from tlkit.mil.passes.rewrite import change_bodies, change_operations, change_values, makers
from tlkit.mil.program import (
    BlobRef,
    Block,
    Deferred,
    DictType,
    Function,
    ListType,
    NamedType,
    Operation,
    Program,
    StateType,
    TensorType,
    TupleType,
    Type,
    Value,
    walk,
)
from tlkit.mil.types import DType


def is_half(program: Program) -> bool:
    """Whether any operation of ``program`` has an f16 result."""
    bodies = [body for function in program.functions.values() for body in function.specializations.values()]
    kinds = (item.type for body in bodies for operation in walk(body.operations) for item in operation.outputs)
    return any(isinstance(kind, TensorType) and kind.dtype is DType.FP16 for kind in kinds)


@dataclass(frozen=True)
class Widen(Pass):
    """Make every function compute in f32; UsageError where one has an f16 state, since states have no other type."""

    def run(self, program: Program) -> Outcome:
        """See :class:`~tlkit.mil.passes.base.Pass`."""
        if not is_half(program):
            return Outcome(program)
        for function in program.functions.values():
            _refuse_half_states(function)
        wide = replace(program, functions={name: _wide_function(item) for name, item in program.functions.items()})
        edges = [edge for name, function in program.functions.items() for edge in _half_edges(name, function)]
        return Outcome(run_passes(wide, edges).program, ("fp16 → fp32",))


def _refuse_half_states(function: Function) -> None:
    for item in function.inputs:
        if isinstance(item.type, StateType) and _is_half(item.type.wrapped):
            raise UsageError(f"the state '{item.name}' has to be f16", "leave the precision as it is")


def _half_edges(name: str, function: Function) -> Iterator[Pass]:
    """Yield the passes that restore the types of the function's f16 ports."""
    for item in function.inputs:
        if _is_half(item.type):
            yield CastInput(name, item.name, DType.FP16)
    outputs = {made: item for body in function.specializations.values() for made, (_, item) in makers(body)}
    for output in function.block.outputs:
        if output in outputs and _is_half(outputs[output].type):
            yield CastOutput(name, output, DType.FP16)


def _is_half(kind: Type) -> bool:
    return isinstance(kind, TensorType) and kind.dtype is DType.FP16


def _wide_function(function: Function) -> Function:
    def body(block: Block) -> Block:
        return change_operations(replace(block, inputs=_wide_named(block.inputs)), _wide_operation)

    return change_bodies(replace(function, inputs=_wide_named(function.inputs)), body)


def _wide_operation(operation: Operation) -> Operation:
    blocks = tuple(replace(block, inputs=_wide_named(block.inputs)) for block in operation.blocks)
    return replace(change_values(operation, _wide_value), outputs=_wide_named(operation.outputs), blocks=blocks)


def _wide_named(items: tuple[NamedType, ...]) -> tuple[NamedType, ...]:
    return tuple(replace(item, type=_wide_type(item.type)) for item in items)


def _wide_type(kind: Type) -> Type:
    if isinstance(kind, TensorType):
        return replace(kind, dtype=DType.FP32) if kind.dtype is DType.FP16 else kind
    if isinstance(kind, ListType):
        return replace(kind, element=_wide_type(kind.element))
    if isinstance(kind, TupleType):
        return TupleType(tuple(map(_wide_type, kind.elements)))
    if isinstance(kind, DictType):
        return DictType(_wide_type(kind.key), _wide_type(kind.value))
    return kind


def _wide_value(name: str, value: Value) -> Value:
    # An operation may be called fp16 too; its name stays.
    if value.type == TensorType(DType.STRING) and value.data == ("fp16",) and name != "name":
        return replace(value, data=("fp32",))  # a cast's target type
    return _wide_numbers(value)


def _wide_numbers(value: Value) -> Value:
    kind, data = value.type, value.data
    if not isinstance(kind, TensorType):
        if isinstance(data, tuple) and not isinstance(kind, DictType):
            data = tuple(map(_wide_numbers, data))
        return replace(value, type=_wide_type(kind), data=data)
    if kind.dtype is DType.FP16:
        return replace(value, type=_wide_type(kind), data=_wide_data(kind, data))
    return value


def _wide_data(kind: TensorType, data: Data | BlobRef | Deferred) -> Data | Deferred:
    if isinstance(data, BlobRef | Deferred):
        return Wide(data)
    packed = immediate.canonical(kind, data)
    if not isinstance(packed, bytes):
        return packed  # no value at all
    numbers = np.frombuffer(packed, "<f2").astype(float).tolist()
    wide: Data = immediate.canonical(TensorType(DType.FP32), tuple(numbers))
    return wide


@dataclass(frozen=True)
class Wide(Deferred):
    """f16 weights, converted to f32."""

    source: BlobRef | Deferred

    def pieces(self) -> Iterator[bytes | memoryview]:
        """See :class:`~tlkit.mil.program.Deferred`."""
        for piece in self._halves():
            yield np.frombuffer(piece, "<f2").astype("<f4").data.cast("B")

    def _halves(self) -> Iterator[bytes | memoryview]:
        if isinstance(self.source, Deferred):
            yield from self.source.pieces()
            return
        if self.source.file is None:
            raise LoadError(f"the weight file '{self.source.file_name}' that the program names is missing")
        record = self.source.file.record(self.source.offset)
        if record.dtype is not DType.FP16:
            where = f"{self.source.file.path}: the record at offset {self.source.offset}"
            raise LoadError(f"{where} is {record.dtype.mil}, not fp16", "the model file is damaged")
        yield from self.source.file.pieces(record)
