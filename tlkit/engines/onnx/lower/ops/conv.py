"""Convolutions."""

from __future__ import annotations

from typing import Any

from tlkit.engines.onnx.kit.graph import GraphValue, OnnxGraph, UnsupportedGraph
from tlkit.engines.onnx.kit.registry import lowers
from tlkit.engines.onnx.lower.ops.kit import need_floats, pads
from tlkit.mil.ops import conv as mil
from tlkit.mil.ops.kit.registry import Ints
from tlkit.mil.ops.kit.window import window_pads


def _window(kernel: Ints, strides: Ints, dilations: Ints, around: list[int]) -> dict[str, Any]:
    """Return the attributes that ONNX's two convolutions share."""
    return {
        "kernel_shape": list(kernel),
        "strides": list(strides),
        "dilations": list(dilations),
        "pads": around,
    }


@lowers(mil.conv)
def conv(
    g: OnnxGraph,
    x: GraphValue,
    weight: GraphValue,
    bias: GraphValue | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> GraphValue:
    """Convolve x with weight and add bias."""
    need_floats(x, weight, bias)
    size: Any = x
    rank, kernel = x.rank - 2, weight.known[2:]
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    around = pads(*window_pads(size, kernel, strides, pad_type, pad, dilations))
    shape = _window(kernel, strides, dilations, around)
    return g.op("Conv", x, weight, bias, group=groups, **shape)


@lowers(mil.conv_transpose)
def conv_transpose(
    g: OnnxGraph,
    x: GraphValue,
    weight: GraphValue,
    bias: GraphValue | None = None,
    pad: Ints | None = None,
    output_shape: Ints | None = None,
    pad_type: str = "valid",
    strides: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> GraphValue:
    """The transposed convolution."""
    need_floats(x, weight, bias)
    size: Any = x
    rank, kernel = x.rank - 2, weight.known[2:]
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    lengths = zip(x.known[2:], strides, kernel, dilations, strict=True)
    full = [(d - 1) * s + (k - 1) * e + 1 for d, s, k, e in lengths]
    before, after = mil.transposed_cut(size, full, pad_type, pad, output_shape, strides)
    added = [max(0, b - a) for b, a in zip(before, after, strict=True)]
    limits = [max(s, e) for s, e in zip(strides, dilations, strict=True)]
    if any(more >= limit for more, limit in zip(added, limits, strict=True)):
        raise UnsupportedGraph("it adds more than a stride at the end")
    around = pads(before, [a + more for a, more in zip(after, added, strict=True)])
    shape = _window(kernel, strides, dilations, around)
    return g.op("ConvTranspose", x, weight, bias, group=groups, output_padding=added, **shape)
