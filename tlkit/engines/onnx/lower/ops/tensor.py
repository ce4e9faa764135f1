"""Operations that create, join, split and pad tensors, and a classifier's last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tlkit.engines.onnx.kit.graph import BOOL, I64, GraphValue, OnnxGraph, UnsupportedGraph
from tlkit.engines.onnx.kit.registry import lowers
from tlkit.engines.onnx.lower.ops.kit import need_floats, reshaped
from tlkit.mil.ops import classify as classifier
from tlkit.mil.ops import tensor as mil
from tlkit.mil.ops.kit.registry import Ints, declared_carrier


@lowers(mil.identity, monotone=True)
def identity(g: OnnxGraph, x: GraphValue) -> GraphValue:
    """x."""
    return replace(g.op("Identity", x), positive=x.positive, small=x.small)


def _marks(values: Sequence[GraphValue]) -> dict[str, Any]:
    return {"positive": all(item.positive for item in values), "small": all(item.small for item in values)}


@lowers(mil.concat, monotone=lambda given: not given.get("interleave"))
def concat(g: OnnxGraph, values: Sequence[GraphValue], axis: int, interleave: bool = False) -> GraphValue:
    """Join along ``axis``, one after another or interleaved."""
    if values[0].rank == 0:
        return g.op("Concat", *(reshaped(g, item, (1,)) for item in values), axis=0)
    if not interleave:
        return replace(g.op("Concat", *values, axis=axis), **_marks(values))
    axis = axis % values[0].rank
    shape = values[0].known
    joined = stack(g, values, axis + 1)
    return reshaped(g, joined, (*shape[:axis], shape[axis] * len(values), *shape[axis + 1 :]))


@lowers(mil.stack, monotone=True)
def stack(g: OnnxGraph, values: Sequence[GraphValue], axis: int) -> GraphValue:
    """Join along a new dimension."""
    rank = values[0].rank + 1
    axis = axis % rank
    shape = [*values[0].known]
    shape.insert(axis, 1)
    return replace(g.op("Concat", *(reshaped(g, item, shape) for item in values), axis=axis), **_marks(values))


@lowers(mil.split)
def split(
    g: OnnxGraph, x: GraphValue, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None
) -> Any:
    """Cut along ``axis``."""
    size = x.known[axis]
    part = size // (num_splits or 1)
    sizes = [*split_sizes] if split_sizes is not None else [part] * -(-size // part)
    if len(sizes) == 1:
        return g.op("Identity", x)
    if sum(sizes) != size:
        raise UnsupportedGraph("its parts do not make up the axis")
    parts = g.ops("Split", x, np.array(sizes, I64), axis=axis % x.rank, count=len(sizes))
    return tuple(replace(item, positive=x.positive, small=x.small) for item in parts)


@lowers(mil.tile)
def tile(g: OnnxGraph, x: GraphValue, reps: Ints) -> GraphValue:
    """Repeat along each dimension."""
    if len(reps) != x.rank:
        raise UnsupportedGraph("it adds dimensions")
    return g.op("Tile", x, np.array(reps, I64))


@lowers(mil.flatten2d, monotone=True)
def flatten2d(g: OnnxGraph, x: GraphValue, axis: int = 1) -> GraphValue:
    """The dimensions before ``axis`` as one, the others as one."""
    shape = x.known
    return reshaped(g, x, (int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))))


@lowers(mil.fill_like)
def fill_like(g: OnnxGraph, output_types: Any, ref_tensor: GraphValue, value: Any = 0.0) -> GraphValue:
    """A tensor in the shape of ``ref_tensor`` full of ``value``."""
    dtype = str(declared_carrier(output_types)).removeprefix("torch.")
    return g.constant(np.full(ref_tensor.known, value, dtype))


@lowers(mil.one_hot)
def one_hot(
    g: OnnxGraph,
    output_types: Any,
    indices: GraphValue,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: Any = 1,
    off_value: Any = 0,
) -> GraphValue:
    """``on_value`` at each index along a new dimension, ``off_value`` elsewhere."""
    axis = axis % (indices.rank + 1)
    dtype = str(declared_carrier(output_types)).removeprefix("torch.")
    shape = [*indices.known]
    shape.insert(axis, 1)
    places = np.arange(one_hot_vector_size, dtype=indices.dtype).reshape(-1, *(1,) * (indices.rank - axis))
    hot = g.op("Equal", reshaped(g, indices, shape), places, dtype=BOOL)
    on, off = (g.constant(np.array(item, dtype)) for item in (on_value, off_value))
    return g.op("Where", hot, on, off, dtype=dtype)


@lowers(mil.band_part)
def band_part(g: OnnxGraph, x: GraphValue, lower: int = -1, upper: int = -1) -> GraphValue:
    """The innermost matrices with zeros outside a band."""
    rows, columns = x.known[-2:]
    ahead = np.arange(columns)[None, :] - np.arange(rows)[:, None]
    inside = np.ones((rows, columns), bool)
    inside &= (ahead >= -lower) if lower >= 0 else True
    inside &= (ahead <= upper) if upper >= 0 else True
    return g.op("Where", inside, x, 0, dtype=x.dtype)


@lowers(mil.cumsum)
def cumsum(g: OnnxGraph, x: GraphValue, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> GraphValue:
    """Running sums along ``axis``."""
    return g.op("CumSum", x, np.array(axis % x.rank, I64), exclusive=int(exclusive), reverse=int(reverse))


def _ranked(g: OnnxGraph, x: GraphValue, k: int, axis: int, ascending: bool) -> list[GraphValue]:
    """Return the first values along an axis, in order, and their indices; of equals the first comes first."""
    need_floats(x)
    how: dict[str, Any] = {"axis": axis % x.rank, "largest": int(not ascending), "sorted": 1}
    values, indices = g.ops("TopK", x, [k], count=2, **how)
    return [values, replace(indices, dtype=I64)]


@lowers(mil.argsort)
def argsort(g: OnnxGraph, x: GraphValue, axis: int = -1, ascending: bool = False) -> GraphValue:
    """The indices that sort x along ``axis``, stably."""
    return _ranked(g, x, x.known[axis], axis, ascending)[1]


@lowers(mil.topk)
def topk(
    g: OnnxGraph,
    x: GraphValue,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Any:
    """The first ``k`` along ``axis``, in order, and their indices."""
    size = x.known[axis]
    if not -1 <= k <= size or size > mil.STABLE:
        raise UnsupportedGraph(f"the first {k} of {size}")
    values, indices = _ranked(g, x, size if k == -1 else k, axis, ascending)
    return (values, indices) if return_indices else values


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


@lowers(mil.pad)
def pad(g: OnnxGraph, x: GraphValue, pad: Ints, mode: str = "constant", constant_val: Any = 0.0) -> GraphValue:
    """Pad each of the last dimensions by (before, after) elements."""
    if mode not in _PAD_MODES or isinstance(constant_val, GraphValue) or min(pad, default=0) < 0:
        raise UnsupportedGraph(f"a padding of mode '{mode}' by {tuple(pad)}")
    whole = [0] * (2 * x.rank - len(pad)) + [int(n) for n in pad]
    amounts = np.array([*whole[::2], *whole[1::2]], I64)
    value = g.constant(np.array(constant_val, x.dtype)) if mode == "constant" else None
    made = g.op("Pad", x, amounts, value, mode=_PAD_MODES[mode])
    return made if mode == "constant" else replace(made, positive=x.positive, small=x.small)


@lowers(classifier.classify)
def classify(g: OnnxGraph, probabilities: GraphValue, classes: Any) -> tuple[GraphValue, GraphValue]:
    """The index of the largest probability, and all of them, flat."""
    size = int(np.prod(probabilities.known))
    flat = reshaped(g, probabilities, (size,))
    return g.op("ArgMax", flat, axis=0, keepdims=0, dtype="int64"), flat
