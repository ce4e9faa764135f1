"""Matrix products and look-ups in tables."""

from __future__ import annotations

from typing import Any

from tlkit.errors import LoadError
from tlkit.frontends.network.kit.arithmetic import binary, integers
from tlkit.frontends.network.kit.blob import Blob, Shape, broadcast, product
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.registry import Layer, layer


@layer("innerProduct")
def inner_product(g: Graph, layer: Layer) -> Blob:
    """A matrix times C, H and W in one, or times the last axis where the rank is below 4.

    A layer that quantizes its input at run time gets it as it is: how Core ML quantizes is not published.
    """
    p = layer.params
    x, trail = (_vectors(g, layer.x), 2) if layer.x.rank >= 4 else (g.lay(layer.x), 0)
    weight = layer.weights.tensor(p.weights, (p.outputChannels, p.inputChannels))
    bias = layer.weights.tensor(p.bias, (p.outputChannels,)) if p.hasBias else None
    if x.shape[-1] not in (p.inputChannels, None):
        raise LoadError(f"a matrix for {p.inputChannels} numbers meets {layer.x.logical}", "the network is damaged")
    shape = (*x.shape[:-1], p.outputChannels)
    made = g.op("linear", shape, x=x, weight=weight, bias=bias)
    return Blob(made.name, shape, layer.x.rank - len(shape) - trail, trail)


def _vectors(g: Graph, x: Blob) -> Blob:
    """Return [.., C, H, W] as vectors in the program, with as few axes before them as there can be."""
    before, sides = x.logical[:-3], x.logical[-3:]
    # Leading ones stay outside the program.
    lead = next((place for place, length in enumerate(before) if length != 1), len(before))
    lead = min(lead, len(before) - 1)
    if sides[1:] == (1, 1):
        return g.lay(x, lead, 2)
    made = g.reshape(x, (*before[lead:], product(sides)))
    return Blob(made.name, made.shape, lead, 2)


@layer("embedding")
def embedding(g: Graph, layer: Layer) -> Blob:
    """The columns of a matrix that numbers [.., 1, 1, 1] name."""
    p = layer.params
    x = g.lay(layer.x, layer.x.rank - 4, 3) if _single(layer.x) else g.lay(layer.x, 0, 3)
    made = _looked_up(g, layer, integers(g, x), p.inputDim, p.outputChannels)
    return Blob(made.name, made.shape, layer.x.rank - len(made.shape) - 2, 2)


def _single(x: Blob) -> bool:
    return x.rank >= 4 and all(length == 1 for length in x.logical[:-4])


@layer("embeddingND")
def embedding_nd(g: Graph, layer: Layer) -> Blob:
    """The columns of a matrix that numbers [.., 1] name."""
    p, x = layer.params, layer.x
    if x.rank < 2 or x.logical[-1] != 1:
        raise LoadError(f"an embedding of {x.logical}, which does not end in 1", "the network is damaged")
    return _looked_up(g, layer, integers(g, g.lay(x, 0, 1)), p.vocabSize, p.embeddingSize)


def _looked_up(g: Graph, layer: Layer, places: Blob, rows: int, width: int) -> Blob:
    p = layer.params
    # The file has [width, rows], an entry in a column; gather takes rows.
    table = layer.weights.tensor(p.weights, (width, rows), permuted=(1, 0))
    shape: Shape = (*places.shape, width)
    made = g.op("gather", shape, x=g.tensor(table, "table"), indices=places, axis=0)
    if p.hasBias:
        made = binary(g, "add", made, g.tensor(layer.weights.tensor(p.bias, (width,)), "bias"))
    return made


@layer("batchedMatmul")
def batched_matmul(g: Graph, layer: Layer) -> Blob:
    """The matrix product of two inputs, or of one and a matrix stored column by column.

    A vector is a matrix of one row or column, and its axis of 1 stays in the result.
    """
    p = layer.params
    x = g.lay(layer.x)
    if len(layer.inputs) < 2:
        rows, columns = p.weightMatrixFirstDimension, p.weightMatrixSecondDimension
        # Column by column is row by row of the transpose, which is what linear takes.
        weight = layer.weights.tensor(p.weights, (columns, rows))
        bias = layer.weights.tensor(p.bias, (columns,)) if p.hasBias else None
        if x.shape[-1] not in (rows, None):
            raise LoadError(f"a matrix of {rows} rows meets {x.shape}", "the network is damaged")
        return g.op("linear", (*x.shape[:-1], columns), x=x, weight=weight, bias=bias)
    y = g.lay(layer.inputs[1])
    one, two = (_matrix(g, item, front) for item, front in ((x, True), (y, False)))
    full = _product(one.shape, two.shape, p.transposeA, p.transposeB)
    turned: dict[str, Any] = {"transpose_x": p.transposeA or None, "transpose_y": p.transposeB or None}
    return g.op("matmul", full, x=one, y=two, **turned)


def _matrix(g: Graph, x: Blob, front: bool) -> Blob:
    if len(x.shape) > 1:
        return x
    return g.op("expand_dims", (1, *x.shape) if front else (*x.shape, 1), x=x, axes=[0 if front else 1])


def _product(x: Shape, y: Shape, turn_x: bool, turn_y: bool) -> Shape:
    """Return the shape of x @ y, of which neither is a vector."""
    rows, inner_x = (x[-1], x[-2]) if turn_x else (x[-2], x[-1])
    columns, inner_y = (y[-2], y[-1]) if turn_y else (y[-1], y[-2])
    if None not in (inner_x, inner_y) and inner_x != inner_y:
        raise LoadError(f"a product of {x} and {y}", "the network is damaged")
    return (*broadcast(x[:-2], y[:-2]), rows, columns)
