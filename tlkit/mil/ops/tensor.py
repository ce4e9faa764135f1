"""Ops that create, join, split, sort and inspect tensors."""

from __future__ import annotations

import math
from typing import Any

import torch

from tlkit.errors import ExecutionError
from tlkit.mil.ops.kit import nms
from tlkit.mil.ops.kit import pad as _pad
from tlkit.mil.ops.kit.registry import Ints, Tensor, Tensors, declared_carrier, measured, op

STABLE = 1024
"""Up to this many elements ``topk`` sorts stably (the lower index first among equal values). On longer axes torch's
topk is several times faster, with PyTorch's order among equal values."""


@op(exact=True)
def identity(x: Tensor) -> Tensor:
    """``x``; it may be a list too."""
    return x


@op(exact=True)
def shape(x: Tensor) -> Tensor:
    """The dimensions of ``x``, int32."""
    return torch.tensor(x.shape, dtype=torch.int32, device=x.device)


@op(exact=True)
def concat(values: Tensors, axis: int, interleave: bool = False) -> Tensor:
    """Join along ``axis``, one after another or interleaved; scalars join to a vector."""
    if values[0].ndim == 0:
        return torch.stack(tuple(values))
    if interleave:
        axis = axis % values[0].ndim
        # a0 b0 a1 b1 ...
        return torch.stack(tuple(values), axis + 1).flatten(axis, axis + 1)
    return torch.cat(tuple(values), axis)


@op(exact=True)
def stack(values: Tensors, axis: int) -> Tensor:
    """Join along a new dimension at ``axis``."""
    return torch.stack(tuple(values), axis)


