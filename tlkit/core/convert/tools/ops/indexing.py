"""Reading and writing at indices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tlkit.core.convert.tools.kit.mends import REPLACED, composed, mend
from tlkit.core.convert.tools.kit.reading import inputs_of, is_float, values_of

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

    # scatter_nd does not take booleans.
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
    # Torch's order: the axes before, the indices' own, the axes after.
    shape = [*(x.shape[axis] for axis in before), *places[0].shape, *(x.shape[axis] for axis in order[len(before) :])]
    values = (
        pymil_broadcast_to(_cast_like(values, data), shape, f"{name}_values")
        if values.shape != tuple(shape)
        else (_cast_like(values, data))
    )
    # scatter_nd's order: the indices' own axes come first.
    if before:
        count = len(before)
        values = mb.transpose(
            x=values, perm=[*range(count, count + span), *range(count), *range(count + span, len(shape))]
        )
    turn = [*named, *order]
    data = data if turn == list(range(x.rank)) else mb.transpose(x=data, perm=turn)
    index = mb.stack(values=places, axis=span)  # the indices' own axes x number of axes named
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
    from coremltools.converters.mil.frontend.torch.ops import promote_input_dtypes

    x, rows = promote_input_dtypes([x, rows])
    if index.shape != (1,):
        return mb.scatter(data=x, indices=index, updates=rows, axis=axis, mode="update", name=name)
    at, whole = mb.squeeze(x=index), [place != axis for place in range(x.rank)]
    begin, end = [0] * x.rank, list(x.shape)
    begin[axis], end[axis] = at, mb.add(x=at, y=1)
    return _assigned(x, rows, mb.concat(values=begin, axis=0), mb.concat(values=end, axis=0), whole, name)


def _assigned(x: Any, part: Any, begin: Any, end: Any, whole: list[bool], name: str) -> Any:
    """Return ``x`` with ``part`` from ``begin`` to before ``end``; axes that are ``whole`` from end to end."""
    from coremltools.converters.mil.frontend.torch.ops import _translate_torch_tensor_assign

    return _translate_torch_tensor_assign(
        x=x,
        updates=part,
        begin=begin,
        end=end,
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
    # The n-th true place takes the source's element n.
    taken = (mask.reshape(-1).to(torch.int64).cumsum(0) - 1).clamp(min=0)
    picked = source.reshape(-1).index_select(0, taken.clamp(max=source.numel() - 1))
    return torch.where(mask, picked.reshape(x.shape), x)


@composed("index_fill", "coremltools takes no negative places", replaces=True)
def _index_fill(x: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    import torch

    if x.dim() == 0:
        return torch.where(index == index, value, x).reshape(())
    axis, length = dim % x.dim(), x.shape[dim]
    places = torch.where(index < 0, index + length, index).reshape(1, -1)
    hit = (torch.arange(length)[:, None] == places).any(1)  # length x places -> length
    return torch.where(hit.reshape([-1 if at == axis else 1 for at in range(x.dim())]), value, x)


@composed("embedding_bag", "sums, means and maxima of rows, a bag each")
@composed("_embedding_bag", "the same, as torch.export records it")
@composed("_embedding_bag_forward_only", "the same, as torch.export records it")
def _embedding_bag(
    weight: Tensor, indices: Tensor, offsets: Tensor, scale: bool = False, mode: int = 0, *rest: Any, **more: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the bags, and in the place of what only a gradient needs the bags' sizes."""
    import torch

    names = ("sparse", "per_sample_weights", "include_last_offset", "padding_idx")
    given = {**dict(zip(names, (False, None, False, -1), strict=True)), **dict(zip(names, rest, strict=False)), **more}
    place = torch.arange(indices.shape[0])
    # The last bag has no end in `offsets`.
    ends = offsets[1:] if given["include_last_offset"] else torch.cat([offsets[1:], offsets.new_full((1,), 2**31 - 1)])
    starts = offsets[:-1] if given["include_last_offset"] else offsets
    inside = (place >= starts[:, None]) & (place < ends[:, None])  # bags x places
    padding = given["padding_idx"]
    if padding is not None and padding >= 0:
        inside = inside & (indices != padding)
    rows = weight.index_select(0, indices)
    if given["per_sample_weights"] is not None:
        rows = rows * given["per_sample_weights"][:, None]
    count = inside.to(weight.dtype).sum(1)
    if mode == 2:
        bags = torch.where(inside[..., None], rows, float("-inf")).amax(1)  # bags x places x features
        # An empty bag's maximum is 0 in torch.
        bags = torch.where((count > 0)[:, None], bags, 0.0)
    else:
        bags = inside.to(weight.dtype) @ rows
        bags = bags / count.clamp(min=1)[:, None] if mode == 1 else bags
    return bags, count, count, count


_MODES = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min", "mean": "add"}
_EMPTY = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "amax": -math.inf, "amin": math.inf}
"""What a place starts from that is not to count itself, by how values are reduced."""


@mend("scatter_reduce", "MIL scatters with these modes; a mean is a sum over a count")
@mend("scatter_reduce.two", "the same, as torch.export records it")
def _scatter_reduce(context: Any, node: Any) -> None:

    given = inputs_of(context, node, "self dim index src reduce include_self")
    x, index, axis = given["self"], given["index"], int(values_of(given["dim"])[0]) % max(given["self"].rank, 1)
    how, keep = str(getattr(given["reduce"], "val", given["reduce"])), values_of(given["include_self"])
    source = _cast_like(given["src"], x)

    def put(data: Any, values: Any, mode: str) -> Any:
        return _along(data, axis, index, values, mode)

    _reduced(context, node, x, source, how, include=not keep or bool(keep[0]), put=put)


