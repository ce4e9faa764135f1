"""The shapes that a port takes, in the description and in the program's own types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tlkit.errors import UsageError
from tlkit.formats.coreml.edit.message import Interface, every_block
from tlkit.formats.coreml.edit.operations import drop_unused, fresh, int_constant, names_in

Shape = tuple[int, ...]
Range = tuple[int, int | None]
MOST_SHAPES = 128
"""How many shapes Core ML lets a port enumerate."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """What a port is to take: ``default`` alone, or also what lies in ``ranges`` (one an axis), or ``enumerated``."""

    default: Shape
    ranges: tuple[Range, ...] = ()
    enumerated: tuple[Shape, ...] = ()

    def all(self, axis: int) -> set[int | None]:
        """Return the lengths that an axis may have; None among them where they are too many to list."""
        if self.ranges:
            low, high = self.ranges[axis]
            return {low} if low == high else {None}
        return {shape[axis] for shape in (self.default, *self.enumerated)}


def program_shape(target: Interface, name: str) -> tuple[int | None, ...]:
    """Return the shape that the program declares for its input ``name``, None where it leaves a length open."""
    for item in target.function.inputs if target.function is not None else ():
        if item.name == name and item.type.WhichOneof("type") == "tensorType":
            return tuple(_length(dimension) for dimension in item.type.tensorType.dimensions)
    raise UsageError(f"the program has no tensor input '{name}'", "shapes can be changed for arrays and images")


def fixed_elsewhere(target: Interface, name: str, shapes: Shapes) -> int | None:
    """Return the first axis that the program fixes at another length than ``shapes`` wants, None if there is none."""
    declared = program_shape(target, name)
    if len(declared) != len(shapes.default):
        ranks = f"{len(declared)} axes, not {len(shapes.default)}"
        raise UsageError(f"the input '{name}' has {ranks}", "the number of axes stays as it is")
    wrong = (axis for axis, length in enumerate(declared) if length is not None and shapes.all(axis) != {length})
    return next(wrong, None)


def describe_shapes(feature: Any, shapes: Shapes) -> None:
    """Write ``shapes`` into the description of an array or an image (whose shape is 1, channels, height, width)."""
    which = feature.type.WhichOneof("Type")
    if which == "imageType":
        _describe_image(feature.type.imageType, shapes)
        return
    if which != "multiArrayType":
        raise UsageError(f"'{feature.name}' has no shape", "shapes can be changed for arrays and images")
    message = feature.type.multiArrayType
    flexibility = message.WhichOneof("ShapeFlexibility")
    if flexibility:
        message.ClearField(flexibility)
    message.shape[:] = shapes.default
    for low, high in shapes.ranges:
        message.shapeRange.sizeRanges.add(lowerBound=low, upperBound=-1 if high is None else high)
    for shape in shapes.enumerated:
        message.enumeratedShapes.shapes.add(shape=shape)


def declare_shapes(target: Interface, shapes: Mapping[str, Shape]) -> None:
    """Write the shapes of values into the program's types, and into those of the outputs that describe theirs."""
    assert target.function is not None
    items = list(target.function.inputs)
    for body in target.blocks():
        items += [item for block in every_block(body) for operation in block.operations for item in operation.outputs]
    for item in items:
        if item.name in shapes and item.type.WhichOneof("type") == "tensorType":
            for dimension, length in zip(item.type.tensorType.dimensions, shapes[item.name], strict=True):
                dimension.constant.size = length
    for feature in target.description.output:
        array = feature.type.multiArrayType if feature.type.WhichOneof("Type") == "multiArrayType" else None
        if array is not None and array.shape and feature.name in shapes:
            array.shape[:] = shapes[feature.name]


def reshape_to(target: Interface, shapes: Mapping[str, Shape]) -> None:
    """Give reshapes, named by their results, other shapes to make: each a constant of its own."""
    for body in target.blocks():
        replaced = []
        for index in reversed(range(len(body.operations))):  # from the end, since each adds a constant before it
            operation = body.operations[index]
            name = operation.outputs[0].name if operation.outputs else ""
            if operation.type == "reshape" and name in shapes:
                constant = int_constant(fresh(target, f"{name}_shape"), shapes[name])
                replaced += names_in(operation.inputs["shape"])
                operation.inputs["shape"].Clear()
                operation.inputs["shape"].arguments.add().name = constant.outputs[0].name
                body.operations.insert(index, constant)
        drop_unused(body, replaced)


def _describe_image(message: Any, shapes: Shapes) -> None:
    flexibility = message.WhichOneof("SizeFlexibility")
    if flexibility:
        message.ClearField(flexibility)
    message.height, message.width = shapes.default[2:]
    for shape in shapes.enumerated:
        message.enumeratedSizes.sizes.add(height=shape[2], width=shape[3])
    if shapes.ranges:
        for field, (low, high) in zip(("heightRange", "widthRange"), shapes.ranges[2:], strict=True):
            getattr(message.imageSizeRange, field).lowerBound = low
            getattr(message.imageSizeRange, field).upperBound = -1 if high is None else high


def _length(dimension: Any) -> int | None:
    return dimension.constant.size if dimension.WhichOneof("dimension") == "constant" else None
