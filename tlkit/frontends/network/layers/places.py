"""Layers that take elements from places, put them there, or say where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlkit.errors import LoadError
from tlkit.frontends.network.kit.arithmetic import binary, filled, integers, number, unary
from tlkit.frontends.network.kit.blob import Blob, axis_of
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.registry import Layer, layer
from tlkit.frontends.network.layers.arrangement import vector
from tlkit.mil.types import DType

_MODES = ("update", "add", "sub", "mul", "div", "max", "min")  # by the numbers of ScatterMode


def _mode(number_: int) -> str:
    if not 0 <= number_ < len(_MODES):
        raise LoadError(f"the unknown scatter mode {number_}", "the file is damaged")
    return _MODES[number_]


@layer("gather", inputs=2)
def gather(g: Graph, layer: Layer) -> Blob:
    """The slices along an axis that the second input names."""
    x, places = (g.lay(item) for item in layer.inputs[:2])
    axis, known, at = axis_of(layer.params.axis, len(x.shape)), g.known(x), g.known(places)
    # Elements of a known shape are known, so that a reshape to them has a known shape too.
    if known is not None and at is not None and len(x.shape) == 1 and len(places.shape) == 1:
        if any(not -len(known) <= place < len(known) for place in at):
            raise LoadError(f"the places {at} of {len(known)}", "the network is damaged")
        return vector(g, [known[int(place)] for place in at])
    shape = (*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])
    return g.op("gather", shape, x=x, indices=integers(g, places), axis=axis)


@layer("gatherND", inputs=2)
def gather_nd(g: Graph, layer: Layer) -> Blob:
    """The elements or slices that rows of places name."""
    x, places = (g.lay(item) for item in layer.inputs[:2])
    depth = places.shape[-1]
    if depth is None or depth > len(x.shape):
        raise LoadError(f"places {places.shape} in {x.shape}", "the network is damaged")
    shape = (*places.shape[:-1], *x.shape[depth:])
    made = g.op("gather_nd", shape, x=x, indices=integers(g, places))
    return made if shape else g.reshape(made, (1,))  # networks have no scalars


@layer("gatherAlongAxis", inputs=2)
def gather_along_axis(g: Graph, layer: Layer) -> Blob:
    """For each place in the second input the element there along an axis."""
    x, places = (g.lay(item) for item in layer.inputs[:2])
    axis = axis_of(layer.params.axis, len(x.shape))
    return g.op("gather_along_axis", places.shape, x=x, indices=integers(g, places), axis=axis)


def _scatter(g: Graph, kind: str, layer: Layer, **given: Any) -> Blob:
    x, places, updates = (g.lay(item) for item in layer.inputs[:3])
    mode = _mode(layer.params.mode)
    return g.op(kind, x.shape, data=x, indices=integers(g, places), updates=updates, mode=mode, **given)


@layer("scatter", inputs=3)
def scatter(g: Graph, layer: Layer) -> Blob:
    """The first input with slices of the third put along an axis where the second says."""
    return _scatter(g, "scatter", layer, axis=axis_of(layer.params.axis, layer.x.rank))


@layer("scatterND", inputs=3)
def scatter_nd(g: Graph, layer: Layer) -> Blob:
    """The first input with elements or slices of the third where rows of places say."""
    return _scatter(g, "scatter_nd", layer)


@layer("scatterAlongAxis", inputs=3)
def scatter_along_axis(g: Graph, layer: Layer) -> Blob:
    """The first input with each element of the third at its place along an axis."""
    return _scatter(g, "scatter_along_axis", layer, axis=axis_of(layer.params.axis, layer.x.rank))


@layer("oneHot")
def one_hot(g: Graph, layer: Layer) -> Blob:
    """Vectors with one number at the places that the input names; their length may be the second input."""
    p, x, given = layer.params, g.lay(layer.x), layer.input(1)
    axis = axis_of(p.axis, len(x.shape) + 1)
    known = g.known(given) if given is not None else None
    size: int | None = int(known[0]) if known is not None else None if given is not None else int(p.oneHotVectorSize)
    length: object = size
    if given is not None and known is None:
        length = g.op("squeeze", (), out=DType.INT32, x=integers(g, g.reshape(given, (1,))), axes=[0])
    shape = (*x.shape[:axis], size, *x.shape[axis:])
    values: dict[str, Any] = {"on_value": float(p.onValue), "off_value": float(p.offValue)}
    return g.op("one_hot", shape, indices=integers(g, x), one_hot_vector_size=length, axis=axis, **values)


@layer("whereNonZero")
def where_non_zero(g: Graph, layer: Layer) -> Blob:
    """The places of what is not 0, a row each."""
    x = g.lay(layer.x)
    made = g.op("non_zero", (None, len(x.shape)), out=DType.INT32, x=x)
    return number(g, made, DType.INT32)


@layer("matrixBandPart")
def matrix_band_part(g: Graph, layer: Layer) -> Blob:
    """Matrices with zeros outside a band."""
    p = layer.params
    return unary(g, "band_part", g.lay(layer.x), lower=int(p.numLower), upper=int(p.numUpper))


@layer("lowerTriangular")
def lower_triangular(g: Graph, layer: Layer) -> Blob:
    """Matrices with zeros above their k-th diagonal."""
    k, x = int(layer.params.k), g.lay(layer.x)
    if k >= 0:
        return unary(g, "band_part", x, lower=-1, upper=k)
    # A band always contains the diagonal; what lies below it is the complement of a band.
    return _outside(g, x, lower=-k - 1, upper=-1)


@layer("upperTriangular")
def upper_triangular(g: Graph, layer: Layer) -> Blob:
    """Matrices with zeros below their k-th diagonal."""
    k, x = int(layer.params.k), g.lay(layer.x)
    if k <= 0:
        return unary(g, "band_part", x, lower=-k, upper=-1)
    return _outside(g, x, lower=-1, upper=k - 1)


def _outside(g: Graph, x: Blob, lower: int, upper: int) -> Blob:
    """Matrices with zeros inside a band."""
    band = unary(g, "band_part", filled(g, x, 1.0), lower=lower, upper=upper)
    free = binary(g, "equal", band, 0.0, out=DType.BOOL)
    return g.op("select", x.shape, cond=free, a=x, b=filled(g, x, 0.0))


@layer("NonMaximumSuppression", inputs=2)
def non_maximum_suppression(g: Graph, layer: Layer) -> Sequence[Blob]:
    """Boxes, scores, places and how many there are, of boxes (B, N, 4) that others do not overlap."""
    p, (boxes, scores) = layer.params, (g.lay(item) for item in layer.inputs[:2])
    settings: list[object] = [float(p.iouThreshold), float(p.scoreThreshold), int(p.maxBoxes)]
    # Inputs replace the file's numbers, in this order.
    for index, given in enumerate(layer.inputs[2:5]):
        known = g.known(given)
        if known is not None:
            settings[index] = int(known[0]) if index == 2 else float(known[0])
        else:
            one = g.reshape(given, (1,))
            kind = DType.INT32 if index == 2 else DType.FP32
            settings[index] = g.op("squeeze", (), out=kind, x=g.cast(one, kind), axes=[0])
    count, most = boxes.shape[0], settings[2] if isinstance(settings[2], int) else None
    shapes = [(count, most, 4), (count, most, scores.shape[-1]), (count, most), (count,)]
    kinds = (DType.FP32, DType.FP32, DType.INT32, DType.INT32)
    names = g.emit(
        "non_maximum_suppression",
        list(zip(shapes, kinds, strict=True)),
        boxes=boxes,
        scores=scores,
        iou_threshold=settings[0],
        score_threshold=settings[1],
        max_boxes=settings[2],
        per_class_suppression=bool(p.perClassSuppression),
    )
    made = [Blob(name, shape) for name, shape in zip(names, shapes, strict=True)]
    return [number(g, blob, kind) if kind is DType.INT32 else blob for blob, kind in zip(made, kinds, strict=True)]
