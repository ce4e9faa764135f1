"""Sums, means, extremes and where these are."""

from __future__ import annotations

from collections.abc import Sequence

from tlkit.errors import LoadError
from tlkit.frontends.network.kit.arithmetic import binary, number
from tlkit.frontends.network.kit.blob import Blob, axis_of, product
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.registry import Layer, layer
from tlkit.mil.types import DType

# By the numbers of ReduceLayerParams' operations, and of its axes: CHW, HW, C, H, W.
_OLD = ("sum", "mean", "prod", "log_sum", "sum_square", "l1_norm", "l2_norm", "max", "min", "argmax")
_AXES: tuple[tuple[int, ...], ...] = ((-3, -2, -1), (-2, -1), (-3,), (-2,), (-1,))
_NEW = {"L1": "l1_norm", "L2": "l2_norm", "Max": "max", "Min": "min", "Sum": "sum", "Prod": "prod", "Mean": "mean"}
_NEW |= {"LogSum": "log_sum", "SumSquare": "sum_square", "LogSumExp": "log_sum_exp"}


def reduced(g: Graph, kind: str, x: Blob, axes: Sequence[int], *, keep: bool) -> Blob:
    """Reduce over ``axes``; what would have no axis left has one of length 1."""
    whole = g.lay(x)
    places = sorted({axis_of(axis, x.rank) for axis in axes})
    kept = tuple(1 if axis in places else d for axis, d in enumerate(whole.shape))
    if keep:
        return g.op(f"reduce_{kind}", kept, x=whole, axes=places, keep_dims=True)
    if len(places) == x.rank:  # networks have no scalars
        return g.reshape(g.op(f"reduce_{kind}", kept, x=whole, axes=places, keep_dims=True), (1,))
    left = tuple(d for axis, d in enumerate(whole.shape) if axis not in places)
    return g.op(f"reduce_{kind}", left, x=whole, axes=places, keep_dims=False)


@layer("reduce")
def reduce(g: Graph, layer: Layer) -> Blob:
    """Reduce C, H and W, or some of them, to 1."""
    p = layer.params
    if not (0 <= p.mode < len(_OLD) and 0 <= p.axis < len(_AXES)):
        raise LoadError(f"the unknown mode {p.mode} or axis {p.axis}", "the file is damaged")
    kind, axes, x = _OLD[p.mode], _AXES[p.axis], layer.x
    if kind == "argmax":
        if len(axes) != 1:
            raise LoadError("an argmax over several axes", "the file is damaged")
        return arg(g, "argmax", x, axes[0], keep=True)
    if kind == "log_sum":
        x = binary(g, "add", x, p.epsilon)
    if x.rank < 3:
        return reduced(g, kind, x, axes, keep=True)
    image = g.images(x)
    return g.restored(reduced(g, kind, Blob(image.name, image.shape), axes, keep=True), x)


def _new(kind: str, mil: str) -> None:
    @layer(kind)
    def function(g: Graph, layer: Layer) -> Blob:
        p, x = layer.params, layer.x
        axes = list(range(x.rank)) if p.reduceAll or not p.axes else [int(axis) for axis in p.axes]
        return reduced(g, mil, x, axes, keep=bool(p.keepDims))


for _kind, _mil in _NEW.items():
    _new(f"reduce{_kind}", _mil)


def arg(g: Graph, kind: str, x: Blob, axis: int, *, keep: bool) -> Blob:
    """Return where along an axis the extreme is, as floats."""
    whole = g.lay(x)
    place = axis_of(axis, x.rank)
    shape = tuple(1 if index == place else d for index, d in enumerate(whole.shape))
    left = shape if keep or x.rank == 1 else (*shape[:place], *shape[place + 1 :])
    keep = left == shape if x.rank > 1 else True
    made = g.op(f"reduce_{kind}", left, out=DType.INT32, x=whole, axis=place, keep_dims=keep)
    return number(g, made, DType.INT32)


@layer("argMax")
def arg_max(g: Graph, layer: Layer) -> Blob:
    """Where the largest element is."""
    return arg(g, "argmax", layer.x, layer.params.axis, keep=not layer.params.removeDim)


@layer("argMin")
def arg_min(g: Graph, layer: Layer) -> Blob:
    """Where the smallest element is."""
    return arg(g, "argmin", layer.x, layer.params.axis, keep=not layer.params.removeDim)


@layer("topK")
def top_k(g: Graph, layer: Layer) -> Sequence[Blob]:
    """The K largest (or smallest) elements along an axis, in order, and where they are."""
    p, x = layer.params, g.lay(layer.x)
    axis, given = axis_of(p.axis, len(x.shape)), layer.input(1)
    count: int | None = int(p.K)
    k: object = count
    if given is not None:
        known = g.known(given)
        count = int(known[0]) if known is not None and len(known) else None
        k = count if count is not None else g.op("squeeze", (), out=DType.INT32, x=_whole(g, given), axes=[0])
    if count is not None and not 0 < count <= (x.shape[axis] or count):
        raise LoadError(f"the {count} largest of {x.shape[axis]}", "the network is damaged")
    shape = tuple(count if index == axis else d for index, d in enumerate(x.shape))
    outputs = [(shape, DType.FP32), (shape, DType.INT32)]
    values, places = g.emit("topk", outputs, x=x, k=k, axis=axis, ascending=bool(p.useBottomK))
    return Blob(values, shape), number(g, Blob(places, shape), DType.INT32)


def _whole(g: Graph, x: Blob) -> Blob:
    flat = x if product(x.shape) == 1 and len(x.shape) == 1 else g.reshape(x, (1,))
    return g.cast(flat, DType.INT32)


@layer("argSort")
def arg_sort(g: Graph, layer: Layer) -> Blob:
    """The order of the elements along an axis."""
    x = g.lay(layer.x)
    axis = axis_of(layer.params.axis, len(x.shape))
    made = g.op("argsort", x.shape, out=DType.INT32, x=x, axis=axis, ascending=not layer.params.descending)
    return number(g, made, DType.INT32)


@layer("cumSum")
def cum_sum(g: Graph, layer: Layer) -> Blob:
    """The running sum along an axis, which may be the second input."""
    p, x = layer.params, g.lay(layer.x)
    given, axis = layer.input(1), p.axis
    known = g.known(given) if given is not None else None
    place: object = axis_of(int(known[0]) if known is not None else axis, len(x.shape))
    if given is not None and known is None:
        place = g.op("squeeze", (), out=DType.INT32, x=_whole(g, given), axes=[0])
    return g.op("cumsum", x.shape, x=x, axis=place, exclusive=p.excludeFinalSum, reverse=p.reverse)
