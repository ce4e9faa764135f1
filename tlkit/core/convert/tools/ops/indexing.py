"""Reading and writing at indices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tlkit.core.convert.tools.kit.mends import REPLACED, composed, mend
from tlkit.core.convert.tools.kit.reading import inputs_of

if TYPE_CHECKING:
    from torch import Tensor


@mend("index_copy", "caches of transformers write their new rows with it")
def _index_copy(context: Any, node: Any) -> None:
    given = inputs_of(context, node, "self dim index source")
    axis = int(given["dim"].val) % given["self"].rank
    context.add(_with_rows(given["self"], axis, given["index"], given["source"], node.name))


_PUT = "coremltools takes one row after whole slices (`x[:, i] = y`), not several, and only equal types"


@mend("index_put", _PUT, replaces=True)
def _index_put(context: Any, node: Any) -> None:
    from coremltools.converters.mil.mil import types

    given = inputs_of(context, node, "self indices values accumulate")
    indices, x = given["indices"], given["self"]
    accumulate = given["accumulate"] is not None and bool(getattr(given["accumulate"], "val", given["accumulate"]))
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    first = indices[axes[0]]
    if types.is_bool(first.dtype):
        if len(axes) == 1 and not accumulate and all(size == 1 for size in given["values"].shape):
            context.add(_where(x, first, axes[0], given["values"], node.name))
        else:
            REPLACED["index_put"](context, node)
    elif len(axes) == 1 and axes[0] > 0 and not accumulate and first.rank == 1:
        from coremltools.converters.mil.frontend._utils import pymil_broadcast_to

        shape = [*x.shape[: axes[0]], *first.shape, *x.shape[axes[0] + 1 :]]
        values = pymil_broadcast_to(given["values"], shape, f"{node.name}_values")
        context.add(_with_rows(x, axes[0], _counted_from_0(first, x, axes[0]), values, node.name))
    else:
        context.add(_scattered(x, indices, given["values"], accumulate, node.name))


def _where(x: Any, mask: Any, axis: int, value: Any, name: str) -> Any:
    """Return ``x`` with the one ``value`` where ``mask`` of its axes from ``axis`` on is true."""
    from coremltools.converters.mil import Builder as mb

    after = x.rank - axis - mask.rank
    places = [*range(axis), *range(axis + mask.rank, axis + mask.rank + after)]
    wide = mb.expand_dims(x=mask, axes=places) if places else mask
    value = mb.reshape(x=_cast_like(value, x), shape=[1] * x.rank) if x.rank else _cast_like(value, x)
    return mb.select(cond=wide, a=value, b=x, name=name)


def _cast_like(value: Any, x: Any) -> Any:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    return value if value.dtype == x.dtype else mb.cast(x=value, dtype=types.builtin_to_string(x.dtype))


def _scattered(x: Any, indices: Any, values: Any, accumulate: bool, name: str) -> Any:
    """Return ``x`` with ``values`` at the places that ``indices`` of any of its axes name, or added there.

    The axes named go first, as MIL's scatter_nd wants them; values come in torch's order, in which the indices' own
    axes stand where the axes named stood, or first if those were apart.
    """
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.frontend._utils import pymil_broadcast_tensors, pymil_broadcast_to
    from coremltools.converters.mil.mil import types

    boolean = types.is_bool(x.dtype)
    data = mb.cast(x=x, dtype="int32") if boolean else x
    named = [axis for axis, index in enumerate(indices) if index is not None]
    rest = [axis for axis in range(x.rank) if axis not in named]
    places = [_counted_from_0(indices[axis], x, axis) for axis in named]
    places = list(pymil_broadcast_tensors(places)) if len(places) > 1 else places
    span = places[0].rank
    together = named == list(range(named[0], named[-1] + 1))
    before = [axis for axis in rest if together and axis < named[0]]
    order = [*before, *rest[len(before) :]]
    shape = [*(x.shape[axis] for axis in before), *places[0].shape, *(x.shape[axis] for axis in order[len(before) :])]
    values = (
        pymil_broadcast_to(_cast_like(values, data), shape, f"{name}_values")
        if values.shape != tuple(shape)
        else (_cast_like(values, data))
    )
    if before:
        count = len(before)
        values = mb.transpose(
            x=values, perm=[*range(count, count + span), *range(count), *range(count + span, len(shape))]
        )
    turn = [*named, *order]
    data = data if turn == list(range(x.rank)) else mb.transpose(x=data, perm=turn)
    index = mb.stack(values=places, axis=span)
    result = mb.scatter_nd(data=data, indices=index, updates=values, mode="add" if accumulate else "update")
    if turn != list(range(x.rank)):
        result = mb.transpose(x=result, perm=[turn.index(axis) for axis in range(x.rank)])
    return mb.cast(x=result, dtype="bool", name=name) if boolean else mb.identity(x=result, name=name)


def _counted_from_0(index: Any, x: Any, axis: int) -> Any:
    """Return ``index`` as int32 without negative numbers, which scatter_nd does not know from iOS17 on."""
    from coremltools.converters.mil import Builder as mb

    index = mb.cast(x=index, dtype="int32")
    if index.val is not None and (index.val >= 0).all():
        return index
    length = x.shape[axis] if isinstance(x.shape[axis], int) or str(x.shape[axis]).isdigit() else None
    if length is None:
        length = mb.squeeze(x=mb.slice_by_size(x=mb.shape(x=x), begin=[axis], size=[1]), axes=[0])
    return mb.select(cond=mb.less(x=index, y=0), a=mb.add(x=index, y=length), b=index)


def _with_rows(x: Any, axis: int, index: Any, rows: Any, name: str) -> Any:
    """Return ``x`` with ``rows`` at the places along ``axis`` that ``index`` names, one or several."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.frontend.torch.ops import _translate_torch_tensor_assign, promote_input_dtypes

    x, rows = promote_input_dtypes([x, rows])
    if index.shape != (1,):
        return mb.scatter(data=x, indices=index, updates=rows, axis=axis, mode="update", name=name)
    at, whole = mb.squeeze(x=index), [place != axis for place in range(x.rank)]
    begin, end = [0] * x.rank, list(x.shape)
    begin[axis], end[axis] = at, mb.add(x=at, y=1)
    return _translate_torch_tensor_assign(
        x=x,
        updates=rows,
        begin=mb.concat(values=begin, axis=0),
        end=mb.concat(values=end, axis=0),
        stride=[1] * x.rank,
        begin_mask=whole,
        end_mask=whole,
        squeeze_mask=[False] * x.rank,
        name=name,
    )


