"""Layers that give the same elements another shape or order."""

from __future__ import annotations

from collections.abc import Sequence

from tlkit.errors import LoadError
from tlkit.frontends.network.kit.arithmetic import integers, number
from tlkit.frontends.network.kit.blob import Blob, Shape, axis_of, product, replaced
from tlkit.frontends.network.kit.graph import Graph, scalar
from tlkit.frontends.network.kit.registry import Layer, layer
from tlkit.mil.types import DType


def transposed(g: Graph, x: Blob, order: Sequence[int]) -> Blob:
    """Return ``x``, whole, with its axes in another order."""
    whole = g.lay(x)
    if sorted(order) != list(range(x.rank)):
        raise LoadError(f"the axes {list(order)} of a rank of {x.rank}", "the file is damaged")
    shape = tuple(whole.shape[axis] for axis in order)
    return whole if list(order) == sorted(order) else g.op("transpose", shape, x=whole, perm=list(order))


@layer("permute")
def permute(g: Graph, layer: Layer) -> Blob:
    """Put sequence, C, H and W in another order; the batch stays where it is."""
    axes, x = [int(axis) for axis in layer.params.axis] or [0, 1, 2, 3], layer.x
    if sorted(axes) != [0, 1, 2, 3]:
        raise LoadError(f"the axes {axes}, where 0 to 3 are to be put in order", "the file is damaged")
    if axes[0] == 0 and x.rank >= 3:  # an image's own axes
        image = g.images(x)
        shape = (image.shape[0], *(image.shape[axis] for axis in axes[1:]))
        made = image if axes == [0, 1, 2, 3] else g.op("transpose", shape, x=image, perm=[0, *axes[1:]])
        return g.restored(made, x)
    if x.rank != 5:
        raise LoadError(f"a permutation of the sequence of {x.logical}", "the network is damaged")
    # Sequence, C, H and W among [sequence, batch, C, H, W]
    places = [0, 2, 3, 4]
    order = [places[axis] for axis in axes]
    return transposed(g, x, [order[0], 1, *order[1:]])


@layer("transpose")
def transpose(g: Graph, layer: Layer) -> Blob:
    """Put the axes in another order.

    An image enters as [1, C, H, W]; converters that put it in place of an array [H, W, C] list three axes.
    """
    x, axes = layer.x, [int(axis) for axis in layer.params.axes]
    spare = x.rank - len(axes)
    if axes and spare > 0 and set(x.logical[:spare]) == {1}:
        x = g.reshape(x, x.logical[spare:])
    return transposed(g, x, axes)


@layer("flatten")
def flatten(g: Graph, layer: Layer) -> Blob:
    """Put C, H and W into C, channels last if that is asked for; H and W become 1."""
    x = layer.x
    before, sides = x.logical[:-3], x.logical[-3:]
    if x.rank < 3:
        raise LoadError(f"a flatten of {x.logical}", "the network is damaged")
    if sides[1:] == (1, 1):
        return x
    lead = next((place for place, length in enumerate(before) if length != 1), len(before))
    # At least one axis before the vectors stays in the program, as their batch.
    lead = min(lead, max(len(before) - 1, 0))
    # CHANNEL_LAST: Keras lists the pixels' channels side by side.
    if layer.params.mode == 1:
        image = g.images(x)
        shape = (image.shape[0], image.shape[2], image.shape[3], image.shape[1])
        last = g.op("transpose", shape, x=image, perm=[0, 2, 3, 1])
    else:
        last = x
    made = g.reshape(last, (*before[lead:], product(sides)))
    return Blob(made.name, made.shape, lead, 2)


@layer("reshape")
def reshape(g: Graph, layer: Layer) -> Blob:
    """Give [Seq, C, H, W] other lengths; in channel-last mode the elements are read and put H, W, C."""
    p, x = layer.params, layer.x
    target = [int(length) for length in p.targetShape]
    if len(target) not in (3, 4):
        raise LoadError(f"a target shape of {len(target)} lengths", "the file is damaged")
    sides = target[-3:]
    sequence = target[0] if len(target) == 4 else None
    before: Shape = x.logical[:-3]
    if x.rank == 5:
        # The batch is not among [Seq, C, H, W]: it stays.
        before = (sequence or before[0], *before[1:])
    elif sequence not in (None, 1):
        raise LoadError(f"a sequence of {sequence} in a rank of {x.rank}", "the network is damaged")
    wanted = _inferred(x, (*before, *sides))
    if p.mode != 1:
        return g.reshape(x, wanted)
    # [.., H, W, C]
    order = [*range(x.rank - 3), x.rank - 2, x.rank - 1, x.rank - 3]
    channels, height, width = wanted[-3:]
    filled = g.reshape(transposed(g, x, order), (*wanted[:-3], height, width, channels))
    rank = len(wanted)
    return transposed(g, filled, [*range(rank - 3), rank - 1, rank - 3, rank - 2])