@mend("index_reduce", "MIL scatters with these modes; a mean is a sum over a count")
def _index_reduce(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb

    given = inputs_of(context, node, "self dim index source reduce include_self")
    x, axis = given["self"], int(values_of(given["dim"])[0]) % given["self"].rank
    index, keep = _counted_from_0(given["index"], x, axis), values_of(given["include_self"])

    def put(data: Any, values: Any, mode: str) -> Any:
        return mb.scatter(data=data, indices=index, updates=values, axis=axis, mode=mode)

    how = str(getattr(given["reduce"], "val", given["reduce"]))
    _reduced(context, node, x, _cast_like(given["source"], x), how, include=not keep or bool(keep[0]), put=put)


def _reduced(context: Any, node: Any, x: Any, source: Any, how: str, *, include: bool, put: Any) -> None:
    """Reduce values into the places of ``x`` where ``put(data, values, mode)`` puts them."""
    import numpy as np
    from coremltools.converters.mil import Builder as mb

    if how == "mean" and not is_float(x):
        raise ValueError("a mean of integers at places that the model computes")
    dtype = np.float32 if is_float(x) else np.int32
    if not include:
        limits = np.iinfo(np.int32)
        # int32 has no infinity: its ends stand for it.
        empty = _EMPTY[how] if is_float(x) else np.clip(_EMPTY[how], limits.min, limits.max)
        x = put(x, _spread_like(dtype(empty), source), "update")
    total = put(x, source, _MODES[how])
    if how == "mean":
        ones = _spread_like(np.float32(1), source)
        count = put(_spread_like(np.float32(0), x), ones, "add")  # x * 0 would be NaN where x is infinite
        # A place's own value counts as one of those averaged.
        count = mb.add(x=count, y=np.float32(1)) if include else mb.maximum(x=count, y=np.float32(1))
        total = mb.real_div(x=total, y=count)
    context.add(mb.identity(x=total, name=node.name))


def _spread_like(value: Any, x: Any) -> Any:
    from coremltools.converters.mil import Builder as mb

    if all(isinstance(size, int) or str(size).isdigit() for size in x.shape):
        import numpy as np

        return mb.const(val=np.full([int(size) for size in x.shape], value))
    return mb.fill(shape=mb.shape(x=x), value=value)


def _along(data: Any, axis: int, index: Any, values: Any, mode: str) -> Any:
    """Put ``values`` at ``index`` along ``axis``; torch takes the corner of both that the index has."""
    from coremltools.converters.mil import Builder as mb

    values = _corner(values, index, None)
    part = _corner(data, index, axis)
    found = mb.scatter_along_axis(data=part, indices=index, updates=values, axis=axis, mode=mode)
    if part is data:
        return found
    whole = [place == axis for place in range(data.rank)]
    end = [0 if flag else int(size) for flag, size in zip(whole, index.shape, strict=True)]
    return _assigned(data, found, [0] * data.rank, end, whole, f"{data.name}_corner")


def _corner(x: Any, index: Any, axis: int | None) -> Any:
    """Return the part of ``x`` as long as ``index`` on every axis but ``axis``."""
    from coremltools.converters.mil import Builder as mb

    same = [at == axis or x.shape[at] == index.shape[at] for at in range(x.rank)]
    if all(same):
        return x
    if not all(flag or isinstance(size, int) for flag, size in zip(same, index.shape, strict=True)):
        raise ValueError("a scatter into a part whose size is known only when the model runs")
    end = [0 if flag else int(size) for flag, size in zip(same, index.shape, strict=True)]
    return mb.slice_by_index(x=x, begin=[0] * x.rank, end=end, end_mask=same)


def _is_corner(given: Sequence[Any]) -> bool:
    import numpy as np

    x, axis, index, source = given[0], int(values_of(given[1])[0]) % max(given[0].rank, 1), given[2], given[3]
    if not x.rank:
        return False
    smaller = any(at != axis and x.shape[at] != index.shape[at] for at in range(x.rank))
    # An integer written into real numbers, which coremltools does not cast.
    number = source if isinstance(source, int | float) else getattr(source, "val", None) if not source.shape else None
    typed = number is not None and is_float(x) != isinstance(number, float | np.floating)
    return smaller or typed or (hasattr(source, "shape") and source.rank == index.rank and source.shape != index.shape)


def _corner_of(kind: str, mode: str) -> None:
    @mend(
        kind, "coremltools wants an index as large as what it writes, and one type", replaces=True, applies=_is_corner
    )
    def translate(context: Any, node: Any) -> Any:
        from coremltools.converters.mil import Builder as mb

        given = inputs_of(context, node, "self dim index src reduce")
        if given["reduce"] is not None:
            return NotImplemented
        x, axis, index = given["self"], int(values_of(given["dim"])[0]) % given["self"].rank, given["index"]
        source = given["src"] if hasattr(given["src"], "sym_type") else mb.const(val=given["src"])
        source = _cast_like(source, x)
        source = source if source.rank else mb.mul(x=source, y=_spread_like(_one(x), index))
        context.add(mb.identity(x=_along(x, axis, index, source, mode), name=node.name))
        return None


def _one(x: Any) -> Any:
    import numpy as np

    return np.float32(1) if is_float(x) else np.int32(1)


for _kind in ("scatter", "scatter.src", "scatter.value"):
    _corner_of(_kind, "update")
_corner_of("scatter_add", "add")


@composed("bincount", "how often each number comes, of those below `minlength`")
def _bincount(x: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    import torch

    if not minlength:
        raise ValueError("bincount of a length that depends on its values: give minlength")
    hits = x[:, None] == torch.arange(minlength)  # values x minlength
    if weights is None:
        return hits.to(torch.int64).sum(0)
    return (hits.to(weights.dtype) * weights[:, None]).sum(0)
