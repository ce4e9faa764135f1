"""Change the ports in a model's description: names, element types, shapes, a classifier's outputs.

The functions change messages that the caller has copied, never the opened model's files. ``tlkit/mil/passes/`` changes
the program behind the ports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlkit.errors import UsageError
from tlkit.mil.program import Function, TensorType
from tlkit.mil.types import DType
from tlkit.types import ImageSpec, TensorSpec

PORTS = ("input", "output", "state")
"""The lists of ports that a description has."""

GRAYSCALE_FLOAT16 = 40
"""A color space, as FeatureTypes.proto numbers it (``ImageFeatureType.ColorSpace``)."""

MOST_SHAPES = 128
"""How many shapes Core ML lets a port enumerate."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One set of ports: the message that lists them and the name of the function behind them.

    ``name`` is the function's name where the description lists several functions, else empty.
    """

    name: str
    function: str
    description: Any

    def port(self, kind: str, name: str) -> Any | None:
        """Return the ``FeatureDescription`` of one port (``kind`` is one of :data:`PORTS`), or None."""
        return next((feature for feature in getattr(self.description, kind) if feature.name == name), None)

    def names(self, *kinds: str) -> tuple[str, ...]:
        """Return the names of the ports of ``kinds`` (default: all), in order."""
        return tuple(feature.name for kind in kinds or PORTS for feature in getattr(self.description, kind))


def interfaces(model: Any) -> tuple[Interface, ...]:
    """Return the ports of each function of ``model``; of one without functions, its ports."""
    if model.description.functions:
        return tuple(Interface(item.name, item.name, item) for item in model.description.functions)
    functions = list(model.mlProgram.functions) if model.WhichOneof("Type") == "mlProgram" else []
    name = "main" if "main" in functions or len(functions) != 1 else functions[0]
    return (Interface("", name, model.description),)


def check_names(targets: Sequence[Interface], names: Mapping[str, str]) -> None:
    """Raise UsageError where ``names`` renames an unknown port, or gives one the name of another port."""
    for old in names:
        if not any(old in target.names() for target in targets):
            known = dict.fromkeys(name for target in targets for name in target.names())
            raise UsageError(f"no input, output or state is named '{old}'", f"they are: {', '.join(known)}")
    for target in targets:
        where = f" of the function '{target.name}'" if target.name else ""
        # Names that are given up are free, so that two ports may swap.
        taken = set(target.names()) - set(names)
        for old, new in names.items():
            if old in target.names():
                if new in taken:
                    problem = f"'{old}' cannot be named '{new}': a port{where} has that name"
                    raise UsageError(problem, "choose another name")
                taken.add(new)


def rename_ports(target: Interface, names: Mapping[str, str]) -> None:
    """Rename the ports that ``names`` maps, all at once, so that two may swap."""
    description = target.description
    for kind in PORTS:
        for feature in getattr(description, kind):
            feature.name = names.get(feature.name, feature.name)
    for field in ("predictedFeatureName", "predictedProbabilitiesName"):
        setattr(description, field, names.get(getattr(description, field), getattr(description, field)))


def describe_dtype(target: Interface, kind: str, name: str, dtype: DType) -> None:
    """Write the element type of a port; UsageError where it is not an array."""
    array_port(target, kind, name).type.multiArrayType.dataType = dtype.array_number


def array_port(target: Interface, kind: str, name: str) -> Any:
    """Return the ``FeatureDescription`` of an array; UsageError where the port is something else."""
    feature = target.port(kind, name)
    assert feature is not None  # the caller asked for it by a name it found
    which = feature.type.WhichOneof("Type")
    if which != "multiArrayType":
        what = {"imageType": "an image", "dictionaryType": "a dictionary", None: "of no type"}.get(which)
        what = what or f"a {which.removesuffix('Type')}"
        raise UsageError(f"the {kind} '{name}' is {what}: its type cannot be changed", "only those of arrays can")
    return feature


def refuse_half_images(targets: Sequence[Interface]) -> None:
    """Raise UsageError for an image whose pixels must be f16."""
    for target in targets:
        for kind in PORTS:
            for feature in getattr(target.description, kind):
                if feature.type.imageType.colorSpace == GRAYSCALE_FLOAT16:
                    raise UsageError(f"the image '{feature.name}' must be f16", "leave the precision as it is")


def describe_shapes(feature: Any, spec: TensorSpec) -> None:
    """Write the shapes that ``spec`` takes into the description of an array or an image."""
    which = feature.type.WhichOneof("Type")
    if which == "imageType" and spec.image is not None:
        _describe_image(feature.type.imageType, spec.image)
        return
    if which != "multiArrayType":
        raise UsageError(f"'{feature.name}' has no shape", "shapes can be changed for arrays and images")
    message = feature.type.multiArrayType
    flexibility = message.WhichOneof("ShapeFlexibility")
    if flexibility:
        message.ClearField(flexibility)
    message.shape[:] = spec.shape
    for low, high in spec.ranges:
        # -1 is FeatureTypes.proto's word for no limit.
        message.shapeRange.sizeRanges.add(lowerBound=low, upperBound=-1 if high is None else high)
    for shape in spec.enumerated:
        message.enumeratedShapes.shapes.add(shape=shape)


def _describe_image(message: Any, image: ImageSpec) -> None:
    flexibility = message.WhichOneof("SizeFlexibility")
    if flexibility:
        message.ClearField(flexibility)
    message.height, message.width = image.height, image.width
    for width, height in image.sizes:
        message.enumeratedSizes.sizes.add(height=height, width=width)
    for field, span in (("heightRange", image.height_range), ("widthRange", image.width_range)):
        if span is not None:
            getattr(message.imageSizeRange, field).lowerBound = span[0]
            getattr(message.imageSizeRange, field).upperBound = -1 if span[1] is None else span[1]


def describe_outputs(target: Interface, function: Function) -> None:
    """Write the output shapes that ``function`` declares into those outputs whose descriptions give shapes."""
    made = {item.name: item.type for op in function.block.operations for item in op.outputs}
    made |= {item.name: item.type for item in function.inputs}
    for feature in target.description.output:
        kind = made.get(feature.name)
        array = feature.type.multiArrayType if feature.type.WhichOneof("Type") == "multiArrayType" else None
        if array is not None and array.shape and isinstance(kind, TensorType) and kind.size is not None:
            array.shape[:] = [length or 0 for length in kind.shape or ()]


def describe_classifier(target: Interface, names: Sequence[str]) -> None:
    """Give the description a classifier's two outputs, with string labels, unless it has them."""
    description = target.description
    if description.predictedFeatureName not in names:
        for feature in description.output:
            array_port(target, "output", feature.name)
        del description.output[:]
        for name in names:
            description.output.add(name=name)
        description.predictedFeatureName, description.predictedProbabilitiesName = names
    for feature in description.output:
        if feature.name == names[0]:
            feature.type.stringType.SetInParent()
        elif feature.name == names[1]:
            feature.type.dictionaryType.stringKeyType.SetInParent()


def describe_function(model: Any, name: str, source: Any) -> None:
    """Describe function ``name`` of ``model`` as ``source``, a separate model, describes its function ``main``."""
    found = next((item for item in source.description.functions if item.name == "main"), source.description)
    function = model.description.functions.add(name=name)
    for field in PORTS:
        getattr(function, field).extend(getattr(found, field))
    for field in ("predictedFeatureName", "predictedProbabilitiesName"):
        setattr(function, field, getattr(found, field))
