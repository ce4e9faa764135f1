"""Store what expands compressed weights without waste: what converters put beside the weights is most of a small one.

A record of a weight file takes 64 bytes more than its data and begins at a multiple of 64, so that a palette of 16
entries takes 128 bytes there and 32 in the program, where Core ML reads short constants anyway. A vector of equal zero
points says no more than one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tlkit.mil import immediate
from tlkit.mil.passes.base import Outcome, Pass
from tlkit.mil.passes.rewrite import change_bodies, change_operations, references
from tlkit.mil.program import BlobRef, Block, Operation, Program, TensorType, Value, walk
from tlkit.mil.types import DType

_SHORT = 128
"""Bytes of a constant up to which the program is the smaller place."""
_HALVES = (DType.FP16, DType.INT8, DType.UINT8)
"""Types of scales, palettes, zero points; they are bytes in a program as in a weight file."""


@dataclass(frozen=True)
class Lean(Pass):
    """Shorten the constants of ``constexpr_`` operations: one zero point where all are equal, short ones inline."""

    def run(self, program: Program) -> Outcome:
        """See :class:`~tlkit.mil.passes.base.Pass`."""
        functions = {
            name: change_bodies(function, lambda body: change_operations(body, _changer(body)))
            for name, function in program.functions.items()
        }
        changed = any(functions[name] != function for name, function in program.functions.items())
        if not changed:
            return Outcome(program)
        return Outcome(replace(program, functions=functions), ("what expands weights is stored shorter",))


class _changer:
    """Changes the operations of ``body`` that expand weights, and constants that only those take."""

    def __init__(self, body: Block) -> None:
        takers: dict[str, set[bool]] = {}
        for operation in walk(body.operations):
            expands = operation.type.startswith("constexpr_")
            for given in operation.inputs.values():
                for name in references(given):
                    takers.setdefault(name, set()).add(expands)
            for block in operation.blocks:
                for name in block.outputs:
                    takers.setdefault(name, set()).add(False)
        self._own = {name for name, found in takers.items() if found == {True}} - set(body.outputs)

    def __call__(self, operation: Operation) -> Operation:
        if operation.type == "const" and operation.outputs[0].name in self._own:
            return _changed(operation, {name: _inline(value) for name, value in operation.attributes.items()})
        if not operation.type.startswith("constexpr_"):
            return operation
        values = dict(operation.attributes)
        if operation.type == "constexpr_affine_dequantize" and "zero_point" in values:
            values["zero_point"] = _one(values["zero_point"])
        return _changed(operation, {name: _inline(value) for name, value in values.items()})


def _changed(operation: Operation, values: Mapping[str, Value]) -> Operation:
    same = all(values[name] is value for name, value in operation.attributes.items())
    return operation if same else replace(operation, attributes=dict(values))


def _one(value: Value) -> Value:
    """Return a scalar for a vector of equal elements."""
    kind = value.type
    if not isinstance(kind, TensorType) or kind.dtype not in _HALVES or not kind.shape or not kind.size:
        return value
    found = value.numpy()
    if not np.array_equal(found, np.broadcast_to(found.flat[0], found.shape)):
        return value
    return Value(replace(kind, shape=()), immediate.canonical(kind, found.reshape(-1)[:1].tobytes()), value.doc)


def _inline(value: Value) -> Value:
    kind = value.type
    if not isinstance(value.data, BlobRef) or not isinstance(kind, TensorType) or kind.dtype not in _HALVES:
        return value
    if kind.size is None or kind.size * kind.dtype.bits > 8 * _SHORT:
        return value
    data = np.ascontiguousarray(value.numpy()).tobytes()
    return Value(kind, immediate.canonical(kind, data), value.doc)
