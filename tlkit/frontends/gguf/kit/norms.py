"""The two normalizations of language models, over the last axis."""

from __future__ import annotations

from typing import Any

from tlkit.frontends.gguf.kit.net import Net
from tlkit.frontends.network.kit.blob import Blob
from tlkit.mil.types import DType


def normalized(net: Net, x: Blob, name: str, epsilon: float) -> Blob:
    """Return x normalized by the tensors ``name``: LayerNorm where there is a bias, else RMS norm."""
    size = x.shape[-1] or 0
    weight = net.source.tensor(f"{name}.weight", (size,))
    if net.has(f"{name}.bias"):
        bias = net.source.tensor(f"{name}.bias", (size,))
        given: dict[str, Any] = {"gamma": net.weight(weight), "beta": net.weight(bias)}
        return net.op("layer_norm", x.shape, x=x, axes=[-1], epsilon=epsilon, **given)
    return rms(net, x, net.weight(weight), epsilon)


def rms(net: Net, x: Blob, weight: Blob, epsilon: float) -> Blob:
    """Return x / sqrt(mean(x^2) + epsilon) * weight.

    In f16 the squares overflow from 256 on. There x and -x side by side, whose mean is 0 and whose variance is the mean
    square, go through a layer_norm, which units compute with wider sums.
    """
    shape = list(x.shape)
    if net.dtype is DType.FP32:
        squares = net.op("reduce_mean", [*shape[:-1], 1], x=net.multiply(x, x), axes=[-1], keep_dims=True)
        scale = net.op("rsqrt", [*shape[:-1], 1], x=squares, epsilon=epsilon)
        return net.multiply(net.multiply(x, scale), weight)
    both = net.concat([x, net.multiply(x, -1.0)], len(shape) - 1)
    width = shape[-1] or 0
    normal = net.op("layer_norm", [*shape[:-1], 2 * width], x=both, axes=[-1], epsilon=epsilon)
    return net.multiply(net.slice(normal, len(shape) - 1, 0, width), weight)
