"""Custom layers, run by functions that the user names for their classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlkit.errors import LoadError
from tlkit.frontends.network.kit.blob import Blob, Shape
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.registry import Layer, layer
from tlkit.mil.types import DType


@layer("custom", inputs=0)
def custom(g: Graph, layer: Layer) -> Sequence[Blob]:
    """What the function named for the layer's class makes of the inputs."""
    p = layer.params
    function = layer.network.hooks.get(p.className)
    if p.className not in layer.network.hooks:
        raise LoadError(
            f"nothing runs the class {p.className}", f"give a function: --custom {p.className}=module:function"
        )
    whole = [g.lay(x) for x in layer.inputs]
    shapes = [_shape(layer, index, whole) for index in range(len(layer.outputs))]
    kinds = [(shape, DType.FP32) for shape in shapes]
    if function is None:
        return _blobs(g.emit("custom_layer", kinds, inputs=whole), shapes)
    from tlkit.mil.dialect.custom import Custom, hold  # late: it imports torch

    parameters = {name: getattr(value, value.WhichOneof("value")) for name, value in p.parameters.items()}
    weights = [np.asarray(layer.weights.numbers(params)) for params in p.weights]
    handle = hold(Custom(p.className, function, parameters, weights))
    return _blobs(g.emit("tlkit.custom", kinds, values=whole, handle=handle), shapes)


def _blobs(names: Sequence[str], shapes: Sequence[Shape]) -> list[Blob]:
    return [Blob(name, shape) for name, shape in zip(names, shapes, strict=True)]


def _shape(layer: Layer, index: int, whole: Sequence[Blob]) -> Shape:
    """Return what is known of an output's shape: what the file declares, else the rank of the first input."""
    if index < len(layer.declared) and layer.declared[index]:
        return layer.declared[index]
    if not whole:
        raise LoadError("a custom layer without inputs that declares no shape", "tlkit needs the rank of each value")
    # Of rank 5 the sequence and the batch stay; what becomes of C, H and W only a run tells.
    shape = whole[0].shape
    return (*shape[:2], *(None,) * (len(shape) - 2)) if len(shape) == 5 else (None,) * len(shape)
