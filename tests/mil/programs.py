"""Small MIL programs written by hand, for tests of what reads and lowers them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tlkit.mil.program import Argument, Block, Function, NamedType, Operation, Ref, TensorType, Type, Value
from tlkit.mil.types import DType


def tensor(dtype: str, *shape: int | None) -> TensorType:
    return TensorType(DType.named(dtype), shape)


def constant(name: str, array: Any, dtype: str) -> Operation:
    kind = DType.named(dtype)
    values = np.asarray(array)
    data = tuple(values.reshape(-1).tolist())
    value = Value(TensorType(kind, values.shape), data)
    return Operation("const", {}, (NamedType(name, value.type),), {"val": value})


def call(type_: str, out: str, kind: Type, *, blocks: tuple[Block, ...] = (), **inputs: str | Argument) -> Operation:
    arguments = {name: (Ref(item) if isinstance(item, str) else item,) for name, item in inputs.items()}
    return Operation(type_, arguments, (NamedType(out, kind),), {}, blocks)


def function(
    inputs: dict[str, Type], operations: list[Operation], outputs: list[str], opset: str = "CoreML7"
) -> Function:
    named = tuple(NamedType(name, kind) for name, kind in inputs.items())
    return Function(named, opset, {opset: Block((), tuple(outputs), tuple(operations))})
