"""Which shapes a port takes, and how to write them; needs only the standard library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tlkit.types import ImageSpec, TensorSpec

_LISTED = 8  # shapes written out, of the up to 128 that may be enumerated


def allows(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    """Whether the port takes an array of this shape."""
    if spec.image is not None:
        channels = 3 if spec.image.layout in ("RGB", "BGR") else 1
        return len(shape) == 4 and shape[:2] == (1, channels) and allows_size(spec.image, (shape[3], shape[2]))
    if spec.sequences and len(shape) != len(spec.shape) and _is_sequence(spec, shape):
        return True
    if spec.enumerated:
        return shape in spec.enumerated or shape == spec.shape
    if spec.ranges:
        return len(shape) == len(spec.ranges) and all(
            low <= dim and (high is None or dim <= high) for dim, (low, high) in zip(shape, spec.ranges, strict=True)
        )
    return not spec.shape or shape == spec.shape


def _is_sequence(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    """Whether a shape is a sequence of batches of what the port takes: [sequence, batch, C(, 1, 1 or H, W)]."""
    if len(shape) == 5:
        inner: tuple[int, ...] = shape[2:3] if len(spec.shape) == 1 and shape[3:] == (1, 1) else shape[2:]
    else:
        inner = shape[2:] if len(shape) == 3 and len(spec.shape) == 1 else ()
    return bool(inner) and min(shape) > 0 and allows(replace(spec, sequences=False), inner)


def allows_size(image: ImageSpec, size: tuple[int, int]) -> bool:
    """Whether the port takes a picture of ``size`` (width, height)."""
    if image.sizes:
        return size in image.sizes
    if image.width_range and image.height_range:
        return all(
            low <= side and (high is None or side <= high)
            for side, (low, high) in zip(size, (image.width_range, image.height_range), strict=True)
        )
    return size == (image.width, image.height)


def shape_text(shape: Sequence[int]) -> str:
    """Write a shape as ``1x3x224x224``; the empty one is ``scalar``."""
    return "x".join(map(str, shape)) or "scalar"


def range_text(low: int, high: int | None) -> str:
    """Write a dimension that may vary as ``(1..512)``, ``(1..)`` where it has no end, ``512`` where it is fixed."""
    return str(low) if low == high else f"({low}..{'' if high is None else high})"


def sizes_text(image: ImageSpec) -> str:
    """Say which sizes (width x height) an image port takes."""
    if image.sizes:
        return " or ".join(map(shape_text, image.sizes))
    if image.width_range and image.height_range:
        return f"{range_text(*image.width_range)}x{range_text(*image.height_range)}"
    return f"{image.width}x{image.height}"


def shapes_text(spec: TensorSpec) -> str:
    """Say which shapes a port takes: ``1x3x224x224``, ``1x(1..512)``, ``1x128 or 1x256``; of an image, its sizes.

    Empty where the model declares none.
    """
    if spec.image is not None:
        return sizes_text(spec.image)
    if spec.enumerated:
        listed = [*map(shape_text, spec.enumerated[:_LISTED]), "…"]
        return " or ".join(listed if len(spec.enumerated) > _LISTED else listed[:-1])
    if spec.ranges:
        return "x".join(range_text(low, high) for low, high in spec.ranges)
    return shape_text(spec.shape) if spec.shape else ""
