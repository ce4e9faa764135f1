"""A network's ports: how arrays and pictures enter it, what is done to pixels first, how results leave it.

Rank 5 mapping: [C] enters as [1, 1, C, 1, 1], [C, H, W] and a picture as [1, 1, C, H, W]; [Seq, B, C, H, W] is taken
as it is. Exact mapping: arrays enter as they are, pictures as [1, C, H, W] or, again, in rank 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tlkit.errors import LoadError
from tlkit.frontends.network.kit.arithmetic import binary
from tlkit.frontends.network.kit.blob import Blob, Shape, product
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.weights import array_value
from tlkit.mil.types import DType
from tlkit.types import TensorSpec

_RANK = 5
_ORDERS = {"BGR": ("blueBias", "greenBias", "redBias"), "GRAYSCALE": ("grayBias",), "GRAYSCALE_FLOAT16": ("grayBias",)}
_COLORS = ("redBias", "greenBias", "blueBias")


def entered(spec: TensorSpec, shape: Shape, *, exact: bool) -> Blob:
    """Return an input as the network sees it; three lengths where the port has [C] are [sequence, batch, C]."""
    if exact:
        return Blob(spec.name, shape)
    if len(shape) > _RANK or not shape:
        raise LoadError(f"the input '{spec.name}' has the shape {shape}", "the model is damaged")
    vectors = len(shape) == 1 or (len(shape) == 3 and len(spec.shape) == 1)
    trail = 2 if vectors else 0
    return Blob(spec.name, shape, _RANK - len(shape) - trail, trail)


def element(spec: TensorSpec) -> DType:
    """Return the element type with which an input enters the program."""
    return DType.INT32 if spec.dtype in ("int32", "int64", "int8") else DType.FP32


def preprocessed(g: Graph, steps: Iterable[Any], specs: Sequence[TensorSpec], scope: Mapping[str, Blob]) -> None:
    """Do what the network asks for before its first layer; a step that names no input is for the only picture."""
    pictures = [spec for spec in specs if spec.image is not None]
    changed = dict(scope)
    for step in steps:
        named = next((spec for spec in specs if spec.name == step.featureName), None)
        spec = named if step.featureName else pictures[0] if pictures else None
        if spec is None:
            raise LoadError(f"a preprocessing of '{step.featureName}', which is no input", "the model is damaged")
        g.title = f"{spec.name}_preprocessing"
        kind = step.WhichOneof("preprocessor")
        if kind == "scaler":
            changed[spec.name] = _scaled(g, changed[spec.name], step.scaler, spec)
        elif kind == "meanImage":
            changed[spec.name] = _centred(g, changed[spec.name], step.meanImage)
    if isinstance(scope, dict):
        scope.update(changed)


def _scaled(g: Graph, x: Blob, scaler: Any, spec: TensorSpec) -> Blob:
    """scale * pixel + bias, the bias by colour; a scale that is not set is 1."""
    scale = float(scaler.channelScale) or 1.0
    made = binary(g, "mul", x, scale) if scale != 1 else x
    order = _ORDERS.get(spec.image.layout if spec.image else "", _COLORS)
    channels = x.logical[-3]
    # A single channel takes the grey bias, whatever layout the port declares.
    order = order if channels == len(order) else ("grayBias",) if channels == 1 else order
    biases = [float(getattr(scaler, color)) for color in order]
    if not any(biases):
        return made
    if len(set(biases)) == 1:
        return binary(g, "add", made, biases[0])
    value = array_value(np.array(biases, np.float32).reshape(-1, 1, 1))
    return binary(g, "add", made, g.tensor(value, "bias"))


def _centred(g: Graph, x: Blob, message: Any) -> Blob:
    shape = tuple(int(length or 0) for length in x.logical[-3:])
    mean = np.array(message.meanImage, np.float32)
    if mean.size != product(shape):
        raise LoadError(f"a mean image of {mean.size} numbers for {shape}", "the file is damaged")
    return binary(g, "sub", x, g.tensor(array_value(mean.reshape(shape)), "mean"))


def left(g: Graph, x: Blob, spec: TensorSpec, *, exact: bool) -> Blob:
    """Return a result as the port gives it, whole in the program.

    Models declare outputs as they please: where the elements fit, the port's shape is taken, else its rank.
    """
    if spec.image is not None:
        return g.lay(x, max(x.rank - 4, 0), 0) if x.rank >= 4 else g.lay(x)
    shape, wanted = x.logical, spec.shape
    if exact or x.rank != _RANK:
        fits = wanted and None not in shape and product(wanted) == product(shape)
        return g.reshape(x, tuple(wanted)) if fits else g.lay(x)
    # Old models often declare no shape, or only the channels: their results then stay in rank 5.
    if len(wanted) == _RANK or not wanted or None in shape or shape[:2] != (1, 1):
        return g.lay(x)
    # Declared as [C] and made as [1, 1, C, 1, 1], which is [C] in the program.
    if len(wanted) == 1 and shape[3:] == (1, 1):
        return g.lay(x, 2, 2)
    if product(wanted) == product(shape) and len(wanted) not in (1, 3):
        return g.reshape(x, tuple(wanted))
    return g.lay(x, 2, 0) if len(wanted) in (1, 3) else g.lay(x)
