"""What the classic models share: features to matrices, and answers to what a model's ports hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.errors import ExecutionError, LoadError
from tlkit.formats.coreml.ports import read_ports
from tlkit.types import TensorSpec

Features = Mapping[str, Any]
"""Values by name: arrays, numbers, texts, dictionaries, lists."""
Rows = Callable[[Sequence[Features]], list[dict[str, Any]]]
"""A model: the features of each inference to its outputs."""
Matrix = NDArray[np.float64]
DAMAGED = "the file is damaged: fetch it again"
"""What to do about a model that contradicts itself."""


def each(step: Callable[[Features], dict[str, Any]]) -> Rows:
    """Return what does for each of several inferences what ``step`` does for one."""
    return lambda rows: [step(row) for row in rows]


def given(features: Features, name: str) -> Any:
    """Return the feature ``name``; ExecutionError where it is not there."""
    if name not in features:
        raise ExecutionError(f"the model wants the input '{name}', which is not there", "give it that one")
    return features[name]


def vector(features: Features, names: Sequence[str]) -> Matrix:
    """Return the numbers of the features ``names`` one after another."""
    parts = [_numbers(name, given(features, name)) for name in names]
    return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0)


def matrix(rows: Sequence[Features], names: Sequence[str], least: int = 0, *, exact: bool = False) -> Matrix:
    """Return one row for each inference; ExecutionError where one has fewer than ``least`` numbers (``exact``: not
    as many)."""
    found = [vector(row, names) for row in rows]
    sizes = {len(row) for row in found}
    if len(sizes) > 1 or any(size < least or (exact and size != least) for size in sizes):
        told = " or ".join(map(str, sorted(sizes)))
        wanted = f"{least}" if exact else f"{least} or more, each time the same" if least else "each time the same"
        raise ExecutionError(
            f"{', '.join(names)}: {told} numbers, where the model wants {wanted}", "see the shapes of its inputs"
        )
    return np.stack(found) if found else np.empty((0, least))


def scalar(value: Any) -> float | int | str:
    """Return a single value as Python's own number, or a text as it is."""
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":  # booleans, integers, floats
        raise ExecutionError(f"{_said(value)} is not one number", "give it a number")
    found: float | int = array.reshape(-1)[0].item()
    return found


def to_port(spec: TensorSpec | None, numbers: Any) -> Any:
    """Return ``numbers`` as the output ``spec`` holds them: a float, an int, or an array of its type and shape."""
    array = np.asarray(numbers)
    if spec is None:
        return array
    if spec.kind in ("double", "int64"):
        number = scalar(array)
        return float(number) if spec.kind == "double" else round(float(number))
    array = array.astype(spec.dtype or "float64", copy=False)
    fits = spec.shape and not spec.flexible and int(np.prod(spec.shape)) == array.size
    return array.reshape(spec.shape) if fits else array.reshape(-1)


def input_names(model: Any) -> list[str]:
    """Return the names of a model's inputs, in order."""
    return [port.name for port in model.description.input]


def check_width(model: Any, least: int, *, exact: bool = False) -> None:
    """Raise LoadError where a model's ports say that it gets fewer numbers than ``least`` (``exact``: not as many)."""
    ports = read_ports(model.description.input)
    if any(spec.kind not in ("tensor", "double", "int64") or spec.flexible for spec in ports):
        return
    if any(spec.kind == "tensor" and not spec.shape for spec in ports):
        return
    width = sum(math.prod(spec.shape) for spec in ports)  # 1 for a port of one number
    if width < least or (exact and width != least):
        raise LoadError(f"the model's inputs have {width} numbers, and it computes with {least}", DAMAGED)


def only_input(model: Any) -> str:
    """Return the name of a model's one input; LoadError where there is none."""
    if not model.description.input:
        raise LoadError("the model has no input", DAMAGED)
    name: str = model.description.input[0].name
    return name


def only_output(model: Any) -> str:
    """Return the name of a model's one output; LoadError where there is none."""
    if not model.description.output:
        raise LoadError("the model has no output", DAMAGED)
    name: str = model.description.output[0].name
    return name


def _numbers(name: str, value: Any) -> Matrix:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ExecutionError(f"the input '{name}' is {_said(value)}, not numbers", "give it numbers")
    return array.astype(np.float64, copy=False).reshape(-1)


def _said(value: Any) -> str:
    return "a text" if isinstance(value, str) else f"a {type(value).__name__}"
