"""Windows, views by strides, folds: elements taken from computed places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tlkit.core.convert.tools.kit.mends import REPLACED, composed, mend
from tlkit.core.convert.tools.kit.reading import inputs_of, values_of

if TYPE_CHECKING:
    from torch import Tensor


@composed("unfold", "windows along an axis, which become the last one")
def _unfold(x: Tensor, dim: int, size: int, step: int) -> Tensor:
    import torch

    if x.dim() == 0:
        return x.reshape(1)
    axis = dim % x.dim()
    count = (x.shape[axis] - size) // step + 1
    places = (torch.arange(count)[:, None] * step + torch.arange(size)).reshape(-1)  # count x size, flat
    taken = x.index_select(axis, places)
    windows = taken.reshape([*x.shape[:axis], count, size, *x.shape[axis + 1 :]])
    return windows.movedim(axis + 1, -1)


@composed("as_strided", "elements by their places in memory, which is taken to be in order")
def _as_strided(x: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor:
    import torch

    if not x.is_contiguous():
        raise ValueError("as_strided of a tensor that is not in order in memory: make it contiguous first")
    places = torch.zeros([1] * len(size), dtype=torch.int64) + (storage_offset or 0)
    for axis, (length, step) in enumerate(zip(size, stride, strict=True)):
        places = places + torch.arange(length).reshape([-1 if at == axis else 1 for at in range(len(size))]) * step
    return x.reshape(-1).index_select(0, places.reshape(-1)).reshape(list(size))


@composed("movedim", "axes in another order; torch's own rule of it has no end in a trace")
def _movedim(x: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    moved, goals = (
        [axis % max(x.dim(), 1) for axis in ([axes] if isinstance(axes, int) else axes)]
        for axes in (source, destination)
    )
    left = iter([axis for axis in range(x.dim()) if axis not in moved])
    return x.permute([moved[goals.index(axis)] if axis in goals else next(left) for axis in range(x.dim())])


def _last_two(rank: int, dim1: int, dim2: int) -> list[int]:
    """Return the order of axes that puts ``dim1`` and ``dim2`` last."""
    pair = [dim1 % rank, dim2 % rank]
    return [axis for axis in range(rank) if axis not in pair] + pair


@composed("diagonal", "coremltools only takes the main one of the first two axes", replaces=True)
def _diagonal(x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    import torch

    turned = x.permute(_last_two(x.dim(), dim1, dim2))
    *outer, rows, columns = turned.shape
    top, left = max(-offset, 0), max(offset, 0)
    length = max(min(rows - top, columns - left), 0)
    places = torch.arange(length) * (columns + 1) + (top * columns + left)
    return turned.reshape([*outer, rows * columns]).index_select(-1, places)


@composed("diagonal_scatter", "torch's own rule of it writes into a view, which no capture follows")
def _diagonal_scatter(x: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    import torch

    order = _last_two(x.dim(), dim1, dim2)
    turned = x.permute(order)
    *_, rows, columns = turned.shape
    top = max(-offset, 0)
    by_row = torch.nn.functional.pad(src, (top, rows - top - src.shape[-1]))[..., None]
    on_it = torch.arange(columns) - torch.arange(rows)[:, None] == offset
    return torch.where(on_it, by_row.to(x.dtype), turned).permute([order.index(axis) for axis in range(x.dim())])


@composed("col2im", "coremltools only folds windows that do not overlap", replaces=True)
def _col2im(
    x: Tensor, size: Sequence[int], kernel: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Any
) -> Any:
    """Sum what overlaps: a transposed convolution whose weight puts each row in its place."""
    import torch

    if x.dim() == 2:
        return _col2im(x[None], size, kernel, dilation, padding, stride)[0]
    height, width = kernel
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    counts = [
        (length + 2 * pad - span) // step + 1
        for length, pad, span, step in zip(size, padding, spans, stride, strict=True)
    ]
    # What the last windows do not reach, as output padding.
    longer = [
        length - ((count - 1) * step - 2 * pad + span)
        for length, count, step, pad, span in zip(size, counts, stride, padding, spans, strict=True)
    ]
    # x is N x (channels * height * width) x windows.
    channels = x.shape[1] // (height * width)
    # Row k (1 x height x width) is 1 at place k of a window, and 0 elsewhere.
    one = torch.eye(height * width).reshape(height * width, 1, height, width)
    return torch.conv_transpose2d(
        x.reshape(x.shape[0], x.shape[1], *counts),
        one.repeat(channels, 1, 1, 1),
        None,
        list(stride),
        list(padding),
        longer,
        channels,
        list(dilation),
    )


@mend("triu_indices", "a constant")
@mend("tril_indices", "a constant")
def _triangle(context: Any, node: Any) -> None:
    import torch
    from coremltools.converters.mil import Builder as mb

    given = inputs_of(context, node, "row col offset")
    row, col, offset = (int(values_of(given[name])[0]) if given[name] is not None else 0 for name in given)
    value = getattr(torch, node.kind)(row, col, offset)
    context.add(mb.const(val=value.to(torch.int32).numpy(), name=node.name))


def _window(kind: str) -> None:
    @mend(kind, "a constant; coremltools only reads a trace's", replaces=kind == "hann_window")
    @mend(f"{kind}.periodic", "a constant")
    def translate(context: Any, node: Any) -> None:
        import numpy as np
        import torch
        from coremltools.converters.mil import Builder as mb

        # A trace has one name for both overloads: with `periodic` there are 6 operands, else 5.
        periodic = node.kind.endswith(".periodic") or len(node.inputs) in (2, 6)
        given = inputs_of(context, node, "length periodic")
        flag = bool(values_of(given["periodic"])[0]) if periodic and values_of(given["periodic"]) else True
        value = getattr(torch, kind)(int(values_of(given["length"])[0]), periodic=flag)
        context.add(mb.const(val=value.numpy().astype(np.float32), name=node.name))


for _kind in ("hann_window", "hamming_window", "blackman_window", "bartlett_window"):
    _window(_kind)


def _bounded(low: bool, high: bool) -> Any:
    def translate(context: Any, node: Any) -> None:
        from coremltools.converters.mil import Builder as mb
        from coremltools.converters.mil.mil import types

        given = inputs_of(context, node, "self min max" if low and high else "self min" if low else "self max")
        bounds = {name: value for name, value in given.items() if name != "self" and value is not None}
        whole = types.is_int(given["self"].dtype) and all(types.is_int(bound.dtype) for bound in bounds.values())
        one_sided = node.kind.removesuffix("_") in ("clamp_min", "clamp_max")
        x = given["self"]
        if one_sided and any(bound.dtype != x.dtype for bound in bounds.values()) and types.is_float(x.dtype):
            bounds = {name: mb.cast(x=bound, dtype=types.builtin_to_string(x.dtype)) for name, bound in bounds.items()}
        elif not whole:
            REPLACED[node.kind.removesuffix("_")](context, node)
            return
        if "min" in bounds:
            x = mb.maximum(x=x, y=bounds["min"])
        if "max" in bounds:
            x = mb.minimum(x=x, y=bounds["max"])
        context.add(mb.identity(x=x, name=node.name))

    return translate


_WHOLE = "coremltools makes floating point of integers, which then cannot be indices"
mend("clamp", _WHOLE, replaces=True)(_bounded(True, True))
mend("clip", _WHOLE, replaces=True)(_bounded(True, True))
mend("clamp_min", _WHOLE, replaces=True)(_bounded(True, False))
mend("clamp_max", _WHOLE, replaces=True)(_bounded(False, True))


@mend("hardtanh", "coremltools takes no integers as the bounds of floating point", replaces=True)
def _hardtanh(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    given = inputs_of(context, node, "self min_val max_val")
    x, kind = given["self"], types.nptype_from_builtin(given["self"].dtype)
    low, high = (
        kind(-1 if given["min_val"] is None else given["min_val"].val),
        kind(1 if given["max_val"] is None else given["max_val"].val),
    )
    context.add(mb.minimum(x=mb.maximum(x=x, y=low), y=high, name=node.name))


def _is_known(given: Sequence[Any]) -> bool:
    return getattr(given[0], "val", None) is not None


@mend("flip", "a constant, copied: torch refuses numpy's negative strides", replaces=True, applies=_is_known)
def _flip(context: Any, node: Any) -> None:
    import numpy as np
    from coremltools.converters.mil import Builder as mb

    given = inputs_of(context, node, "self dims")
    axes = tuple(int(value) for value in values_of(given["dims"]))
    context.add(mb.const(val=np.ascontiguousarray(np.flip(given["self"].val, axes)), name=node.name))


@mend("mt", "the last two axes in turn; `mT` in torch")
@mend("mh", "the same of real numbers; `mH` in torch")
@mend("adjoint", "the same of real numbers")
@mend("matrix_h", "the same of a matrix; `H` in torch")
def _turned(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb

    x = inputs_of(context, node, "self")["self"]
    context.add(mb.transpose(x=x, perm=[*range(x.rank - 2), x.rank - 1, x.rank - 2], name=node.name))
