"""Operations that move, cut and reorder elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tlkit.engines.onnx.kit.graph import I64, GraphValue, OnnxGraph, UnsupportedGraph
from tlkit.engines.onnx.kit.registry import lowers
from tlkit.engines.onnx.lower.ops.kit import permuted, reshaped
from tlkit.mil.ops import transformation as mil
from tlkit.mil.ops.kit.registry import Bools, Ints

_BEFORE_ALL = -(2**31)
"""Where a slice with a negative step ends that takes the first element, too."""


@lowers(mil.reshape, monotone=True)
def reshape(g: OnnxGraph, x: GraphValue, shape: Ints) -> GraphValue:
    """The elements in another shape."""
    size = math.prod(x.known)
    if 0 in shape and size:
        shift = x.rank - len(shape)
        shape = [(x.known[i + shift] if i + shift >= 0 else 1) if d == 0 else d for i, d in enumerate(shape)]
    rest = math.prod(d for d in shape if d != -1)
    return reshaped(g, x, [size // max(rest, 1) if d == -1 else int(d) for d in shape])


@lowers(mil.reshape_like, monotone=True)
def reshape_like(
    g: OnnxGraph, x: GraphValue, ref_tensors: Sequence[GraphValue], begins: Ints, ends: Ints, end_masks: Bools
) -> GraphValue:
    """x in the shape that slices of the references' shapes give."""
    shape: list[int] = []
    many = [item if isinstance(item, tuple | list) else (item,) for item in (begins, ends, end_masks)]
    for ref, begin, end, whole in zip(ref_tensors, *many, strict=True):
        shape += ref.known[begin:] if whole else ref.known[begin:end]
    return reshaped(g, x, shape)


@lowers(mil.expand_dims, monotone=True)
def expand_dims(g: OnnxGraph, x: GraphValue, axes: Ints) -> GraphValue:
    """Insert dimensions of size 1."""
    rank = x.rank + len(axes)
    shape = [*x.known]
    for axis in sorted(axis % rank for axis in axes):
        shape.insert(axis, 1)
    return reshaped(g, x, shape)


@lowers(mil.squeeze, monotone=True)
def squeeze(g: OnnxGraph, x: GraphValue, axes: Ints | None = None) -> GraphValue:
    """Remove dimensions of size 1."""
    over = range(x.rank) if axes is None else [axis % x.rank for axis in axes]
    return reshaped(g, x, [size for axis, size in enumerate(x.known) if axis not in over or size != 1])


@lowers(mil.transpose, monotone=True)
def transpose(g: OnnxGraph, x: GraphValue, perm: Ints) -> GraphValue:
    """Permute the dimensions."""
    return permuted(g, x, [axis % x.rank for axis in perm])


def _slice(g: OnnxGraph, x: GraphValue, pieces: Sequence[tuple[int, int, int, int]]) -> GraphValue:
    """Take (axis, first, end, step) of each axis named."""
    pieces = [piece for piece in pieces if piece[1:] != (0, x.known[piece[0]], 1)]
    if not pieces:
        return replace(g.op("Identity", x), positive=x.positive, small=x.small)
    axes, firsts, ends, steps = (np.array(column, I64) for column in zip(*pieces, strict=True))
    return replace(g.op("Slice", x, firsts, ends, axes, steps), positive=x.positive, small=x.small)


def _piece(axis: int, size: int, first: int | None, last: int | None, step: int) -> tuple[int, int, int, int]:
    start, stop, step = slice(first, last, step).indices(size)
    return axis, start, stop if stop >= 0 else _BEFORE_ALL, step


