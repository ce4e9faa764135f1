"""A neural network as the mlprogram that computes the same: its message and its program, ready to be written."""

from __future__ import annotations

from typing import Any

from tlkit.errors import ConversionError
from tlkit.frontends.network.network import OPSET, NeuralNetwork
from tlkit.mil.opsets import version_of
from tlkit.mil.program import Program, TensorType, walk
from tlkit.mil.types import DType

_FLOATS = (DType.FP64.array_number, 0)  # an mlprogram has no doubles at its ports, and says the type of each


def as_mlprogram(model: Any) -> tuple[Any, Program]:
    """Return ``model``, a neural network, as a ``Model`` message of an mlprogram without one, and the program.

    Ports, labels and metadata stay; ports of doubles become ports of f32, shapes that may vary are fixed at the
    default. ConversionError names the operations that MIL does not have.
    """
    network = NeuralNetwork(model)
    program = network.program()
    refuse_own(program)
    made = type(model)(specificationVersion=version_of(OPSET))
    made.mlProgram.SetInParent()
    made.description.CopyFrom(model.description)
    # An mlprogram cannot be trained on a device.
    del made.description.trainingInput[:]
    for feature, spec in zip(made.description.input, network.inputs, strict=True):
        _settle(feature, network.defaults[spec.name])
    shapes = _outputs(program)
    for feature, spec in zip(made.description.output, network.outputs, strict=True):
        _settle(feature, shapes.get(spec.name))
    return made, program


def refuse_own(program: Program) -> None:
    """Raise ConversionError with the operations of a program that MIL does not have."""
    own = sorted({item.type for item in walk(program.function().block.operations) if "." in item.type})
    if own:
        said = f"the network needs operations that MIL does not have: {', '.join(own)}"
        raise ConversionError(said, "it runs with `tlkit run`, and cannot become a package")


def _outputs(program: Program) -> dict[str, tuple[int, ...]]:
    """Return the shapes of those outputs that are tensors of a known shape."""
    block = program.function().block
    made = {item.name: item.type for operation in block.operations for item in operation.outputs}
    kinds = {name: made[name] for name in block.outputs if name in made}
    return {
        name: tuple(int(length or 0) for length in kind.shape)
        for name, kind in kinds.items()
        if isinstance(kind, TensorType) and kind.shape is not None and None not in kind.shape
    }


def _settle(feature: Any, shape: tuple[int, ...] | None) -> None:
    """Give a port of arrays the one shape that the program has, and a type that an mlprogram may have."""
    if feature.type.WhichOneof("Type") == "imageType":
        _fix(feature.type.imageType, "SizeFlexibility")
        return
    if feature.type.WhichOneof("Type") != "multiArrayType" or shape is None:
        return
    array = feature.type.multiArrayType
    if array.dataType in _FLOATS:
        array.dataType = DType.FP32.array_number
    del array.shape[:]
    array.shape.extend(shape)
    _fix(array, "ShapeFlexibility")
    if array.HasField("doubleDefaultValue"):
        array.floatDefaultValue = array.doubleDefaultValue  # the two are one field


def _fix(message: Any, oneof: str) -> None:
    which = message.WhichOneof(oneof)
    if which:
        message.ClearField(which)
