"""Ops that move, cut and reorder elements without changing them: all exact."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from tlkit.errors import ExecutionError
from tlkit.mil.ops.kit.registry import Bools, Ints, Tensor, Tensors, op

_MOST_AXES = 64
"""Dimensions that PyTorch's kernels take; Core ML's tensors have at most five."""


@op(exact=True)
def reshape(x: Tensor, shape: Ints) -> Tensor:
    """The elements of ``x`` in another shape: -1 is inferred, 0 copies the dimension of ``x`` in that place.

    From iOS17 on the places of 0 are counted from the right, and a 0 without a counterpart becomes 1; before, the ranks
    must be equal, and then both readings agree.
    """
    # In an empty tensor a 0 is the length itself.
    if 0 in shape and x.numel():
        shift = x.ndim - len(shape)
        shape = [(x.shape[i + shift] if i + shift >= 0 else 1) if d == 0 else d for i, d in enumerate(shape)]
    return x.reshape(tuple(shape))


@op(since=16, exact=True)
def reshape_like(x: Tensor, ref_tensors: Tensors, begins: Ints, ends: Ints, end_masks: Bools) -> Tensor:
    """``x`` in the shape that slices of the references' shapes, concatenated, give."""
    shape: list[int] = []
    for ref, begin, end, whole in zip(ref_tensors, _many(begins), _many(ends), _many(end_masks), strict=True):
        shape += ref.shape[begin:] if whole else ref.shape[begin:end]
    return x.reshape(shape)


