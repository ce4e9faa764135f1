"""Gathers and scatters. Negative indices count from the end up to iOS16; from iOS17 on they are out of range.

In MIL an index out of range is undefined behaviour, unless ``validate_indices`` makes it an error. Here a gather reads
the nearest element (before iOS17 it is an error, except for ``gather_nd``) and a scatter drops its update, so that only
the operand's memory is touched.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from tlkit.errors import ExecutionError
from tlkit.mil.ops.kit.narrow import picked
from tlkit.mil.ops.kit.registry import Tensor, measured, op


@op("gather", exact=True)
def gather_wrapping(x: Tensor, indices: Tensor, axis: int = 0, batch_dims: int = 0) -> Tensor:
    """``x`` at ``indices`` along ``axis``; the first ``batch_dims`` dimensions (iOS16) are batched."""
    axis = axis % x.ndim
    return _gather(x, _wrapped(indices, x.shape[axis]), axis, batch_dims)


@op(since=17, exact=True)
def gather(x: Tensor, indices: Tensor, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """``x`` at ``indices`` along ``axis``; the first ``batch_dims`` dimensions are batched."""
    axis = axis % x.ndim
    return _gather(x, _checked(indices, x.shape[axis], validate_indices), axis, batch_dims)


@op("gather_along_axis", exact=True)
def gather_along_axis_wrapping(x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
    """``x`` at ``indices`` along ``axis``, place by place in the other dimensions."""
    return x.gather(axis, _wrapped(indices, x.shape[axis]).long())


@op(since=17, exact=True)
def gather_along_axis(x: Tensor, indices: Tensor, axis: int = 0, validate_indices: bool = False) -> Tensor:
    """``x`` at ``indices`` along ``axis``, place by place in the other dimensions."""
    return x.gather(axis, _checked(indices, x.shape[axis], validate_indices).long())


@op("gather_nd", exact=True)
def gather_nd_wrapping(x: Tensor, indices: Tensor, batch_dims: int = 0) -> Tensor:
    """Slices of ``x`` at the coordinates in the last dimension of ``indices``; ``batch_dims`` since iOS16."""
    return _gather_nd(x, indices, batch_dims, _wrapped)


@measured("O7", "gather_nd", computed="indices")
def gather_nd_measured(x: Tensor, indices: Tensor, batch_dims: int = 0) -> Tensor:
    """The same, but Core ML was seen not to count negative indices from the end (microsoft/onnxruntime#28598) where the
    model computes them: they are out of range. coremltools' own tests of constant ones, which Apple runs on Macs,
    expect them to be counted."""
    return _gather_nd(x, indices, batch_dims, lambda index, size: _checked(index, size, False))


@op(since=17, exact=True)
def gather_nd(x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """Slices of ``x`` at the coordinates in the last dimension of ``indices``."""
    return _gather_nd(x, indices, batch_dims, lambda index, size: _checked(index, size, validate_indices))


@op("scatter")
def scatter_wrapping(data: Tensor, indices: Tensor, updates: Tensor, axis: int = 0, mode: str = "add") -> Tensor:
    """``data`` with whole slices of ``updates`` put, or combined by ``mode``, at ``indices`` along ``axis``."""
    return _scatter_slices(data, _wrapped(indices, data.shape[axis]), updates, axis, mode)


@op(since=17)
def scatter(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> Tensor:
    """``data`` with whole slices of ``updates`` put, or combined by ``mode``, at ``indices`` along ``axis``."""
    _validate(indices, data.shape[axis], validate_indices)
    return _scatter_slices(data, indices, updates, axis, mode)


@op("scatter_along_axis")
def scatter_along_axis_wrapping(
    data: Tensor, indices: Tensor, updates: Tensor, axis: int = 0, mode: str = "add"
) -> Tensor:
    """``data`` with ``updates`` put, or combined by ``mode``, at ``indices`` along ``axis``, place by place."""
    return _scatter(data, _wrapped(indices, data.shape[axis]), updates, axis, mode)


@op(since=17)
def scatter_along_axis(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> Tensor:
    """``data`` with ``updates`` put, or combined by ``mode``, at ``indices`` along ``axis``, place by place."""
    _validate(indices, data.shape[axis], validate_indices)
    return _scatter(data, indices, updates, axis, mode)


@op("scatter_nd")
def scatter_nd_wrapping(data: Tensor, indices: Tensor, updates: Tensor, mode: str = "add") -> Tensor:
    """``data`` with ``updates`` put, or combined, at the coordinates in the last dimension of ``indices``."""
    return _scatter_nd(data, indices, updates, mode, _wrapped)


@op(since=17)
def scatter_nd(
    data: Tensor, indices: Tensor, updates: Tensor, mode: str = "add", validate_indices: bool = False
) -> Tensor:
    """``data`` with ``updates`` put, or combined, at the coordinates in the last dimension of ``indices``."""

    def check(index: Tensor, size: int) -> Tensor:
        _validate(index, size, validate_indices)
        return index

    return _scatter_nd(data, indices, updates, mode, check)


def _validate(indices: Tensor, size: int, wanted: bool) -> None:
    if wanted and bool(((indices < 0) | (indices >= size)).any()):
        raise ExecutionError(f"an index is out of range [0, {size})", "validate_indices asks for this check")


def _checked(indices: Tensor, size: int, validate: bool) -> Tensor:
    _validate(indices, size, validate)
    return indices.clamp(0, max(size - 1, 0))


def _wrapped(indices: Tensor, size: int) -> Tensor:
    return torch.where(indices < 0, indices + size, indices)


def _gather(x: Tensor, indices: Tensor, axis: int, batch_dims: int) -> Tensor:
    # index_select takes int32 and int64 only; from iOS17 on MIL has indices of 8 and 16 bits too.
    if indices.dtype is not torch.int32:
        indices = indices.int()
    shape = x.shape[:axis] + indices.shape[batch_dims:] + x.shape[axis + 1 :]
    if not batch_dims:
        return picked(x, x.index_select(axis, indices.reshape(-1)).reshape(shape))
    # [batches, axis, rest]
    batched = x.flatten(0, batch_dims - 1).movedim(axis - batch_dims + 1, 1)
    flat = indices.reshape(batched.shape[0], -1)
    rows = torch.arange(batched.shape[0], device=x.device).unsqueeze(1)
    return picked(x, batched[rows, flat].movedim(1, axis - batch_dims + 1).reshape(shape))


def _gather_nd(x: Tensor, indices: Tensor, batch_dims: int, settle: Callable[[Tensor, int], Tensor]) -> Tensor:
    # Batch dimension i counts along axis i of the indices, so that it broadcasts with the coordinates.
    batch = [
        torch.arange(x.shape[i], device=x.device).view([-1 if i == j else 1 for j in range(indices.ndim - 1)])
        for i in range(batch_dims)
    ]
    place = [settle(part, x.shape[batch_dims + i]).long() for i, part in enumerate(indices.unbind(-1))]
    # Without coordinates every place takes the whole of x.
    return x[(*batch, *place)] if batch or place else x.expand(*indices.shape[:-1], *x.shape)


def _scatter_slices(data: Tensor, indices: Tensor, updates: Tensor, axis: int, mode: str) -> Tensor:
    axis = axis % data.ndim
    updates = updates.reshape(*data.shape[:axis], indices.numel(), *data.shape[axis + 1 :])
    view = [1] * data.ndim
    view[axis] = -1
    return _scatter(data, indices.reshape(view).expand(updates.shape), updates, axis, mode)


def _scatter_nd(
    data: Tensor, indices: Tensor, updates: Tensor, mode: str, settle: Callable[[Tensor, int], Tensor]
) -> Tensor:
    depth = indices.shape[-1]
    place = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=data.device)
    outside = torch.zeros_like(place, dtype=torch.bool)
    for part, size in zip(indices.unbind(-1), data.shape[:depth], strict=True):
        part = settle(part, size)
        outside = outside | (part < 0) | (part >= size)
        # The row-major number of the place among the indexed dimensions.
        place = place * size + part
    # -1 is out of range for _scatter, which drops it.
    place = torch.where(outside, -1, place).reshape(-1)
    rest = data.shape[depth:].numel()
    rows = data.reshape(-1, rest)
    spread = place.unsqueeze(1).expand(-1, rest)
    return _scatter(rows, spread, updates.reshape(-1, rest), 0, mode).reshape(data.shape)


_REDUCTIONS = {"add": "sum", "sub": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _scatter(data: Tensor, indices: Tensor, updates: Tensor, axis: int, mode: str) -> Tensor:
    """Scatter into a copy with one spare place along ``axis``, where the indices out of range go."""
    size = data.shape[axis]
    index = torch.where((indices < 0) | (indices >= size), size, indices).long()
    spare = data.new_zeros([1 if i == axis % data.ndim else d for i, d in enumerate(data.shape)])
    copy = torch.cat((data, spare), axis)
    if mode == "update":
        copy.scatter_(axis, index, updates)
    elif mode == "div":
        # Several updates of one place divide by their product.
        divisor = torch.ones_like(copy).scatter_reduce_(axis, index, updates, "prod")
        copy = copy / divisor if copy.is_floating_point() else copy.div(divisor, rounding_mode="trunc")
    elif mode in _REDUCTIONS:
        # Torch has no subtracting reduction: negative updates are added.
        copy.scatter_reduce_(axis, index, -updates if mode == "sub" else updates, _REDUCTIONS[mode])
    else:
        raise ExecutionError(f"unknown scatter mode '{mode}'", f"modes are update, div, {', '.join(_REDUCTIONS)}")
    return copy.narrow(axis, 0, size)