@lowers(mil.slice_by_index)
def slice_by_index(
    g: OnnxGraph,
    x: GraphValue,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> GraphValue:
    """numpy's ``x[begin:end:stride, ...]``."""
    pieces, shape = [], []
    for axis, size in enumerate(x.known):
        first = None if begin_mask and begin_mask[axis] else begin[axis]
        last = None if end_mask and end_mask[axis] else end[axis]
        step = stride[axis] if stride else 1
        if squeeze_mask and squeeze_mask[axis]:
            place = (first or 0) % size
            pieces.append((axis, place, place + 1, 1))
            continue
        pieces.append(_piece(axis, size, first, last, step))
        shape.append(len(range(size)[slice(first, last, step)]))
    if 0 in shape:
        raise UnsupportedGraph("its result is empty")
    found = _slice(g, x, pieces)
    return found if len(shape) == x.rank else reshaped(g, found, shape)


@lowers(mil.slice_update, mil.slice_update_)
def slice_update(
    g: OnnxGraph,
    x: GraphValue,
    update: GraphValue,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> GraphValue:
    """x with ``update`` in the place that ``slice_by_index`` would read."""
    size: Any = x
    index, flips = mil.slice_index(size, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    places = np.arange(math.prod(x.known), dtype=I64).reshape(x.known)[index]
    places = np.flip(places, flips) if flips else places
    if not places.size:
        raise UnsupportedGraph("it updates nothing")
    flat, new = reshaped(g, x, (-1,)), reshaped(g, update, (-1,))
    made = g.op("ScatterND", flat, np.ascontiguousarray(places).reshape(-1, 1), new)
    return reshaped(g, made, x.known)


@lowers(mil.slice_by_size)
def slice_by_size(g: OnnxGraph, x: GraphValue, begin: Ints, size: Ints) -> GraphValue:
    """``size`` elements from ``begin`` on."""
    pieces = []
    for axis, (first, length, dim) in enumerate(zip(begin, size, x.known, strict=True)):
        first = first + dim if first < 0 else first
        pieces.append(_piece(axis, dim, first, dim if length == -1 else first + length, 1))
    return _slice(g, x, pieces)


@lowers(mil.reverse)
def reverse(g: OnnxGraph, x: GraphValue, axes: Ints | None = None) -> GraphValue:
    """Reverse the order along ``axes``."""
    over = range(x.rank) if axes is None else [axis % x.rank for axis in axes]
    return _slice(g, x, [_piece(axis, x.known[axis], None, None, -1) for axis in over])


@lowers(mil.sliding_windows)
def sliding_windows(g: OnnxGraph, x: GraphValue, axis: int, size: int, stride: int = 1) -> GraphValue:
    """Every window of ``size`` along ``axis``, in a new dimension after it."""
    axis = axis % x.rank
    starts = np.arange(0, x.known[axis] - size + 1, stride)
    return g.op("Gather", x, (starts[:, None] + np.arange(size)).astype(I64), axis=axis)


@lowers(mil.depth_to_space, monotone=True)
def depth_to_space(g: OnnxGraph, x: GraphValue, block_size: int) -> GraphValue:
    """Blocks of channels to blocks of pixels; the position in the block is the channel's slow part."""
    return g.op("DepthToSpace", x, blocksize=block_size, mode="DCR")


@lowers(mil.space_to_depth, monotone=True)
def space_to_depth(g: OnnxGraph, x: GraphValue, block_size: int) -> GraphValue:
    """The inverse of ``depth_to_space``."""
    return g.op("SpaceToDepth", x, blocksize=block_size)


@lowers(mil.pixel_shuffle, monotone=True)
def pixel_shuffle(g: OnnxGraph, x: GraphValue, upscale_factor: int) -> GraphValue:
    """Blocks of channels to blocks of pixels; the position in the block is the channel's fast part."""
    return g.op("DepthToSpace", x, blocksize=upscale_factor, mode="CRD")


@lowers(mil.pixel_unshuffle, monotone=True)
def pixel_unshuffle(g: OnnxGraph, x: GraphValue, downscale_factor: int) -> GraphValue:
    """The inverse of ``pixel_shuffle``."""
    n, c, h, w = x.known
    b = downscale_factor
    apart = permuted(g, reshaped(g, x, (n, c, h // b, b, w // b, b)), (0, 1, 3, 5, 2, 4))
    return reshaped(g, apart, (n, c * b * b, h // b, w // b))


@lowers(mil.space_to_batch)
def space_to_batch(g: OnnxGraph, x: GraphValue, block_shape: Ints, paddings: Any) -> GraphValue:
    """Pad height and width with zeros, then move each position in a block to the batch."""
    (top, bottom), (left, right) = paddings
    n, c, h, w = x.known
    h, w = h + top + bottom, w + left + right
    x = g.op("Pad", x, np.array([0, 0, top, left, 0, 0, bottom, right], I64))
    a, b = block_shape
    apart = permuted(g, reshaped(g, x, (n, c, h // a, a, w // b, b)), (3, 5, 0, 1, 2, 4))
    return reshaped(g, apart, (n * a * b, c, h // a, w // b))


@lowers(mil.batch_to_space)
def batch_to_space(g: OnnxGraph, x: GraphValue, block_shape: Ints, crops: Any) -> GraphValue:
    """The inverse of ``space_to_batch``."""
    n, c, h, w = x.known
    a, b = block_shape
    n = n // (a * b)
    apart = permuted(g, reshaped(g, x, (a, b, n, c, h, w)), (2, 3, 4, 0, 5, 1))
    whole = reshaped(g, apart, (n, c, h * a, w * b))
    (top, bottom), (left, right) = crops
    return _slice(g, whole, [(2, top, h * a - bottom, 1), (3, left, w * b - right, 1)])
