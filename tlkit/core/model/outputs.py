"""Convert an engine's raw output to what Core ML's ``predict`` returns for that port."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tlkit.errors import ExecutionError
from tlkit.ports.images import to_picture
from tlkit.ports.shapes import shape_text
from tlkit.types import TensorSpec

_RETURNED = {"float64": "float64", "int64": "int64", "int8": "int8"}
"""Core ML hands float16 out as float32, and bool and the narrower integers as int32; these stay themselves."""


def from_ports(specs: Iterable[TensorSpec], raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an engine gave as the ports ``specs`` give it, by name, in their order."""
    return {spec.name: from_port(spec, raw[spec.name]) for spec in specs if spec.name in raw}


def from_port(spec: TensorSpec, value: Any) -> Any:
    """Return ``value`` as the port ``spec`` gives it: an array, a PIL image, or a classifier's label or dictionary."""
    if not isinstance(value, np.ndarray):
        return value
    if spec.image is not None:
        channels = 1 if spec.image.layout.startswith("GRAYSCALE") else 3
        if value.shape[-3:-2] != (channels,) or value.size != math.prod(value.shape[-3:]):  # one picture, not several
            said = f"the output '{spec.name}' is one image of {channels} channels, and its values have the shape"
            raise ExecutionError(f"{said} {shape_text(value.shape)}", "compare the program with its description")
        return to_picture(spec.image.layout, value)
    default = "float32" if value.dtype.kind == "f" else "int32"
    dtype = _RETURNED.get(spec.dtype, default)
    return np.ascontiguousarray(value).astype(dtype, copy=False)