@mend("repeat_interleave", "coremltools only repeats each element equally often", replaces=True)
@mend("repeat_interleave.self_tensor", "the same, as torch.export records it", replaces=True)
def _repeat_interleave(context: Any, node: Any) -> None:
    import numpy as np
    from coremltools.converters.mil import Builder as mb

    given = inputs_of(context, node, "self repeats dim output_size")
    repeats = getattr(given["repeats"], "val", given["repeats"])
    if repeats is None:
        raise ValueError("repeat_interleave as often as a tensor says: the result's length depends on values")
    if np.ndim(repeats) == 0 or np.size(repeats) == 1:
        REPLACED[node.kind](context, node)
        return
    axis = 0 if given["dim"] is None else int(given["dim"].val)
    x = mb.reshape(x=given["self"], shape=[-1]) if given["dim"] is None else given["self"]
    places = np.repeat(np.arange(len(repeats)), repeats).astype(np.int32)
    context.add(mb.gather(x=x, indices=places, axis=axis, name=node.name))


@composed("masked_scatter", "the source's elements in order, one for each place of the mask")
def _masked_scatter(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    import torch

    mask = mask.expand(x.shape)
    taken = (mask.reshape(-1).to(torch.int64).cumsum(0) - 1).clamp(min=0)
    picked = source.reshape(-1).index_select(0, taken.clamp(max=source.numel() - 1))
    return torch.where(mask, picked.reshape(x.shape), x)