@op(exact=True)
def split(x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None) -> Any:
    """Cut along ``axis`` into equal parts, or into parts of the given sizes."""
    if split_sizes is not None:
        parts = x.split_with_sizes(tuple(split_sizes), axis)
    else:
        parts = x.split(x.shape[axis] // (num_splits or 1), axis)
    return parts if len(parts) > 1 else parts[0]


@op(exact=True)
def tile(x: Tensor, reps: Ints) -> Tensor:
    """Repeat ``x`` ``reps[i]`` times along dimension ``i``."""
    return x.repeat(tuple(reps))


@op(exact=True)
def flatten2d(x: Tensor, axis: int = 1) -> Tensor:
    """The dimensions before ``axis`` as one, the others as one."""
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@op(exact=True)
def fill(output_types: Any, shape: Ints, value: Any = 0.0) -> Tensor:
    """A tensor of ``shape`` full of ``value``."""
    return torch.full(tuple(shape), value, dtype=declared_carrier(output_types))


@op(since=16, exact=True)
def fill_like(output_types: Any, ref_tensor: Tensor, value: Any = 0.0) -> Tensor:
    """A tensor in the shape of ``ref_tensor`` full of ``value``."""
    return torch.full(ref_tensor.shape, value, dtype=declared_carrier(output_types), device=ref_tensor.device)


@op()
def range_1d(output_types: Any, end: float, start: float, step: float) -> Tensor:
    """``start``, ``start + step``, ... up to ``end``, which is left out.

    A length that the program declares takes precedence: it was computed in f32, and 9 / 1e-6 is whole only there.
    """
    found = torch.arange(start, end, step, dtype=declared_carrier(output_types))
    ((_, shape),) = output_types
    return found[: shape[0]] if shape else found


@op(exact=True)
def one_hot(
    output_types: Any,
    indices: Tensor,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: Any = 1,
    off_value: Any = 0,
) -> Tensor:
    """``on_value`` at each index along a new dimension at ``axis``, ``off_value`` elsewhere (out of range: all off)."""
    axis = axis % (indices.ndim + 1)
    view = [-1] + [1] * (indices.ndim - axis)
    # A comparison, not torch's one_hot: that refuses indices out of range.
    hot = indices.unsqueeze(axis) == torch.arange(one_hot_vector_size, device=indices.device).view(view)
    on, off = (torch.tensor(v, dtype=declared_carrier(output_types), device=hot.device) for v in (on_value, off_value))
    return torch.where(hot, on, off)


@op(exact=True)
def non_zero(x: Tensor) -> Tensor:
    """The coordinates of the nonzero elements, one per row, int32."""
    return x.nonzero().int()


@op(exact=True)
def band_part(x: Tensor, lower: int = -1, upper: int = -1) -> Tensor:
    """The innermost matrices with zeros outside a band of ``lower`` and ``upper`` diagonals; negative keeps all."""
    if lower >= 0:
        x = x.triu(-lower)
    return x.tril(upper) if upper >= 0 else x


@op()
def cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Running sums along ``axis``, from the end where ``reverse``; ``exclusive`` leaves out the element itself."""
    if reverse:
        x = x.flip(axis)
    if exclusive:
        x = torch.cat((torch.zeros_like(x.narrow(axis, 0, 1)), x.narrow(axis, 0, x.shape[axis] - 1)), axis)
    x = x.cumsum(axis, dtype=x.dtype)
    return x.flip(axis) if reverse else x


@op(exact=True)
def argsort(x: Tensor, axis: int = -1, ascending: bool = False) -> Tensor:
    """The indices that sort ``x`` along ``axis``, stably, int32."""
    return x.argsort(dim=axis, descending=not ascending, stable=True).int()


@op(exact=True)
def topk(
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Any:
    """The ``k`` largest (``ascending``: smallest) along ``axis``, in order, and their indices.

    The flags came with iOS16, the indices' type with iOS17 (uint16 is carried as int32), as did a ``k`` of -1 for all.
    """
    size = x.shape[axis]
    k = size if k == -1 else k
    if k > size:
        raise ExecutionError(f"k is {k} but axis {axis} has {size} elements")
    if size <= STABLE:
        values, indices = x.sort(dim=axis, descending=not ascending, stable=True)
        values, indices = values.narrow(axis, 0, k), indices.narrow(axis, 0, k)
    else:
        values, indices = x.topk(k, axis, largest=not ascending, sorted=True)
    return (values, indices.int()) if return_indices else values


@op(exact=True)
def pad(x: Tensor, pad: Ints, mode: str = "constant", constant_val: Any = 0.0) -> Tensor:
    """Pad each of the last dimensions by (before, after) elements: a constant, or the tensor mirrored or replicated."""
    return _pad.pad(x, pad, mode, constant_val)


@op(exact=True)
def non_maximum_suppression(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    score_threshold: float,
    max_boxes: int,
    per_class_suppression: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best boxes (centre x, centre y, width, height) that do not overlap a better one by more than
    ``iou_threshold``.

    Boxes are [n, B, 4] and scores [n, B, K]; returns both for the selected ones, their indices and their number. Where
    there are fewer than ``max_boxes``, zeros follow, and indices of -1.
    """
    chosen = [
        nms.select(box, score, iou_threshold, score_threshold, max_boxes, per_class_suppression)
        for box, score in zip(boxes, scores, strict=True)
    ]
    index = torch.stack([_filled(item, max_boxes) for item in chosen])
    count = torch.tensor([item.numel() for item in chosen], dtype=torch.int32, device=boxes.device)
    return _take(boxes, index, 1), _take(scores, index, 1), index.int(), count


@op("non_maximum_suppression", since=17, exact=True)
def non_maximum_suppression_17(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_boxes: int, per_class_suppression: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The same with the boxes last ([n, 4, B], [n, K, B]), without a threshold on scores and without the count."""
    return _suppress(boxes, scores, iou_threshold, max_boxes, per_class_suppression, ties=False)


@measured("O19", "non_maximum_suppression", since=17)
def non_maximum_suppression_17_measured(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_boxes: int, per_class_suppression: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, but a box that overlaps a better one by exactly ``iou_threshold`` is dropped, too.

    Apple's own test of the corner case (coremltools' ``test_nms_corner_case_iou_equal_threshold``) expects Core ML to
    keep that box before iOS17 and to drop it from iOS17 on. Boxes that do not overlap stay at a threshold of 0.
    """
    return _suppress(boxes, scores, iou_threshold, max_boxes, per_class_suppression, ties=True)


def _suppress(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_boxes: int, per_class: bool, *, ties: bool
) -> tuple[Tensor, Tensor, Tensor]:
    chosen = [
        nms.select(box.mT, score.mT, iou_threshold, -math.inf, max_boxes, per_class, ties=ties)
        for box, score in zip(boxes, scores, strict=True)
    ]
    index = torch.stack([_filled(item, max_boxes) for item in chosen])
    return _take(boxes, index, 2), _take(scores, index, 2), index.int()


def _filled(index: Tensor, length: int) -> Tensor:
    return torch.cat((index, index.new_full((length - index.numel(),), -1)))


def _take(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """Slices of ``x`` [n, ...] along ``axis`` at ``index`` [n, m], zeros where it is -1."""
    view = [index.shape[0], 1, 1]
    view[axis] = index.shape[1]
    shape = list(x.shape)
    shape[axis] = index.shape[1]
    where = index.view(view).expand(shape)
    return torch.where(where < 0, 0.0, x.gather(axis, where.clamp(min=0)))
