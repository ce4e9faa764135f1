"""Check a prediction's inputs as Core ML does through coremltools' binding: stricter than :mod:`inputs`, with its
texts.

``tlkit.anywhere`` asks here before anything is converted, so that a test that passes off a Mac passes on one. Core ML's
error texts were taken from public reports (``docs/fidelity.md``); callers match them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tlkit.errors import UsageError
from tlkit.ports.images import is_pil
from tlkit.ports.shapes import allows, allows_size, shape_text, shapes_text, sizes_text
from tlkit.types import TensorSpec

_TAKEN = ("int32", "int8", "float32", "float64", "float16")
"""Element types that the binding knows (float16 it makes float32 of, int8 is macOS 26's); it has no int64."""

# PIL's modes for each layout, the one to convert to first.
_MODES = {"RGB": ("RGB", "RGBA"), "BGR": ("RGB", "RGBA"), "GRAYSCALE": ("L",), "GRAYSCALE_FLOAT16": ("F",)}
_BUFFERS = {"RGB": "32-BGRA", "RGBA": "32-BGRA", "L": "Grayscale (8-bit)", "F": "Grayscale (16-bit float)"}


def check_features(ports: Sequence[TensorSpec], given: Mapping[str, Any], states: Iterable[str] = ()) -> None:
    """Raise UsageError where Core ML would refuse ``given`` for ``ports``.

    ``states`` names the states that the model has and the call does not bring.
    """
    missing = next(iter(states), None)
    if missing is not None:
        raise UsageError(
            f"The input feature for {missing} must be an MLState, but it was not.",
            "make one with make_state() and give it as predict's state",
        )
    named = {spec.name: spec for spec in ports}
    for name, value in given.items():
        if name not in named:
            raise UsageError(f"no input is named '{name}'", f"inputs: {', '.join(named) or 'none'}")
        _check(named[name], value)
    for spec in ports:
        if spec.name not in given and not spec.optional:
            raise UsageError(f"Feature {spec.name} is required but not specified.")
    check_choice(ports, {name: _shape(value) for name, value in given.items()})


def check_choice(ports: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise UsageError where inputs that list their shapes are given shapes from different places of their lists.

    With several such inputs Core ML runs one place of the lists: all first shapes, or all second (apple/coremltools
    documents so, and #2730 reports it). ``shapes`` holds the inputs that are given; an image's is (height, width).
    """
    wanted = {spec.name: _places(spec, shapes[spec.name]) for spec in ports if spec.name in shapes and listed(spec)}
    if len(wanted) > 1 and not set.intersection(*wanted.values()):
        told = ", ".join(f"{name} {shape_text(shapes[name])}" for name in wanted)
        raise UsageError(
            f"the shapes {told} are not at one place of the inputs' lists of shapes",
            "Core ML runs all first shapes together, or all second ones, and so on",
        )


def listed(spec: TensorSpec) -> bool:
    """Whether a port takes one of several listed shapes (or sizes of an image)."""
    return len(spec.listed) > 1


def _places(spec: TensorSpec, shape: tuple[int, ...]) -> set[int]:
    if spec.image is not None:
        height, width = shape[-2:]
        # A size is (width, height), an array's shape ends the other way round.
        return {place for place, size in enumerate(spec.image.sizes) if size == (width, height)}
    return {place for place, other in enumerate(spec.enumerated) if other == shape} or {-1}  # the default, unlisted


def _check(spec: TensorSpec, value: Any) -> None:
    if spec.image is not None:
        _check_image(spec, value)
    elif spec.kind == "tensor":
        _check_array(spec, value)


def _check_image(spec: TensorSpec, value: Any) -> None:
    assert spec.image is not None
    if not is_pil(value):
        raise UsageError(
            f"Input image feature {spec.name} does not match model description: "
            f"it takes a PIL image, not {type(value).__name__}"
        )
    if value.mode not in _BUFFERS:
        raise UsageError(f"Unsupported image type {value.mode}. Supported types are: RGB, RGBA, L, F.")
    wanted = _MODES[spec.image.layout]
    if value.mode not in wanted:
        raise UsageError(
            f"Input image feature {spec.name} does not match model description: "
            f"Image is not expected type {_BUFFERS[wanted[0]]}, instead is {_BUFFERS[value.mode]}",
            f"convert it first: image.convert('{wanted[0]}')",
        )
    if not allows_size(spec.image, value.size):
        raise UsageError(
            f"Input image feature {spec.name} does not match model description: "
            f"Image size {value.width} x {value.height} not in allowed set of image sizes",
            f"resize it first, to {sizes_text(spec.image)}",
        )


def _check_array(spec: TensorSpec, value: Any) -> None:
    if isinstance(value, bool | int | float):
        raise UsageError(f"MultiArrayConstraint only allows MultiArrays: {spec.name} is given a number")
    if not isinstance(value, np.ndarray | list | tuple):
        raise UsageError(f"value type not convertible: {spec.name} is given {type(value).__name__}")
    array = _array(spec, value)
    if array.dtype.name not in _TAKEN:
        raise UsageError(
            f"value type not convertible: {spec.name} is given {array.dtype} values",
            "Core ML takes int32, float32 and float64 arrays: use astype",
        )
    shape = array.shape or (1,) * max(1, len(spec.shape))  # coremltools itself makes scalars arrays of rank 0
    if not allows(spec, shape):
        raise UsageError(_misfit(spec, shape), f"{spec.name} takes {shapes_text(spec)}, not {shape_text(shape)}")


def _array(spec: TensorSpec, value: Any) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(value)
    except ValueError:
        raise UsageError(f"value type not convertible: {spec.name} is given rows of different lengths") from None


def _misfit(spec: TensorSpec, shape: tuple[int, ...]) -> str:
    """Return Core ML's error text for a shape that does not fit."""
    given = " x ".join(map(str, shape))
    if spec.enumerated:
        return f"MultiArray Shape ({given}) was not in enumerated set of allowed shapes"
    for axis, (size, (low, high)) in enumerate(zip(shape, spec.ranges, strict=False)):
        if len(shape) == len(spec.ranges) and (size < low or (high is not None and size > high)):
            return (
                f"Size ({size}) of dimension ({axis}) is not in allowed range ({low}..{'' if high is None else high})"
            )
    wanted = " x ".join(map(str, spec.shape))
    return f"MultiArray shape ({given}) does not match the shape ({wanted}) specified in the model description"


def _shape(value: Any) -> tuple[int, ...]:
    return (value.height, value.width) if is_pil(value) else np.shape(value)
