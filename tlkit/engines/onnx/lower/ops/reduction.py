"""Reductions."""

from __future__ import annotations

from collections.abc import Callable

from tlkit.engines.onnx.kit.graph import GraphValue, OnnxGraph, UnsupportedGraph
from tlkit.engines.onnx.kit.registry import lowers
from tlkit.engines.onnx.lower.ops.kit import need_floats
from tlkit.mil.ops import reduction as mil
from tlkit.mil.ops.kit.registry import Ints


def _reduce(g: OnnxGraph, kind: str, x: GraphValue, axes: Ints, keep_dims: bool) -> GraphValue:
    return g.op(kind, x, list(axes), keepdims=int(keep_dims))


def _register() -> None:
    whole = ((mil.reduce_sum, "ReduceSum"), (mil.reduce_prod, "ReduceProd"), (mil.reduce_l1_norm, "ReduceL1"))
    floats = (
        (mil.reduce_mean, "ReduceMean"),
        (mil.reduce_log_sum_exp, "ReduceLogSumExp"),
        (mil.reduce_sum_square, "ReduceSumSquare"),
    )
    for operation, kind in (*whole, *floats):
        lowers(operation)(_plain(kind, floats_only=(operation, kind) in floats))
    for operation, kind in ((mil.reduce_max, "ReduceMax"), (mil.reduce_min, "ReduceMin")):
        lowers(operation, monotone=True)(_plain(kind, floats_only=False))


def _plain(kind: str, *, floats_only: bool) -> Callable[..., GraphValue]:
    def lowering(g: OnnxGraph, x: GraphValue, axes: Ints | None = None, keep_dims: bool = False) -> GraphValue:
        if floats_only:
            need_floats(x)
        return _reduce(g, kind, x, _all(x, axes), keep_dims)

    return lowering


@lowers(mil.reduce_l2_norm)
def l2_norm(g: OnnxGraph, x: GraphValue, axes: Ints | None = None, keep_dims: bool = False) -> GraphValue:
    """The square root of the sum of squares."""
    need_floats(x)
    return g.op("Sqrt", _reduce(g, "ReduceSum", g.op("Mul", x, x), _all(x, axes), keep_dims))


@lowers(mil.reduce_log_sum)
def log_sum(g: OnnxGraph, x: GraphValue, axes: Ints | None = None, keep_dims: bool = False) -> GraphValue:
    """The natural logarithm of the sum."""
    need_floats(x)
    return g.op("Log", _reduce(g, "ReduceSum", x, _all(x, axes), keep_dims))


@lowers(mil.reduce_log_sum_exp_measured)
def log_sum_exp(g: OnnxGraph, x: GraphValue, axes: Ints | None = None, keep_dims: bool = False) -> GraphValue:
    """The formula taken literally."""
    need_floats(x)
    return g.op("Log", _reduce(g, "ReduceSum", g.op("Exp", x), _all(x, axes), keep_dims))


def _all(x: GraphValue, axes: Ints | None) -> Ints:
    if axes is not None and len(axes) == 0:
        raise UnsupportedGraph("a reduction over no axis")
    return tuple(range(x.rank)) if axes is None else tuple(axis % x.rank for axis in axes)


@lowers(mil.reduce_argmax)
def argmax(
    g: OnnxGraph, x: GraphValue, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> GraphValue:
    """The index of the largest value."""
    return g.op("ArgMax", x, axis=axis % x.rank, keepdims=int(keep_dims), dtype="int64")


@lowers(mil.reduce_argmin)
def argmin(
    g: OnnxGraph, x: GraphValue, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> GraphValue:
    """The index of the smallest value."""
    return g.op("ArgMin", x, axis=axis % x.rank, keepdims=int(keep_dims), dtype="int64")


_register()
