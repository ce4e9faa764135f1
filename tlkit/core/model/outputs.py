"""Convert an engine's raw output to what Core ML's ``predict`` returns for that port."""

from __future__ import annotations

from typing import Any

import numpy as np

from tlkit.types import TensorSpec

_RETURNED = {"float64": "float64", "int64": "int64", "int8": "int8"}
"""Core ML hands float16 out as float32, and bool and the narrower integers as int32; these stay themselves."""


def from_port(spec: TensorSpec, value: Any) -> Any:
    """Return ``value`` as the port ``spec`` gives it: an array, a PIL image, or a classifier's label or dictionary."""
    if not isinstance(value, np.ndarray):
        return value
    if spec.image is not None:
        return _image(spec, value)
    default = "float32" if value.dtype.kind == "f" else "int32"
    dtype = _RETURNED.get(spec.dtype, default)
    return np.ascontiguousarray(value).astype(dtype, copy=False)


def _image(spec: TensorSpec, value: np.ndarray[Any, Any]) -> Any:
    """An image output: NCHW values 0..255, rounded and clipped to 8 bits (a float16 grayscale stays float)."""
    from PIL import Image

    assert spec.image is not None
    plane = value.reshape(value.shape[-3:])
    if spec.image.layout == "GRAYSCALE_FLOAT16":
        return Image.fromarray(plane[0].astype("float32"))
    pixels = np.clip(np.rint(plane), 0, 255).astype("uint8")
    if spec.image.layout == "GRAYSCALE":
        return Image.fromarray(pixels[0])
    return Image.fromarray(np.ascontiguousarray(pixels[:: -1 if spec.image.layout == "BGR" else 1].transpose(1, 2, 0)))
