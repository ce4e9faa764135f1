"""Normalizations."""

from __future__ import annotations

import numpy as np

from tlkit.engines.onnx.kit.graph import GraphValue, OnnxGraph, UnsupportedGraph
from tlkit.engines.onnx.kit.registry import lowers
from tlkit.engines.onnx.lower.ops.kit import reshaped
from tlkit.mil.ops import normalization as mil
from tlkit.mil.ops.kit.registry import Ints


def _full(g: OnnxGraph, given: GraphValue | None, size: int, value: float) -> GraphValue:
    return g.constant(np.full(size, value, np.float32)) if given is None else given


@lowers(mil.batch_norm)
def batch_norm(
    g: OnnxGraph,
    x: GraphValue,
    mean: GraphValue,
    variance: GraphValue,
    gamma: GraphValue | None = None,
    beta: GraphValue | None = None,
    epsilon: float = 1e-5,
) -> GraphValue:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, per channel."""
    size = x.known[1]
    scale, shift = _full(g, gamma, size, 1), _full(g, beta, size, 0)
    return g.op("BatchNormalization", x, scale, shift, mean, variance, epsilon=epsilon)


@lowers(mil.instance_norm)
def instance_norm(
    g: OnnxGraph, x: GraphValue, gamma: GraphValue | None = None, beta: GraphValue | None = None, epsilon: float = 1e-5
) -> GraphValue:
    """Normalize each channel of each instance over its spatial axes."""
    size = x.known[1]
    return g.op("InstanceNormalization", x, _full(g, gamma, size, 1), _full(g, beta, size, 0), epsilon=epsilon)


@lowers(mil.layer_norm)
def layer_norm(
    g: OnnxGraph,
    x: GraphValue,
    axes: Ints | None = None,
    gamma: GraphValue | None = None,
    beta: GraphValue | None = None,
    epsilon: float = 1e-5,
) -> GraphValue:
    """Normalize over ``axes``, then scale and shift."""
    rank = x.rank
    over = sorted({axis % rank for axis in axes}) if axes is not None else list(range(rank))
    if over == [rank - 1]:
        return g.op("LayerNormalization", x, _full(g, gamma, x.known[-1], 1), beta, axis=-1, epsilon=epsilon)
    centred = g.op("Sub", x, g.op("ReduceMean", x, over))
    variance = g.op("ReduceMean", g.op("Mul", centred, centred), over)
    scaled = g.op("Div", centred, g.op("Sqrt", g.op("Add", variance, epsilon)))
    shape = [size if axis in over else 1 for axis, size in enumerate(x.known)]
    scaled = scaled if gamma is None else g.op("Mul", scaled, reshaped(g, gamma, shape))
    return scaled if beta is None else g.op("Add", scaled, reshaped(g, beta, shape))


@lowers(mil.l2_norm)
def l2_norm(g: OnnxGraph, x: GraphValue, epsilon: float = 1e-6) -> GraphValue:
    """x / sqrt(sum of squares + epsilon), over the last three axes."""
    squares = g.op("ReduceSum", g.op("Mul", x, x), [x.rank - 3, x.rank - 2, x.rank - 1])
    return g.op("Div", x, g.op("Sqrt", g.op("Add", squares, epsilon)))


@lowers(mil.local_response_norm)
def local_response_norm(
    g: OnnxGraph, x: GraphValue, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> GraphValue:
    """x / (k + alpha / size * sum of squares over the channels around) ** beta."""
    if x.rank != 4 or size % 2 == 0:
        raise UnsupportedGraph(f"a window of {size} channels at rank {x.rank}")
    return g.op("LRN", x, size=size, alpha=alpha, beta=beta, bias=k)
