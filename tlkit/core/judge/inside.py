"""What a side computes inside for one input: every value by name, with the operation that makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.core.convert.capture.cases import Case
from tlkit.core.inspect.places import Origin, place_of, recorded
from tlkit.core.judge.inner import ConstantRange, InnerValue, Inside, measured, room
from tlkit.core.judge.side import Side, paired_inputs
from tlkit.core.judge.sides import OnnxSide, PackageSide, onnx_run, session_of
from tlkit.errors import LoadError, TlkitError, UnavailableError
from tlkit.formats.coreml.open import open_package
from tlkit.host.quiet import quiet
from tlkit.mil.program import Operation, Ref, TensorType, Value
from tlkit.mil.types import DType
from tlkit.ports.images import to_picture

Array = NDArray[Any]


def inside_of(side: Side, case: Case) -> Inside | None:
    """Run ``side`` once, watched; None where its inside cannot be seen (saved outputs, a model without a program)."""
    if isinstance(side, PackageSide):
        return _package(side, case)
    if isinstance(side, OnnxSide):
        return _onnx(side, case)
    from tlkit.core.judge.source import SourceSide  # late: it imports torch

    return _source(side, case) if isinstance(side, SourceSide) else None


def _package(side: PackageSide, case: Case) -> Inside | None:
    given = paired_inputs(case, side.model.inputs, side.text)
    arrays = {
        name: to_picture(port.image.layout, value) if port.image is not None and value.ndim == 3 else value
        for name, (port, value) in given.items()
    }
    try:
        function = side.model.function()
    except TlkitError:
        return None
    constants = _constants(function.block.operations)
    most = room(len(function.block.operations))
    origins = _origins(side)
    found: dict[str, InnerValue] = {}

    def seen(operation: Operation, values: Callable[[], Mapping[str, Array]]) -> bool:
        refs = operands_of(operation, constants)
        held = tuple(_operand_constants(operation, constants))
        origin = place_of(origins, operation.name)
        place = ", ".join(filter(None, origin)) if origin is not None else ""
        for name, array in values().items():
            found[name] = measured(name, operation.name, operation.type, refs, array, most, constants=held, place=place)
        return False

    try:
        with quiet():
            state = side.model.make_state() if side.model.info.states else None
            side.model.watch(arrays, seen, state)
    except UnavailableError:
        return None
    return Inside(found, {spec.name: spec.name for spec in side.model.outputs})


def _origins(side: PackageSide) -> Mapping[str, Origin]:
    """Return which PyTorch module and line each operation comes from, where the package records it."""
    try:
        return recorded(open_package(side.model.path), side.how.function)
    except LoadError:  # a model in a folder, or of another kind
        return {}


def _constants(operations: tuple[Operation, ...]) -> dict[str, Value | None]:
    """Return the values of constants by name, None for those that are computed when the model is loaded."""
    found: dict[str, Value | None] = {}
    for operation in operations:
        if operation.type == "const":
            found[operation.outputs[0].name] = operation.attributes.get("val")
        elif operation.type.startswith("constexpr"):
            found |= dict.fromkeys(item.name for item in operation.outputs)
    return found


def operands_of(operation: Operation, constants: Mapping[str, Any]) -> tuple[str, ...]:
    """The values that an operation, or one inside it, is computed from, but ``constants``."""
    given = [item for name in _in_order(operation) for item in operation.inputs[name]]
    own = [item.name for item in given if isinstance(item, Ref) and item.name not in constants]
    nested = [
        item.name
        for block in operation.blocks
        for inner in block.operations
        for arguments in inner.inputs.values()
        for item in arguments
        if isinstance(item, Ref) and item.name not in constants
    ]
    return tuple(dict.fromkeys([*own, *nested]))


def _in_order(operation: Operation) -> list[str]:
    """The names of an operation's inputs as MIL documents them: that is PyTorch's order too, and a file has none."""
    from tlkit.mil.ops import library  # late: it imports torch

    versions = library().get(operation.type)
    order = list(versions[-1].parameters) if versions else []
    return sorted(operation.inputs, key=lambda name: (order.index(name) if name in order else len(order), name))


_READ = 1 << 22  # elements of a constant operand that are read to say its range


def _operand_constants(operation: Operation, constants: Mapping[str, Value | None]) -> Iterator[ConstantRange]:
    for key, arguments in operation.inputs.items():
        for item in arguments:
            value = constants.get(item.name) if isinstance(item, Ref) else item
            if value is None or not isinstance(value.type, TensorType) or value.type.dtype in _NO_NUMBERS:
                continue
            if not value.type.size or value.type.size > _READ:
                continue
            array = np.asarray(value.numpy())
            if array.dtype.kind != "f":
                continue
            finite = array[np.isfinite(array)].astype(np.float64)
            low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
            yield ConstantRange(key, low, high, finite.size < array.size)


_NO_NUMBERS = (DType.STRING, DType.BOOL)


def _onnx(side: OnnxSide, case: Case) -> Inside | None:
    try:
        import onnx
    except ImportError:
        return None
    model = onnx.load(str(side.path))
    stored = {item.name for item in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type != "ConstantRange"]
    stored |= {name for node in model.graph.node if node.op_type == "ConstantRange" for name in node.output}
    outputs = [item.name for item in model.graph.output]
    names = [name for node in nodes for name in node.output if name]
    known = set(outputs)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    session = session_of(side.path, model.SerializeToString())
    arrays = dict(zip(names, onnx_run(session, names, side.feed(case), side.text), strict=True))
    most, found = room(len(names)), dict[str, InnerValue]()
    for node in nodes:
        refs = tuple(name for name in node.input if name and name not in stored)
        for name in node.output:
            if isinstance(arrays.get(name), np.ndarray):
                found[name] = measured(name, node.name or name, node.op_type, refs, arrays[name], most)
    return Inside(found, {name: name for name in outputs})


def _source(side: Any, case: Case) -> Inside | None:
    from tlkit.core.judge.captured import captured_inside  # late: it imports torch

    inside: Inside | None = captured_inside(side, case)
    return inside
