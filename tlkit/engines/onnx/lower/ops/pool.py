"""Pools."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tlkit.engines.onnx.kit.graph import BOOL, F32, GraphValue, OnnxGraph, UnsupportedGraph
from tlkit.engines.onnx.kit.registry import lowers
from tlkit.engines.onnx.lower.ops.kit import pads
from tlkit.mil.ops import pool as mil
from tlkit.mil.ops.kit.registry import Ints


def _window(
    x: GraphValue, kernel: Ints, strides: Ints | None, pad_type: str, pad: Ints | None, ceil_mode: bool
) -> tuple[dict[str, Any], Sequence[int]]:
    """Return a pool's attributes in ONNX, and the padding that only ``ceil_mode`` adds."""
    size: Any = x
    strides = strides or (1,) * len(kernel)
    before, after, extra = mil.pool_pads(size, kernel, strides, pad_type, pad, ceil_mode)
    return {
        "kernel_shape": list(kernel),
        "strides": list(strides),
        "pads": pads(before, after, kernel),
    }, extra


@lowers(mil.max_pool, monotone=True)
def max_pool(
    g: OnnxGraph,
    x: GraphValue,
    kernel_sizes: Ints,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> GraphValue:
    """The largest value of each window; a window with a NaN gives NaN, which the runtimes' own pools lose."""
    window, _ = _window(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    if x.raw:
        return replace(_largest_raw(g, x, window), positive=x.positive and not any(window["pads"]))
    found = replace(g.op("MaxPool", x, **window), positive=x.positive and not any(window["pads"]), small=x.small)
    if not g.spelling.rounding:
        return found
    lost = g.op("Where", g.op("Equal", x, x, dtype=BOOL), g.constant(np.array(0, np.float32)), 1.0, dtype=F32)
    lost = g.op("MaxPool", lost, **window)
    none = g.op("LessOrEqual", lost, 0.5, dtype=BOOL)
    return replace(
        g.op("Where", none, found, g.constant(np.array(np.nan, np.float32)), dtype=F32), positive=found.positive
    )


def _largest_raw(g: OnnxGraph, x: GraphValue, window: dict[str, Any]) -> GraphValue:
    """The same of what is rounded later, by one pool: above what f16 has, two numbers stand for infinity, which the
    rounding makes of the one, and for NaN."""
    infinite, nothing = g.constant(np.array(2.0**17, np.float32)), g.constant(np.array(2.0**18, np.float32))
    number = g.op("Equal", x, x, dtype=BOOL)
    found = g.op("MaxPool", g.op("Where", number, g.op("Min", infinite, x), nothing, dtype=F32), **window)
    lost = g.op("Greater", found, infinite, dtype=BOOL)
    return g.op("Where", lost, g.constant(np.array(np.nan, np.float32)), found, dtype=F32)


@lowers(mil.avg_pool, mil.avg_pool_measured)
def avg_pool(
    g: OnnxGraph,
    x: GraphValue,
    kernel_sizes: Ints,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> GraphValue:
    """The mean of each window."""
    window, extra = _window(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    if any(extra) and not exclude_padding_from_average:
        raise UnsupportedGraph("its last window hangs over the edge")
    found = g.op("AveragePool", x, count_include_pad=int(not exclude_padding_from_average), **window)
    return replace(found, positive=x.positive, small=x.small)


@lowers(mil.l2_pool)
def l2_pool(
    g: OnnxGraph,
    x: GraphValue,
    kernel_sizes: Ints,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> GraphValue:
    """The square root of each window's sum of squares."""
    window, _ = _window(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    means = g.op("AveragePool", g.op("Mul", x, x), count_include_pad=1, **window)
    return g.op("Sqrt", g.op("Mul", means, float(math.prod(kernel_sizes))))
