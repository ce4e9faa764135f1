"""Layers that put values together, take them apart, cut and pad them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlkit.errors import LoadError
from tlkit.frontends.network.kit.arithmetic import filled, integers, truth, unary
from tlkit.frontends.network.kit.blob import Blob, Shape, axis_of, product, replaced
from tlkit.frontends.network.kit.graph import Graph, scalar
from tlkit.frontends.network.kit.registry import Layer, layer, lengths
from tlkit.frontends.network.layers.arrangement import vector
from tlkit.frontends.network.layers.window import borders
from tlkit.mil.types import DType


def joined(g: Graph, several: Sequence[Blob], axis: int, *, interleave: bool = False) -> Blob:
    """Return values one behind the other along an axis (from the end, below 0)."""
    rank = several[0].rank
    if any(x.rank != rank for x in several):
        raise LoadError(f"ranks {[x.rank for x in several]} put together", "the network is damaged")
    place = axis_of(axis, rank)
    # Ones around all values stay outside the program, unless the axis lies among them.
    lead = min(min(x.lead for x in several), place)
    trail = min(min(x.trail for x in several), rank - place - 1)
    laid = [g.lay(x, lead, trail) for x in several]
    inner = place - lead
    for x in laid[1:]:
        pairs = zip(replaced(x.shape, inner, 0), replaced(laid[0].shape, inner, 0), strict=True)
        if any(one != two and None not in (one, two) for one, two in pairs):
            raise LoadError(f"shapes {[x.logical for x in several]} put together", "the network is damaged")
    along = [x.shape[inner] for x in laid]
    shape = replaced(laid[0].shape, inner, None if None in along else sum(d or 0 for d in along))
    if len(laid) == 1:
        return laid[0]
    made = g.op("concat", shape, values=laid, axis=inner, interleave=interleave or None)
    return Blob(made.name, shape, lead, trail)


@layer("concat")
def concat(g: Graph, layer: Layer) -> Blob:
    """Put values together along the channels or the sequence."""
    return joined(g, layer.inputs, -5 if layer.params.sequenceConcat else -3)


@layer("concatND")
def concat_nd(g: Graph, layer: Layer) -> Blob:
    """Put values together along an axis, one slice of each in turn with ``interleave``."""
    whole = [g.lay(x) for x in layer.inputs]
    return joined(g, whole, layer.params.axis, interleave=layer.params.interleave)


@layer("stack")
def stack(g: Graph, layer: Layer) -> Blob:
    """Put values of one shape together along a new axis."""
    whole = [g.lay(x) for x in layer.inputs]
    if any(x.rank != whole[0].rank for x in whole):
        raise LoadError(f"ranks {[x.rank for x in whole]} stacked", "the network is damaged")
    axis = axis_of(layer.params.axis, whole[0].rank + 1)
    shape = (*whole[0].shape[:axis], len(whole), *whole[0].shape[axis:])
    return g.op("stack", shape, values=whole, axis=axis)


def divided(g: Graph, layer: Layer, x: Blob, axis: int, sizes: Sequence[int | None], even: bool) -> Sequence[Blob]:
    """Return the parts of a value along an axis, which is one of the program's."""
    shapes = [replaced(x.shape, axis, size) for size in sizes]
    if len(shapes) == 1:
        return [x]
    how: dict[str, Any] = {"num_splits": len(sizes)} if even else {"split_sizes": [int(size or 0) for size in sizes]}
    names = g.emit("split", [(shape, DType.FP32) for shape in shapes], x=x, axis=axis, **how)
    return [Blob(name, shape, x.lead, x.trail) for name, shape in zip(names, shapes, strict=True)]


@layer("split")
def split(g: Graph, layer: Layer) -> Sequence[Blob]:
    """Divide the channels into equal parts."""
    x = g.images(layer.x)
    parts = max(int(layer.params.nOutputs), len(layer.outputs))
    made = divided(g, layer, x, 1, _even(x.shape[1], parts), True)
    return [g.restored(part, layer.x) for part in made]


