"""Gathers, and scatters to places that the program fixes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tlkit.engines.onnx.kit.graph import BOOL, I64, GraphValue, OnnxGraph, UnsupportedGraph
from tlkit.engines.onnx.kit.registry import lowers
from tlkit.engines.onnx.lower.ops.kit import known
from tlkit.mil.ops import scatter_gather as mil


def _clamped(g: OnnxGraph, indices: GraphValue, sizes: Sequence[int]) -> GraphValue:
    """Return indices within 0 and each size."""
    low, high = np.zeros(1, indices.dtype), np.array([max(size - 1, 0) for size in sizes], indices.dtype)
    if indices.array is not None:
        return g.constant(np.clip(indices.array, 0, high[0] if len(high) == 1 else high).astype(indices.dtype))
    low, high = (low[0].reshape(()), high[0].reshape(())) if len(sizes) == 1 else (low, high)
    return g.op("Min", g.op("Max", indices, low), high)


def _wrapped(g: OnnxGraph, indices: GraphValue, sizes: Sequence[int]) -> GraphValue:
    """Return indices of which negative ones count from the end."""
    size = np.array(sizes if len(sizes) > 1 else sizes[0], indices.dtype)
    if indices.array is not None:
        return g.constant(np.where(indices.array < 0, indices.array + size, indices.array).astype(indices.dtype))
    return g.op("Where", g.op("Less", indices, 0, dtype=BOOL), g.op("Add", indices, size), indices, dtype=indices.dtype)


def _index(g: OnnxGraph, indices: GraphValue) -> GraphValue:
    """Return indices of a type that ONNX takes."""
    return indices if indices.dtype in ("int32", I64) else g.cast(indices, "int32")


def _unchecked(validate: bool, indices: GraphValue) -> None:
    if validate and indices.array is None:
        raise UnsupportedGraph("its indices are to be checked")


def _gather(
    g: OnnxGraph, x: GraphValue, indices: GraphValue, axis: int, batch_dims: int, settle: Callable[..., GraphValue]
) -> GraphValue:
    if batch_dims:
        raise UnsupportedGraph(f"a gather with {batch_dims} batch dimensions")
    axis = axis % x.rank
    return g.op("Gather", x, settle(g, _index(g, indices), (x.known[axis],)), axis=axis)


@lowers(mil.gather_wrapping)
def gather_wrapping(g: OnnxGraph, x: GraphValue, indices: GraphValue, axis: int = 0, batch_dims: int = 0) -> GraphValue:
    """x at ``indices`` along ``axis``; negative ones count from the end."""
    return _gather(g, x, indices, axis, batch_dims, _wrapped)


@lowers(mil.gather)
def gather(
    g: OnnxGraph, x: GraphValue, indices: GraphValue, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False
) -> GraphValue:
    """x at ``indices`` along ``axis``."""
    _unchecked(validate_indices, indices)
    return _gather(g, x, indices, axis, batch_dims, _clamped)


@lowers(mil.gather_along_axis_wrapping)
def gather_along_axis_wrapping(g: OnnxGraph, x: GraphValue, indices: GraphValue, axis: int = 0) -> GraphValue:
    """x at ``indices`` along ``axis``, place by place."""
    return _along(g, x, indices, axis, _wrapped)


@lowers(mil.gather_along_axis)
def gather_along_axis(
    g: OnnxGraph, x: GraphValue, indices: GraphValue, axis: int = 0, validate_indices: bool = False
) -> GraphValue:
    """x at ``indices`` along ``axis``, place by place."""
    _unchecked(validate_indices, indices)
    return _along(g, x, indices, axis, _clamped)


def _along(
    g: OnnxGraph, x: GraphValue, indices: GraphValue, axis: int, settle: Callable[..., GraphValue]
) -> GraphValue:
    axis = axis % x.rank
    others = [(a, b) for i, (a, b) in enumerate(zip(x.known, indices.known, strict=True)) if i != axis]
    if any(a != b for a, b in others):
        raise UnsupportedGraph("its indices are fewer than the elements in another dimension")
    return g.op("GatherElements", x, settle(g, _index(g, indices), (x.known[axis],)), axis=axis)


@lowers(mil.gather_nd_wrapping)
def gather_nd_wrapping(g: OnnxGraph, x: GraphValue, indices: GraphValue, batch_dims: int = 0) -> GraphValue:
    """Slices of x at coordinates; negative ones count from the end."""
    return _nd(g, x, indices, batch_dims, _wrapped)


@lowers(mil.gather_nd_measured)
def gather_nd_measured(g: OnnxGraph, x: GraphValue, indices: GraphValue, batch_dims: int = 0) -> GraphValue:
    """Slices of x at coordinates."""
    return _nd(g, x, indices, batch_dims, _clamped)


@lowers(mil.gather_nd)
def gather_nd(
    g: OnnxGraph, x: GraphValue, indices: GraphValue, batch_dims: int = 0, validate_indices: bool = False
) -> GraphValue:
    """Slices of x at coordinates."""
    _unchecked(validate_indices, indices)
    return _nd(g, x, indices, batch_dims, _clamped)


def _nd(
    g: OnnxGraph, x: GraphValue, indices: GraphValue, batch_dims: int, settle: Callable[..., GraphValue]
) -> GraphValue:
    if batch_dims:
        raise UnsupportedGraph(f"a gather with {batch_dims} batch dimensions")
    depth = indices.known[-1]
    return g.op("GatherND", x, g.cast(settle(g, _index(g, indices), x.known[:depth]), I64))


_REDUCTIONS = {"update": "none", "add": "add", "mul": "mul", "max": "max", "min": "min"}


def _fixed(g: OnnxGraph, indices: GraphValue, sizes: Sequence[int], wrapping: bool) -> np.ndarray[Any, Any]:
    """Return constant indices, all within the sizes."""
    found = known(indices).astype(I64)
    size = np.array(sizes)
    found = np.where(found < 0, found + size, found) if wrapping else found
    if (found < 0).any() or (found >= size).any():
        raise UnsupportedGraph("an index is out of range")
    return found


def _reduction(mode: str) -> str:
    if mode not in _REDUCTIONS:
        raise UnsupportedGraph(f"a scatter of mode '{mode}'")
    return _REDUCTIONS[mode]


def _slices(
    g: OnnxGraph, data: GraphValue, indices: GraphValue, updates: GraphValue, axis: int, mode: str, wrapping: bool
) -> GraphValue:
    if axis % data.rank:
        raise UnsupportedGraph(f"a scatter along axis {axis}")
    index = _fixed(g, indices, data.known[:1], wrapping).reshape(-1, 1)
    new = g.op("Reshape", updates, np.array([len(index), *data.known[1:]], I64))
    return g.op("ScatterND", data, index, new, reduction=_reduction(mode))


@lowers(mil.scatter_wrapping)
def scatter_wrapping(
    g: OnnxGraph, data: GraphValue, indices: GraphValue, updates: GraphValue, axis: int = 0, mode: str = "add"
) -> GraphValue:
    """``data`` with slices of ``updates``."""
    return _slices(g, data, indices, updates, axis, mode, True)


@lowers(mil.scatter)
def scatter(
    g: OnnxGraph,
    data: GraphValue,
    indices: GraphValue,
    updates: GraphValue,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> GraphValue:
    """``data`` with slices of ``updates``."""
    return _slices(g, data, indices, updates, axis, mode, False)


@lowers(mil.scatter_nd_wrapping)
def scatter_nd_wrapping(
    g: OnnxGraph, data: GraphValue, indices: GraphValue, updates: GraphValue, mode: str = "add"
) -> GraphValue:
    """``data`` with ``updates`` at coordinates."""
    index = _fixed(g, indices, data.known[: indices.known[-1]], True)
    return g.op("ScatterND", data, index, updates, reduction=_reduction(mode))


@lowers(mil.scatter_nd)
def scatter_nd(
    g: OnnxGraph,
    data: GraphValue,
    indices: GraphValue,
    updates: GraphValue,
    mode: str = "add",
    validate_indices: bool = False,
) -> GraphValue:
    """``data`` with ``updates`` at coordinates."""
    index = _fixed(g, indices, data.known[: indices.known[-1]], False)
    return g.op("ScatterND", data, index, updates, reduction=_reduction(mode))
