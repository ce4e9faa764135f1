"""What several families of lowerings share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tlkit.engines.onnx.kit.graph import I64, GraphValue, OnnxGraph, UnsupportedGraph
from tlkit.engines.onnx.kit.rounding import clamped


def bounded(g: OnnxGraph, x: GraphValue, low: float, high: float) -> GraphValue:
    """Return min(max(x, low), high), where a NaN stays one: at once, or as a clamp that waits for the rounding."""
    if not x.is_float:
        raise UnsupportedGraph(f"its operand is of type {x.dtype}")
    before, bottom, top = x.clamp or (-math.inf, math.inf), low, high
    if before[0] <= before[1]:
        bottom, top = (min(max(bound, low), high) for bound in before)
    elif x.clamp:
        x = replace(clamped(g, x), raw=x.raw)
    waiting = replace(x, clamp=(bottom, top))
    return waiting if x.raw else clamped(g, waiting)


def column(g: OnnxGraph, x: GraphValue, rank: int) -> GraphValue:
    """Return a vector [C] so that it aligns with axis 1 of a tensor of ``rank``."""
    return reshaped(g, x, (-1, *(1,) * (rank - 2))) if rank > 2 else x


def reshaped(g: OnnxGraph, x: GraphValue, shape: Sequence[int]) -> GraphValue:
    """Return x in another shape (-1 once for what is left)."""
    if x.array is not None:
        return g.constant(x.array.reshape(tuple(shape)))
    made = g.op("Reshape", x, np.array(shape, I64))
    return replace(made, shape=tuple(shape) if -1 not in shape else None, positive=x.positive, small=x.small)


def permuted(g: OnnxGraph, x: GraphValue, perm: Sequence[int]) -> GraphValue:
    """Return x with its dimensions in another order."""
    shape = None if x.shape is None else tuple(x.shape[axis] for axis in perm)
    made = g.op("Transpose", x, perm=list(perm))
    return replace(made, shape=shape, positive=x.positive, small=x.small)


def swapped(g: OnnxGraph, x: GraphValue, rank: int) -> GraphValue:
    """Return x with its last two dimensions exchanged."""
    if x.array is not None:
        return g.constant(np.ascontiguousarray(x.array.swapaxes(-1, -2)))
    return permuted(g, x, (*range(rank - 2), rank - 1, rank - 2))


def pads(before: Sequence[int], after: Sequence[int], kernel: Sequence[int] | None = None) -> list[int]:
    """Return the padding as ONNX lists it; UnsupportedGraph where it is negative, or as wide as a pool's window."""
    found = [int(n) for n in (*before, *after)]
    if min(found, default=0) < 0 or (kernel and any(n >= k for n, k in zip(found, (*kernel, *kernel), strict=True))):
        raise UnsupportedGraph(f"a padding of {found}")
    return found


def need_floats(*values: GraphValue | None) -> None:
    """Raise UnsupportedGraph where one of the values is an integer or a boolean."""
    for value in values:
        if value is not None and not value.is_float:
            raise UnsupportedGraph(f"its operand is of type {value.dtype}")


def known(value: GraphValue) -> np.ndarray:
    """Return a constant's array; UnsupportedGraph where the program computes it."""
    if value.array is None:
        raise UnsupportedGraph("it takes a constant that the program computes")
    return value.array