def _even(size: int | None, parts: int) -> list[int | None]:
    if parts < 1 or parts > 1 << 16 or (size is not None and size % parts):
        raise LoadError(f"{size} divided into {parts} equal parts", "the network is damaged")
    return [None if size is None else size // parts] * parts


def _nearly_even(g: Graph, layer: Layer, x: Blob, axis: int, parts: int) -> Sequence[Blob]:
    """Return parts of which the first may be one longer, as numpy's array_split makes them."""
    size = x.shape[axis]
    if size is None or not 0 < parts <= size or size % parts == 0:
        return divided(g, layer, x, axis, _even(size, parts), True)
    return divided(g, layer, x, axis, [size // parts + (index < size % parts) for index in range(parts)], False)


@layer("splitND")
def split_nd(g: Graph, layer: Layer) -> Sequence[Blob]:
    """Divide an axis into equal parts, or into parts of given sizes."""
    p, x = layer.params, g.lay(layer.x)
    axis, sizes = axis_of(p.axis, len(x.shape)), [int(size) for size in p.splitSizes]
    if not sizes:
        return _nearly_even(g, layer, x, axis, max(int(p.numSplits), len(layer.outputs)))
    if x.shape[axis] not in (None, sum(sizes)):
        raise LoadError(f"{x.shape[axis]} divided into {sizes}", "the network is damaged")
    return divided(g, layer, x, axis, sizes, False)


@layer("slice")
def slice_(g: Graph, layer: Layer) -> Blob:
    """Every n-th of the channels, rows or columns from one place up to another; the end counts from the end below 0."""
    p, x = layer.params, g.images(layer.x)
    axis = 1 + p.axis
    if axis not in (1, 2, 3):
        raise LoadError(f"the unknown axis {p.axis}", "the file is damaged")
    begin, end, stride = (0,) * axis + (p.startIndex,), (0,) * axis + (p.endIndex,), [1] * axis + [p.stride or 1]
    rest = 4 - axis - 1
    masks = [index != axis for index in range(4)]
    made = sliced(g, x, [*begin, *(0,) * rest], [*end, *(0,) * rest], [*stride, *[1] * rest], masks, masks, [False] * 4)
    return g.restored(made, layer.x)


def sliced(
    g: Graph,
    x: Blob,
    begin: Sequence[int],
    end: Sequence[int],
    stride: Sequence[int],
    begin_mask: Sequence[bool],
    end_mask: Sequence[bool],
    squeeze: Sequence[bool],
) -> Blob:
    """Return a slice of a whole value; masked limits are those of the axis, squeezed axes have one element."""
    rank = len(x.shape)
    if {len(part) for part in (begin, end, stride, begin_mask, end_mask, squeeze)} != {rank}:
        raise LoadError(f"a slice of {x.shape} by {len(begin)} limits", "the network is damaged")
    shape: list[int | None] = []
    for axis, length in enumerate(x.shape):
        if stride[axis] == 0 or abs(stride[axis]) >= 1 << 31:
            raise LoadError(f"a slice of stride {stride[axis]}", "the network is damaged")
        if squeeze[axis]:
            continue
        low = None if begin_mask[axis] else begin[axis]
        high = None if end_mask[axis] else end[axis]
        shape.append(None if length is None else len(range(*slice(low, high, stride[axis]).indices(length))))
    # MIL has no mask for a squeezed axis: a masked begin is its first element, or its last when going backwards.
    begin = [
        (-1 if s < 0 else 0) if q and m else b for b, s, q, m in zip(begin, stride, squeeze, begin_mask, strict=True)
    ]
    begin_mask = [masked and not gone for masked, gone in zip(begin_mask, squeeze, strict=True)]
    limit = (1 << 31) - 1  # MIL's limits are int32, a file's int64
    given: dict[str, Any] = {
        "begin": [max(-limit, min(limit, value)) for value in begin],
        "end": [max(-limit, min(limit, value)) for value in end],
        "stride": list(stride),
        "begin_mask": list(begin_mask),
        "end_mask": list(end_mask),
        "squeeze_mask": list(squeeze),
    }
    known = g.known(x)
    if rank == 1 and known is not None:
        return _known_slice(g, known, given, not shape)
    if not shape:
        given["squeeze_mask"][0] = False  # networks have no scalars: one axis stays
        return g.op("slice_by_index", (1,), x=x, **given)
    return g.op("slice_by_index", tuple(shape), x=x, **given)


def _known_slice(g: Graph, numbers: Sequence[float], given: dict[str, Any], single: bool) -> Blob:
    begin, end, stride = (given[name][0] for name in ("begin", "end", "stride"))
    if single:
        return vector(g, [numbers[begin]])
    low, high = None if given["begin_mask"][0] else begin, None if given["end_mask"][0] else end
    return vector(g, numbers[slice(low, high, stride)])


def _flags(values: Sequence[bool], rank: int) -> list[bool]:
    return [*map(bool, values), *[False] * (rank - len(values))]


@layer("sliceStatic")
def slice_static(g: Graph, layer: Layer) -> Blob:
    """A slice along every axis."""
    p, x = layer.params, g.lay(layer.x)
    rank = len(x.shape)
    masks = [_flags(values, rank) for values in (p.beginMasks, p.endMasks, p.squeezeMasks)]
    return sliced(g, x, list(p.beginIds), list(p.endIds), list(p.strides) or [1] * rank, *masks)


@layer("sliceDynamic", inputs=2)
def slice_dynamic(g: Graph, layer: Layer) -> Blob:
    """A slice whose begin is the second input; end, stride and masks may be further ones."""
    p, x, rank = layer.params, g.lay(layer.x), layer.x.rank
    numbers: list[Any] = [None, list(p.endIds), list(p.strides) or [1] * rank]
    masks: list[Any] = [_flags(values, rank) for values in (p.beginMasks, p.endMasks, p.squeezeMasks)]
    given = [g.known(item) for item in layer.inputs[1:]]
    for index, item in enumerate(layer.inputs[1:4]):
        known = given[index]
        numbers[index] = [int(v) for v in known] if known is not None else integers(g, g.lay(item))
    for index, item in enumerate(layer.inputs[4:7]):
        known = given[index + 3]
        masks[index] = [v != 0 for v in known] if known is not None else truth(g, g.lay(item))
    if all(isinstance(part, list) for part in (*numbers, *masks)):
        return sliced(g, x, numbers[0], numbers[1], numbers[2], masks[0], masks[1], masks[2])
    gone = masks[2] if isinstance(masks[2], list) else [False] * rank
    if not isinstance(masks[2], list):
        raise LoadError("a rank that only a run tells", "tlkit needs the rank of each value before it runs")
    names = ("begin", "end", "stride")
    shape: Shape = tuple(1 if squeezed else None for squeezed in gone)
    flags = {"begin_mask": masks[0], "end_mask": masks[1]}
    made = g.op("slice_by_index", shape, x=x, **dict(zip(names, numbers, strict=True)), **flags)
    if not any(gone):
        return made
    # Of an axis that goes, the first element of its slice is left, however long that is.
    first: dict[str, Any] = {"begin": [0] * rank, "end": [1] * rank, "begin_mask": [not axis for axis in gone]}
    gone = [False, *gone[1:]] if all(gone) else gone
    left = tuple(1 if first["begin_mask"][axis] is False else None for axis in range(rank) if not gone[axis])
    return g.op("slice_by_index", left, x=made, **first, end_mask=first["begin_mask"], squeeze_mask=gone)


@layer("sliceBySize", inputs=2)
def slice_by_size(g: Graph, layer: Layer) -> Blob:
    """So many elements of an axis from the place on that the second input names."""
    p, x = layer.params, g.lay(layer.x)
    axis, size, rank = axis_of(p.axis, len(x.shape)), int(p.size), len(x.shape)
    sizes = [size if index == axis else -1 for index in range(rank)]
    known = g.known(layer.inputs[1])
    if known is not None:
        begin: Any = [int(known[0]) if index == axis else 0 for index in range(rank)]
    else:
        place = integers(g, g.reshape(layer.inputs[1], (1,)))
        parts = [place if index == axis else g.tensor(_zero(), "zero") for index in range(rank)]
        begin = g.op("concat", (rank,), out=DType.INT32, values=parts, axis=0) if rank > 1 else place
    return g.op("slice_by_size", replaced(x.shape, axis, size), x=x, begin=begin, size=sizes)


def _zero() -> Any:
    return scalar([0])


@layer("crop")
def crop(g: Graph, layer: Layer) -> Blob:
    """Cut borders off, or cut the second input's height and width out at an offset."""
    p, x, other = layer.params, g.images(layer.x), layer.input(1)
    height, width = x.shape[-2:]
    if other is not None:
        top, left = lengths(p.offset, 2, 0)
        sides = g.images(other).shape[-2:]
        end = [0, 0, *(None if d is None else d + o for d, o in zip(sides, (top, left), strict=True))]
        if None in end or None in (height, width) or (end[2] or 0) > (height or 0) or (end[3] or 0) > (width or 0):
            raise LoadError(f"{sides} cut out of {layer.x.logical} at {top}, {left}", "the network is damaged")
        masks = [True, True, False, False]
        limits = [int(value or 0) for value in end]
        return g.restored(sliced(g, x, [0, 0, top, left], limits, [1] * 4, masks, masks, [False] * 4), layer.x)
    rows, columns = borders(p.cropAmounts)
    left_over = [None if d is None else d - sum(pair) for d, pair in zip((height, width), (rows, columns), strict=True)]
    if any(d is not None and d < 1 for d in left_over):
        raise LoadError(f"{rows} and {columns} cut off {layer.x.logical}", "the network is damaged")
    shape = (*x.shape[:2], *left_over)
    return g.restored(g.op("crop", shape, x=x, crop_height=list(rows), crop_width=list(columns)), layer.x)


@layer("padding")
def padding(g: Graph, layer: Layer) -> Blob:
    """Put a border round images: a constant, a reflection, or the outermost pixels again."""
    p, x = layer.params, g.images(layer.x)
    which = p.WhichOneof("PaddingType") or "constant"
    pads = borders(p.paddingAmounts)
    sides = [None if d is None else d + sum(pair) for d, pair in zip(x.shape[-2:], pads, strict=True)]
    mode = {"constant": "constant", "reflection": "reflect", "replication": "replicate"}[which]
    value = float(p.constant.value) if which == "constant" else None
    amounts = [0, 0, 0, 0, *pads[0], *pads[1]]
    made = g.op("pad", (*x.shape[:2], *sides), x=x, pad=amounts, mode=mode, constant_val=value)
    return g.restored(made, layer.x)


@layer("constantPad")
def constant_pad(g: Graph, layer: Layer) -> Blob:
    """Put a constant before and after each axis, so much or up to a length; the amounts may be the second input."""
    p, x, given = layer.params, g.lay(layer.x), layer.input(1)
    known = g.known(given) if given is not None else None
    if given is not None and known is None:
        amounts = integers(g, g.lay(given))
        return g.op("pad", (None,) * len(x.shape), x=x, pad=amounts, mode="constant", constant_val=float(p.value))
    found = [int(value) for value in (known if known is not None else p.padAmounts)]
    if len(found) != 2 * len(x.shape):
        raise LoadError(f"{len(found)} amounts for a rank of {len(x.shape)}", "the network is damaged")
    pairs = list(zip(found[::2], found[1::2], strict=True))
    if p.padToGivenOutputSizeMode:
        pairs = [_up_to(pair, d) for pair, d in zip(pairs, x.shape, strict=True)]
    shape = tuple(None if d is None else d + sum(pair) for d, pair in zip(x.shape, pairs, strict=True))
    flat = [amount for pair in pairs for amount in pair]
    return g.op("pad", shape, x=x, pad=flat, mode="constant", constant_val=float(p.value))


def _up_to(pair: tuple[int, int], size: int | None) -> tuple[int, int]:
    """Return what to add where a pair says the length wanted: before, or (second) after."""
    if pair == (0, 0):
        return pair
    if size is None or min(pair) or max(pair) < size:
        raise LoadError(f"a length of {size} padded up to {pair}", "the network is damaged")
    return (pair[0] - size, 0) if pair[0] else (0, pair[1] - size)


@layer("tile")
def tile(g: Graph, layer: Layer) -> Blob:
    """Repeat each axis; how often may be the second input."""
    x, given = layer.x, layer.input(1)
    known = g.known(given) if given is not None else None
    if given is not None and known is None:
        return _tiled(g, g.lay(x), g.lay(given))
    reps = [int(value) for value in (known if known is not None else layer.params.reps)]
    whole = g.lay(x)
    reps = [1] * (x.rank - len(reps)) + reps
    if min(reps, default=0) < 1:
        raise LoadError(f"{reps} repetitions of {x.logical}", "the network is damaged")
    # More repetitions than axes: axes are added in front, as numpy's tile does.
    whole = g.reshape(whole, (*(1,) * (len(reps) - x.rank), *whole.shape)) if len(reps) > x.rank else whole
    shape = tuple(None if d is None else d * times for d, times in zip(whole.shape, reps, strict=True))
    return g.op("tile", shape, x=whole, reps=reps)


def _tiled(g: Graph, x: Blob, given: Blob) -> Blob:
    """Repeat the last axes as often as a value says, which only a run tells."""
    count, rank = product(given.shape), len(x.shape)
    if count is None or count > rank:
        raise LoadError(f"{given.shape} repetitions of {x.shape}", "tlkit needs the rank of each value before it runs")
    reps = integers(g, given)
    if count < rank:
        ones = g.tensor(scalar([1] * (rank - count)), "ones")
        reps = g.op("concat", (rank,), out=DType.INT32, values=[ones, reps], axis=0)
    return g.op("tile", (None,) * rank, x=x, reps=reps)


@layer("slidingWindows")
def sliding_windows(g: Graph, layer: Layer) -> Blob:
    """The windows along an axis, each an element of that axis."""
    p, x = layer.params, g.lay(layer.x)
    axis, size, step = axis_of(p.axis, len(x.shape)), int(p.windowSize), max(1, int(p.step))
    length = x.shape[axis]
    count = None if length is None else (length - size) // step + 1
    if size < 1 or (count is not None and count < 1):
        raise LoadError(f"windows of {size} in {x.shape}", "the network is damaged")
    shape = (*x.shape[:axis], count, size, *x.shape[axis + 1 :])
    return g.op("sliding_windows", shape, x=x, axis=axis, size=size, stride=step)


@layer("broadcastToStatic")
def broadcast_to_static(g: Graph, layer: Layer) -> Blob:
    """Repeat the input up to a shape."""
    return broadcast_to(g, layer.x, tuple(int(length) for length in layer.params.targetShape))


@layer("broadcastToLike", inputs=2)
def broadcast_to_like(g: Graph, layer: Layer) -> Blob:
    """Repeat the first input up to the second one's shape."""
    other = g.lay(layer.inputs[1])
    if None not in other.shape:
        return broadcast_to(g, layer.x, tuple(other.shape))
    return _times(g, g.lay(layer.x), filled(g, other, 1.0))


@layer("broadcastToDynamic", inputs=2)
def broadcast_to_dynamic(g: Graph, layer: Layer) -> Blob:
    """Repeat the first input up to the shape that the second one holds."""
    given = layer.inputs[1]
    known = g.known(given)
    if known is not None:
        return broadcast_to(g, layer.x, tuple(int(length) for length in known))
    rank = product(given.shape)
    if rank is None:
        raise LoadError("a rank that only a run tells", "tlkit needs the rank of each value before it runs")
    ones = g.op("fill", (None,) * rank, shape=integers(g, g.lay(given)), value=1.0)
    return _times(g, g.lay(layer.x), ones)


def _times(g: Graph, x: Blob, ones: Blob) -> Blob:
    return g.op("mul", ones.shape, x=x, y=ones)


def broadcast_to(g: Graph, x: Blob, shape: Shape) -> Blob:
    """Return a value repeated up to ``shape``, whose lengths are all known."""
    whole = g.lay(x)
    if len(shape) < len(whole.shape):
        raise LoadError(f"{whole.shape} repeated up to {shape}", "the network is damaged")
    short = (1,) * (len(shape) - len(whole.shape))
    whole = g.reshape(whole, (*short, *whole.shape)) if short else whole
    pairs = list(zip(whole.shape, shape, strict=True))
    if any(d != wanted and d != 1 for d, wanted in pairs) or 0 in shape:
        raise LoadError(f"{whole.shape} repeated up to {shape}", "the network is damaged")
    reps = [1 if d == wanted else int(wanted or 1) for d, wanted in pairs]
    return g.op("tile", shape, x=whole, reps=reps) if any(times > 1 for times in reps) else unary(g, "identity", whole)
