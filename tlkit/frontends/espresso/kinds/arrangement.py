"""Layers that move values, join and part them, count and choose among them.

Axes of newer bundles are numpy's over a value's own rank; older layers name the five dimensions by code: 0 the width,
1 the height, 2 channels, 3 the batch, 4 the sequence.
"""

from __future__ import annotations

from typing import Any

from tlkit.errors import LoadError
from tlkit.formats.coreml.espresso.network import EspressoLayer
from tlkit.frontends.espresso.kit.making import DAMAGED, Fields, Held, Kit, espresso, flag, listed, unknown, whole

_CODES = ("seq", "n", "k", "h", "w")
_COMMON = ("type", "name", "bottom", "top", "weights", "attributes", "debug_info", "hint_fallback_from_metal")
_REDUCED = ("Sum", "Mean", "Prod", "LogSum", "SumSquare", "L2", "", "", "L1", "Max", "Min")


@espresso("transpose")
def transpose(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """``axis_w`` is the code of the input's axis that becomes the width, and so on."""
    rank = k.rank(layer.inputs[0])
    order = [4 - whole(layer, f"axis_{name}", 4 - place) for place, name in enumerate(_CODES)]
    axes = [axis - (5 - rank) for axis in order[5 - rank :]]
    if sorted(axes) != list(range(rank)):
        raise LoadError(f"the axes {axes} of a rank of {rank}", DAMAGED)
    k.add("transpose", layer, axes=axes)


@espresso("reshape")
def reshape(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """Another shape: its own, or that which the second input says."""
    if len(layer.inputs) > 1:
        k.add("reshapeDynamic", layer)
        return
    sizes = [whole(layer, f"dst_{name}") for name in _CODES]
    if k.exact:
        rank = whole(layer, "dst_nd_rank") or k.rank(layer.outputs[0])
        if not 0 < rank <= 5:
            raise unknown(layer, "dst_nd_rank")
        k.add("reshapeStatic", layer, targetShape=sizes[5 - rank :])
        return
    seq, *image = [size or 1 for size in (sizes[0], *sizes[2:])]
    k.add("reshape", layer, targetShape=[seq, *image] if seq > 1 else image, mode=whole(layer, "mode"))


@espresso("flatten")
def flatten(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """All values as channels; mode 1 takes channels last."""
    k.add("flatten", layer, mode=whole(layer, "mode"))


@espresso("concat")
def concat(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """Joined along channels, or along the sequence where the sizes say so."""
    sizes = [k.extents.get(name) for name in (*layer.inputs, *layer.outputs)]
    known = [size for size in sizes if size is not None]
    in_time = len(known) == len(sizes) and known[-1].seq == sum(size.seq for size in known[:-1])
    in_time = in_time and known[-1].k != sum(size.k for size in known[:-1])
    k.add("concat", layer, sequenceConcat=in_time)


@espresso("general_concat")
def general_concat(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """Joined along an axis."""
    k.add("concatND", layer, axis=whole(layer, "axis"), interleave=flag(layer, "interleave"))


@espresso("split_nd")
def split_nd(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """Parted along an axis; ``begin_0``, ... are the parts' sizes, all 0 where they are equal."""
    count = whole(layer, "num_splits") or len(layer.outputs)
    sizes = listed(layer, "begin", count)
    given = Fields({"splitSizes": sizes} if any(sizes) else {})
    k.add("splitND", layer, axis=whole(layer, "nd_axis"), numSplits=count, **given)


@espresso("stack_nd")
def stack_nd(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """Side by side on a new axis."""
    k.add("stack", layer, axis=whole(layer, "nd_axis"))


@espresso("expand_dims", "squeeze")
def dims(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """Axes of length 1 put in (at their places in the result), or taken away."""
    axes = listed(layer, "axes", whole(layer, "size_of_axes", 1))
    k.add("expandDims" if layer.kind == "expand_dims" else "squeeze", layer, axes=axes)


@espresso("slice")
def slice_axis(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """Values from ``start`` to before ``end`` on an axis of the value's own rank; an end of 0 is the last."""
    axis, start, end = (whole(layer, key) for key in ("axis", "start", "end"))
    stride = whole(layer, "stride", 1)
    if not k.exact:
        raise unknown(layer, "axis")  # how it counts axes in five dimensions was never seen
    rank = k.rank(layer.inputs[0])
    at = axis % rank if -rank <= axis < rank else 0
    whole_axes = [place != at for place in range(rank)]
    ends = [end if place == at else 0 for place in range(rank)]
    fields: dict[str, Any] = {"beginMasks": whole_axes, "endMasks": [m or end == 0 for m in whole_axes]}
    fields |= {"beginIds": [0 if m else start for m in whole_axes], "endIds": ends}
    k.add("sliceStatic", layer, strides=[1 if m else stride for m in whole_axes], **fields)


@espresso("tile")
def tile(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """Repeated along axes, so often as ``dst_w``, ... say."""
    rank = k.rank(layer.inputs[0])
    times = [max(1, whole(layer, f"dst_{name}", 1)) for name in _CODES]
    k.add("tile", layer, reps=times[5 - rank :])


@espresso("reduce")
def reduce(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """Sums, means and the like over an axis of a value's own rank, which stays where the result has that rank."""
    mode = whole(layer, "mode")
    if not k.exact:
        raise unknown(layer, "axis_mode")
    axis, keep = whole(layer, "nd_axis"), k.rank(layer.inputs[0]) == k.rank(layer.outputs[0])
    if mode in (11, 12):
        k.add("argMax" if mode == 11 else "argMin", layer, axis=axis, removeDim=not keep)
        return
    name = _REDUCED[mode] if 0 <= mode < len(_REDUCED) else ""
    if not name:
        raise unknown(layer, "mode")
    k.add(f"reduce{name}", layer, axes=[axis], keepDims=keep)


@espresso("topk")
def topk(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """The largest values of an axis and their places, or the smallest."""
    fields = Fields({"axis": whole(layer, "axis"), "K": max(0, whole(layer, "num_k"))})
    k.add("topK", layer, useBottomK=flag(layer, "do_bottomk"), **fields)


@espresso("argsort")
def argsort(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """The places of values in order."""
    k.add("argSort", layer, axis=whole(layer, "axis"), descending=not flag(layer, "ascending"))


@espresso("gather_nd")
def gather(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """Values by their numbers on an axis, or along it."""
    kind = {0: "gather", 2: "gatherAlongAxis"}.get(whole(layer, "mode"))
    if kind is None:
        raise unknown(layer, "mode")
    k.add(kind, layer, axis=whole(layer, "axis"))


@espresso("cumsum")
def cumsum(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """Running sums along the axis that the second input says; how else an axis is said was never seen."""
    if len(layer.inputs) != 2:
        raise LoadError("how a cumsum without a second input says its axis is not published", DAMAGED)
    said = next((key for key, value in layer.attributes.items() if value and key not in _COMMON), None)
    if said is not None:
        raise unknown(layer, said)
    k.add("cumSum", layer)


@espresso("nonzero")
def nonzero(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """The places of what is not 0."""
    k.add("whereNonZero", layer)


@espresso("get_shape")
def get_shape(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """The shape of a value."""
    k.add("getShape", layer)


@espresso("copy", "cast")
def copy(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """The value as it is."""
    k.add("activation", layer, linear={"alpha": 1.0, "beta": 0.0})
