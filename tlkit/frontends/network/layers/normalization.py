"""Normalizations and softmax. An unset epsilon has a default of its own in each."""

from __future__ import annotations

from typing import Any

from tlkit.errors import LoadError
from tlkit.frontends.network.kit.arithmetic import binary, unary
from tlkit.frontends.network.kit.blob import Blob, axis_of
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.registry import Layer, layer, lengths


@layer("batchnorm")
def batchnorm(g: Graph, layer: Layer) -> Blob:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta by channel; the statistics may be the input's own."""
    p, x = layer.params, g.images(layer.x)
    shape, epsilon = (p.channels,), p.epsilon or 1e-5
    gamma, beta = (layer.weights.tensor(w, shape) for w in (p.gamma, p.beta))
    if not p.computeMeanVar:
        mean, variance = (layer.weights.tensor(w, shape) for w in (p.mean, p.variance))
        given: dict[str, Any] = {"mean": mean, "variance": variance, "gamma": gamma, "beta": beta, "epsilon": epsilon}
        return g.restored(unary(g, "batch_norm", x, **given), layer.x)
    if p.instanceNormalization:
        return g.restored(unary(g, "instance_norm", x, gamma=gamma, beta=beta, epsilon=epsilon), layer.x)
    normal = _standard(g, x, [0, 2, 3], epsilon)
    # [C] seen as [C, 1, 1], so that it goes along the channels
    scaled = binary(g, "mul", normal, Blob(g.tensor(gamma).name, shape, 0, 2))
    return g.restored(g.lay(binary(g, "add", scaled, Blob(g.tensor(beta).name, shape, 0, 2))), layer.x)


def _centred(g: Graph, x: Blob, axes: list[int]) -> Blob:
    shape = tuple(1 if axis in axes else d for axis, d in enumerate(x.shape))
    return binary(g, "sub", x, g.op("reduce_mean", shape, x=x, axes=axes, keep_dims=True))


def _standard(g: Graph, x: Blob, axes: list[int], epsilon: float) -> Blob:
    """x less its mean, over the root of its variance and epsilon."""
    centred = _centred(g, x, axes)
    shape = tuple(1 if axis in axes else d for axis, d in enumerate(x.shape))
    squares = unary(g, "square", centred)
    variance = g.op("reduce_mean", shape, x=squares, axes=axes, keep_dims=True)
    return binary(g, "mul", centred, unary(g, "rsqrt", variance, epsilon=epsilon))


@layer("mvn")
def mvn(g: Graph, layer: Layer) -> Blob:
    """Take the mean off each channel, or off all together, and make the variance 1 if that is asked for."""
    p, x = layer.params, g.images(layer.x)
    axes = [1, 2, 3] if p.acrossChannels else [2, 3]
    made = _standard(g, x, axes, p.epsilon or 1e-6) if p.normalizeVariance else _centred(g, x, axes)
    return g.restored(made, layer.x)


@layer("l2normalize")
def l2normalize(g: Graph, layer: Layer) -> Blob:
    """x / sqrt(sum of squares over C, H and W + epsilon)."""
    x = g.images(layer.x)
    return g.restored(unary(g, "l2_norm", x, epsilon=layer.params.epsilon or 1e-6), layer.x)


@layer("lrn")
def lrn(g: Graph, layer: Layer) -> Blob:
    """x / (k + alpha / n * sum of squares of n channels) ** beta."""
    p, x = layer.params, g.images(layer.x)
    given = {"alpha": p.alpha, "beta": p.beta, "k": p.k or 1.0, "size": lengths([p.localSize or 1], 1, 1)[0]}
    return g.restored(unary(g, "local_response_norm", x, **given), layer.x)


@layer("layerNormalization")
def layer_normalization(g: Graph, layer: Layer) -> Blob:
    """Normalize over the last axes, then scale and shift."""
    p, x = layer.params, g.lay(layer.x)
    shape = tuple(int(length) for length in p.normalizedShape)
    if not 0 < len(shape) <= len(x.shape) or min(shape) < 1:
        raise LoadError(f"it normalizes {shape} of {x.shape}", "the network is damaged")
    gamma, beta = (layer.weights.tensor(w, shape) for w in (p.gamma, p.beta))
    axes = list(range(-len(shape), 0))
    return unary(g, "layer_norm", x, axes=axes, gamma=gamma, beta=beta, epsilon=p.eps or 1e-5)


@layer("softmax")
def softmax(g: Graph, layer: Layer) -> Blob:
    """Softmax over the third axis from the end, whatever the rank."""
    return _softmax(g, layer.x, axis_of(-3, layer.x.rank))


@layer("softmaxND")
def softmax_nd(g: Graph, layer: Layer) -> Blob:
    """Softmax over one axis."""
    return _softmax(g, layer.x, axis_of(layer.params.axis, layer.x.rank))


def _softmax(g: Graph, x: Blob, axis: int) -> Blob:
    if not x.lead <= axis < x.lead + len(x.shape):
        # An axis of 1 outside the program has to come into it.
        x = g.lay(x)
    return unary(g, "softmax", x, axis=axis - x.lead - len(x.shape))