@op(exact=True)
def expand_dims(x: Tensor, axes: Ints) -> Tensor:
    """Insert dimensions of size 1 at the positions ``axes`` of the result."""
    if len(axes) == 1:
        return x.unsqueeze(axes[0])
    rank = x.ndim + len(axes)
    if rank > _MOST_AXES:
        raise ExecutionError(f"a tensor of {rank} dimensions", f"PyTorch's have at most {_MOST_AXES}")
    # In ascending order: positions count in the result.
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@op(exact=True)
def squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    """Remove the dimensions of size 1 among ``axes`` (default: all); others stay, as in PyTorch."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@op(exact=True)
def transpose(x: Tensor, perm: Ints) -> Tensor:
    """Permute the dimensions."""
    return x.permute(tuple(perm))


@op(exact=True)
def slice_by_index(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """numpy's ``x[begin:end:stride, ...]``; masks ignore a begin or an end, or index only at begin."""
    index, flips = slice_index(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    return x[index].flip(flips) if flips else x[index]


@op(since=18, exact=True)
def slice_update(
    x: Tensor,
    update: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """``x`` with ``update`` in the place that ``slice_by_index`` would read."""
    return slice_update_(x.clone(), update, begin, end, stride, begin_mask, end_mask, squeeze_mask)


def slice_update_(
    x: Tensor,
    update: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """The same, in place."""
    index, flips = slice_index(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    target = x[index]
    update = update.reshape(target.shape)
    target.copy_(update.flip(flips) if flips else update)
    return x


@op(exact=True)
def slice_by_size(x: Tensor, begin: Ints, size: Ints) -> Tensor:
    """``size`` elements from ``begin`` on; a size of -1 takes all that follow."""
    index = []
    for first, length, dim in zip(begin, size, x.shape, strict=True):
        first = first + dim if first < 0 else first
        index.append(slice(first, dim if length == -1 else first + length))
    return x[tuple(index)]


@op(exact=True)
def reverse(x: Tensor, axes: Ints | None = None) -> Tensor:
    """Reverse the order along ``axes`` (default: all)."""
    return x.flip(tuple(range(x.ndim)) if axes is None else tuple(axes))


@op(exact=True)
def reverse_sequence(x: Tensor, lengths: Tensor, seq_axis: int = 0, batch_axis: int = 0) -> Tensor:
    """Reverse the first ``lengths[i]`` elements along ``seq_axis`` in each slice ``i`` of ``batch_axis``."""
    sequence, batch = seq_axis % x.ndim, batch_axis % x.ndim
    if sequence == batch:
        raise ExecutionError("seq_axis and batch_axis are the same")
    along = [1] * x.ndim
    across = [1] * x.ndim
    along[sequence], across[batch] = x.shape[sequence], x.shape[batch]
    place = torch.arange(x.shape[sequence], device=x.device).view(along)
    limit = lengths.to(torch.int64).view(across)
    return x.gather(sequence, torch.where(place < limit, limit - 1 - place, place).expand(x.shape))


@op(exact=True)
def sliding_windows(x: Tensor, axis: int, size: int, stride: int = 1) -> Tensor:
    """Every window of ``size`` along ``axis``, in a new dimension after it."""
    axis = axis % x.ndim
    return x.unfold(axis, size, stride).movedim(-1, axis + 1)


@op(exact=True)
def depth_to_space(x: Tensor, block_size: int) -> Tensor:
    """Rearrange blocks of channels to blocks of pixels; the position in the block is the channel's slow part."""
    n, c, h, w = x.shape
    b = block_size
    # [n, (b, b, c), h, w] becomes [n, c, (h, b), (w, b)].
    return x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // (b * b), h * b, w * b)


@op(exact=True)
def space_to_depth(x: Tensor, block_size: int) -> Tensor:
    """The inverse of ``depth_to_space``."""
    n, c, h, w = x.shape
    b = block_size
    # [n, c, (h, b), (w, b)] becomes [n, (b, b, c), h, w].
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


@op(exact=True)
def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """Rearrange blocks of channels to blocks of pixels; the position in the block is the channel's fast part."""
    return F.pixel_shuffle(x, upscale_factor)


@op(since=16, exact=True)
def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    """The inverse of ``pixel_shuffle``."""
    return F.pixel_unshuffle(x, downscale_factor)


@op(exact=True)
def space_to_batch(x: Tensor, block_shape: Ints, paddings: Any) -> Tensor:
    """Pad height and width with zeros, then move each position in a block to the batch."""
    (top, bottom), (left, right) = paddings
    x = F.pad(x, (left, right, top, bottom))
    n, c, h, w = x.shape
    a, b = block_shape
    # [n, c, (h, a), (w, b)] becomes [(a, b, n), c, h, w].
    return x.reshape(n, c, h // a, a, w // b, b).permute(3, 5, 0, 1, 2, 4).reshape(n * a * b, c, h // a, w // b)


@op(exact=True)
def batch_to_space(x: Tensor, block_shape: Ints, crops: Any) -> Tensor:
    """The inverse of ``space_to_batch``: the batch to blocks of pixels, then crop."""
    n, c, h, w = x.shape
    a, b = block_shape
    n = n // math.prod(block_shape)
    # [(a, b, n), c, h, w] becomes [n, c, (h, a), (w, b)].
    x = x.reshape(a, b, n, c, h, w).permute(2, 3, 4, 0, 5, 1).reshape(n, c, h * a, w * b)
    (top, bottom), (left, right) = crops
    return x[:, :, top : h * a - bottom, left : w * b - right]


def slice_index(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None,
    begin_mask: Bools | None,
    end_mask: Bools | None,
    squeeze_mask: Bools | None,
) -> tuple[tuple[slice | int, ...], tuple[int, ...]]:
    """Return an index with positive steps, and the axes of its result to flip: torch has no negative steps."""
    index: list[slice | int] = []
    flips: list[int] = []
    kept = 0
    for i in range(x.ndim):
        first = None if begin_mask and begin_mask[i] else begin[i]
        last = None if end_mask and end_mask[i] else end[i]
        step = stride[i] if stride else 1
        if squeeze_mask and squeeze_mask[i]:
            index.append(first or 0)
            continue
        if step < 0:
            # The same places in ascending order; the result is flipped.
            places = range(x.shape[i])[first:last:step]
            first, last, step = (places[-1], places[0] + 1, -step) if len(places) else (0, 0, 1)
            flips.append(kept)
        index.append(slice(first, last, step))
        kept += 1
    return tuple(index), tuple(flips)


def _many(value: Any) -> Any:
    """Return a list input's values; a single value arrives without a list."""
    return value if isinstance(value, (tuple, list)) else (value,)