def _inferred(x: Blob, wanted: Sequence[int | None]) -> Shape:
    """Return a shape in which one -1 stands for what is left, and nothing else is below 0."""
    if any(length is not None and length < -1 for length in wanted) or list(wanted).count(-1) > 1:
        raise LoadError(f"a reshape to {list(wanted)}", "the network is damaged")
    if -1 not in wanted:
        return tuple(wanted)
    count, known = product(x.shape), product([length for length in wanted if length != -1])
    if count is None or known is None:
        return tuple(None if length == -1 else length for length in wanted)
    if known == 0 or count % known:
        raise LoadError(f"a reshape of {x.logical} to {list(wanted)}", "the network is damaged")
    return tuple(count // known if length == -1 else length for length in wanted)


@layer("reshapeStatic")
def reshape_static(g: Graph, layer: Layer) -> Blob:
    """Give the input another shape, in which one length may be -1."""
    return g.reshape(layer.x, _inferred(layer.x, [int(length) for length in layer.params.targetShape]))


@layer("rankPreservingReshape")
def rank_preserving_reshape(g: Graph, layer: Layer) -> Blob:
    """Give the input another shape of the same rank; 0 keeps a length, one may be -1."""
    target, x = [int(length) for length in layer.params.targetShape], layer.x
    if len(target) != x.rank:
        raise LoadError(f"a reshape of {x.logical} to {target}", "the network is damaged")
    return g.reshape(
        x, _inferred(x, [d if length == 0 else length for length, d in zip(target, x.logical, strict=True)])
    )


@layer("reshapeDynamic", inputs=2)
def reshape_dynamic(g: Graph, layer: Layer) -> Blob:
    """Give the first input the shape that the second one holds."""
    x, given = layer.x, layer.inputs[1]
    known = g.known(given)
    if known is not None:
        return g.reshape(x, _inferred(x, [int(length) for length in known]))
    # Only the rank is known now: it is the number of lengths.
    count = _count(given)
    return g.op("reshape", (None,) * count, x=g.lay(x), shape=integers(g, g.lay(given)))


def _count(given: Blob) -> int:
    """Return how many numbers a vector holds; LoadError where only a run tells."""
    count = product(given.shape)
    if count is None:
        raise LoadError("a rank that only a run tells", "tlkit needs the rank of each value before it runs")
    return count


@layer("reshapeLike", inputs=2)
def reshape_like(g: Graph, layer: Layer) -> Blob:
    """Give the first input the second one's shape."""
    other = g.lay(layer.inputs[1])
    if sum(d is None for d in other.shape) <= 1:
        return g.reshape(layer.x, other.shape)
    place = g.op("shape", (len(other.shape),), out=DType.INT32, x=other)
    return g.op("reshape", other.shape, x=g.lay(layer.x), shape=place)


@layer("flattenTo2D")
def flatten_to_2d(g: Graph, layer: Layer) -> Blob:
    """Put the axes before ``axis`` into one, and those from there on into another."""
    x = layer.x
    axis = layer.params.axis + (x.rank if layer.params.axis < 0 else 0)
    if not 0 <= axis <= x.rank:
        raise LoadError(f"there is no axis {axis} in a rank of {x.rank}", "the network is damaged")
    shape = (product(x.logical[:axis]), product(x.logical[axis:]))
    return g.op("flatten2d", shape, x=g.lay(x), axis=axis) if None in shape else g.reshape(x, shape)


@layer("squeeze")
def squeeze(g: Graph, layer: Layer) -> Blob:
    """Take axes of length 1 away, all of them or some; one stays where none would be left."""
    p, x = layer.params, g.lay(layer.x)
    rank = len(x.shape)
    axes = [axis for axis, d in enumerate(x.shape) if d == 1] if p.squeezeAll else [axis_of(a, rank) for a in p.axes]
    if any(x.shape[axis] not in (1, None) for axis in axes):
        raise LoadError(f"a squeeze of the axes {axes} of {x.shape}", "the network is damaged")
    shape = tuple(d for axis, d in enumerate(x.shape) if axis not in axes)
    if not shape:
        return g.reshape(x, (1,))
    return g.op("squeeze", shape, x=x, axes=sorted(axes)) if axes else x


@layer("expandDims")
def expand_dims(g: Graph, layer: Layer) -> Blob:
    """Put axes of length 1 in, at their places in the result."""
    x = g.lay(layer.x)
    rank = len(x.shape) + len(layer.params.axes)
    axes = sorted(axis_of(axis, rank) for axis in layer.params.axes)
    if len(set(axes)) != len(axes):
        raise LoadError(f"the axes {axes}", "the file is damaged")
    shape = list(x.shape)
    for axis in axes:
        shape.insert(axis, 1)
    return g.op("expand_dims", tuple(shape), x=x, axes=axes) if axes else x


@layer("getShape")
def get_shape(g: Graph, layer: Layer) -> Blob:
    """The input's shape, as floats."""
    x = g.lay(layer.x)
    if None in x.shape:
        return number(g, g.op("shape", (len(x.shape),), out=DType.INT32, x=x), DType.INT32)
    return vector(g, [float(length or 0) for length in x.shape])


def vector(g: Graph, numbers: Sequence[float]) -> Blob:
    """Return a constant vector of floats whose numbers are known when the program is made."""
    return g.know(g.tensor(scalar([float(value) for value in numbers])), numbers)


@layer("reorganizeData")
def reorganize_data(g: Graph, layer: Layer) -> Blob:
    """Blocks of pixels to channels, channels to blocks, or those as PyTorch's pixel shuffle takes them."""
    p, x = layer.params, g.images(layer.x)
    block, (count, channels, height, width) = int(p.blockSize), x.shape
    # Below 2^15, so that its square stays below 2^31.
    if not 0 < block < 1 << 15 or p.mode not in (0, 1, 2):
        raise LoadError(f"blocks of {block}, mode {p.mode}", "the file is damaged")
    square = block * block
    if None in (channels, height, width) or (p.mode and (channels or 0) % square):
        raise LoadError(f"blocks of {block} in {layer.x.logical}", "the network is damaged")
    if p.mode == 0:
        if (height or 0) % block or (width or 0) % block:
            raise LoadError(f"blocks of {block} in {layer.x.logical}", "the network is damaged")
        shape: Shape = (count, (channels or 0) * square, (height or 0) // block, (width or 0) // block)
        return g.restored(g.op("space_to_depth", shape, x=x, block_size=block), layer.x)
    shape = (count, (channels or 0) // square, (height or 0) * block, (width or 0) * block)
    if p.mode == 2:
        return g.restored(g.op("pixel_shuffle", shape, x=x, upscale_factor=block), layer.x)
    return g.restored(g.op("depth_to_space", shape, x=x, block_size=block), layer.x)


@layer("reverse")
def reverse(g: Graph, layer: Layer) -> Blob:
    """Turn axes round."""
    x, flags = g.lay(layer.x), list(layer.params.reverseDim)
    axes = [axis for axis, turned in enumerate(flags) if turned]
    if len(flags) > len(x.shape):
        raise LoadError(f"{len(flags)} flags for a rank of {len(x.shape)}", "the network is damaged")
    return g.op("reverse", x.shape, x=x, axes=axes) if axes else x


@layer("reverseSeq", inputs=2)
def reverse_sequence(g: Graph, layer: Layer) -> Blob:
    """Turn the first so many elements of each sequence round; the second input says how many."""
    p, x = layer.params, g.lay(layer.x)
    axes = [axis_of(axis, len(x.shape)) for axis in (p.sequenceAxis, p.batchAxis)]
    many = integers(g, g.lay(layer.inputs[1]))
    return g.op("reverse_sequence", x.shape, x=x, lengths=many, seq_axis=axes[0], batch_axis=axes[1])


@layer("sequenceRepeat")
def sequence_repeat(g: Graph, layer: Layer) -> Blob:
    """Repeat the sequence."""
    x, times = g.lay(layer.x), max(1, int(layer.params.nRepetitions))
    axis = axis_of(-5, len(x.shape))
    shape = replaced(x.shape, axis, None if x.shape[axis] is None else times * (x.shape[axis] or 0))
    reps = [times if index == axis else 1 for index in range(len(x.shape))]
    return g.op("tile", shape, x=x, reps=reps)
