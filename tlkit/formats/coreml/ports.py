"""Convert Core ML's ``FeatureDescription`` messages to :class:`~tlkit.types.TensorSpec`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from tlkit.mil.types import BY_ARRAY_NUMBER
from tlkit.types import ImageSpec, Kind, TensorSpec

Range = tuple[int, int | None]
Layout = Literal["RGB", "BGR", "GRAYSCALE", "GRAYSCALE_FLOAT16"]

# FeatureTypes.proto's numbers (ImageFeatureType.ColorSpace).
_LAYOUTS: dict[int, Layout] = {10: "GRAYSCALE", 20: "RGB", 30: "BGR", 40: "GRAYSCALE_FLOAT16"}
_DEFAULTS = ("intDefaultValue", "floatDefaultValue", "doubleDefaultValue")


def read_ports(features: Iterable[Any]) -> tuple[TensorSpec, ...]:
    """Return the ports that ``features`` describe, in order."""
    return tuple(_port(feature) for feature in features)


def _port(feature: Any) -> TensorSpec:
    which = feature.type.WhichOneof("Type")
    common: dict[str, Any] = {"optional": feature.type.isOptional, "description": feature.shortDescription}
    if which == "multiArrayType":
        return _array(feature.name, feature.type.multiArrayType, "tensor", common)
    if which == "stateType":
        return _array(feature.name, feature.type.stateType.arrayType, "state", common)
    if which == "imageType":
        return _image(feature.name, feature.type.imageType, common)
    if which == "dictionaryType":
        keys = "int64" if feature.type.dictionaryType.WhichOneof("KeyType") == "int64KeyType" else "string"
        return TensorSpec(feature.name, f"{keys} to float64", kind="dictionary", **common)
    if which == "sequenceType":
        item = "int64" if feature.type.sequenceType.WhichOneof("Type") == "int64Type" else "string"
        return TensorSpec(feature.name, item, kind="sequence", **common)
    plain: dict[str | None, tuple[str, Kind]] = {
        "int64Type": ("int64", "int64"),
        "doubleType": ("float64", "double"),
        "stringType": ("string", "string"),
    }
    dtype, kind = plain.get(which, ("", "tensor"))
    return TensorSpec(feature.name, dtype, kind=kind, **common)


def _array(name: str, message: Any, kind: Kind, common: dict[str, Any]) -> TensorSpec:
    """``dtype`` is empty where the model leaves the type invalid (0)."""
    ranges: tuple[Range, ...] = ()
    enumerated: tuple[tuple[int, ...], ...] = ()
    if message.WhichOneof("ShapeFlexibility") == "shapeRange":
        ranges = tuple(_range(size) for size in message.shapeRange.sizeRanges)
    elif message.WhichOneof("ShapeFlexibility") == "enumeratedShapes":
        enumerated = tuple(tuple(shape.shape) for shape in message.enumeratedShapes.shapes)
    default = next((float(getattr(message, field)) for field in _DEFAULTS if message.HasField(field)), None)
    shape = tuple(message.shape) or (enumerated[0] if enumerated else tuple(low for low, _ in ranges))
    return TensorSpec(name, _dtype(message.dataType), shape, kind, ranges, enumerated, default=default, **common)


def _image(name: str, message: Any, common: dict[str, Any]) -> TensorSpec:
    """Return an image port; its shape is that of the pixel array: (1, channels, height, width), values 0 to 255."""
    layout = _LAYOUTS.get(message.colorSpace, "RGB")
    flexible = message.WhichOneof("SizeFlexibility")
    sizes: tuple[tuple[int, int], ...] = ()
    width_range = height_range = None
    if flexible == "enumeratedSizes":
        sizes = tuple((size.width, size.height) for size in message.enumeratedSizes.sizes)
    elif flexible == "imageSizeRange":
        width_range = _range(message.imageSizeRange.widthRange)
        height_range = _range(message.imageSizeRange.heightRange)
    image = ImageSpec(layout, message.width, message.height, sizes, width_range, height_range)
    channels = 3 if layout in ("RGB", "BGR") else 1
    dtype = "float16" if layout == "GRAYSCALE_FLOAT16" else "float32"
    shape = (1, channels, message.height, message.width)
    return TensorSpec(name, dtype, shape, "image", image=image, **common)


def _dtype(number: int) -> str:
    return BY_ARRAY_NUMBER[number].numpy_like if number in BY_ARRAY_NUMBER else ""


def _range(size: Any) -> Range:
    # A negative bound, -1, is none.
    return size.lowerBound, (size.upperBound if size.upperBound >= 0 else None)
