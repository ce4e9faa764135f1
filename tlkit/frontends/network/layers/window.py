"""What slides over images and volumes: convolutions, transposed ones and pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlkit.errors import LoadError
from tlkit.frontends.network.kit.blob import Blob
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.registry import Layer, layer, lengths

Pads = list[tuple[int, int]]
_POOLS = {0: "max_pool", 1: "avg_pool", 2: "l2_pool"}  # by the numbers of PoolingLayerParams' types


def borders(message: Any) -> Pads:
    """Return a ``BorderAmounts`` as (top, bottom) and (left, right); nothing stands for zeros."""
    found = [(int(edge.startEdgeSize), int(edge.endEdgeSize)) for edge in message.borderAmounts] or [(0, 0)] * 2
    if len(found) != 2 or any(amount >= 1 << 31 for edge in found for amount in edge):
        raise LoadError(f"{len(found)} borders where an image has two", "the file is damaged")
    return found


def window(size: int | None, kernel: int, stride: int, pads: tuple[int, int], dilation: int = 1) -> int | None:
    """Return how often a window fits into an axis; LoadError where it does not fit at all."""
    if stride < 1 or kernel < 1 or dilation < 1:
        raise LoadError("a kernel, stride or dilation of 0", "the file is damaged")
    if size is None:
        return None
    count = (size + sum(pads) - (kernel - 1) * dilation - 1) // stride + 1
    if count < 1:
        raise LoadError(f"a window of {kernel} does not fit into {size} and its padding", "the network is damaged")
    return count


def same(size: int | None, kernel: int, stride: int, *, start: bool) -> tuple[int, int]:
    """Return the padding with which a window goes ceil(size / stride) times; ``start`` puts the odd one first."""
    if stride < 1:
        raise LoadError("a stride of 0", "the file is damaged")
    if size is None:
        raise LoadError("'same' padding of an open length", "give the model a fixed shape")
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    less, more = total // 2, total - total // 2
    return (more, less) if start else (less, more)


def _padding(p: Any, oneof: str, sizes: Sequence[int | None], kernel: Sequence[int], stride: Sequence[int]) -> Pads:
    which = p.WhichOneof(oneof)
    if which == "same":
        start = p.same.asymmetryMode == 1  # TOP_LEFT_HEAVY
        return [same(size, k, s, start=start) for size, k, s in zip(sizes, kernel, stride, strict=True)]
    return borders(p.valid.paddingAmounts) if which == "valid" else [(0, 0)] * len(sizes)


def _flat(pads: Pads) -> list[int]:
    return [amount for pair in pads for amount in pair]


def pad_arguments(pads: Pads) -> dict[str, Any]:
    """Return MIL's ``pad_type`` and ``pad``."""
    return {"pad_type": "custom", "pad": _flat(pads)} if any(map(any, pads)) else {"pad_type": "valid"}


@layer("convolution")
def convolution(g: Graph, layer: Layer) -> Blob:
    """Convolve [.., C, H, W], or transpose the convolution; the weights may be the second input."""
    p = layer.params
    x = g.images(layer.x)
    groups, stride = max(1, p.nGroups), lengths(p.stride, 2, 1)
    given = layer.input(1)
    if given is not None:
        weight: Any = g.lay(given)
        # [C_out, C_in / groups, kH, kW], like a constant weight
        kernel, channels = _known(weight.shape[-2:]), weight.shape[0]
    else:
        kernel, channels = lengths(p.kernelSize, 2, 3), int(p.outputChannels)
        # kernelChannels are those of one group, or of all groups where the convolution is transposed.
        shape = (p.kernelChannels, channels // groups) if p.isDeconvolution else (channels, p.kernelChannels)
        weight = layer.weights.tensor(p.weights, (*shape, *kernel), axis=1 if p.isDeconvolution else 0)
    offset = layer.input(2)
    bias: Any = g.lay(offset, 0, 0) if offset is not None else None
    if bias is not None and len(bias.shape) != 1:
        bias = g.reshape(bias, (channels,))
    if p.hasBias and bias is None:
        bias = layer.weights.tensor(p.bias, (channels,))
    common = {"x": x, "weight": weight, "bias": bias, "strides": stride, "groups": groups}
    if p.isDeconvolution:
        made = _transposed(g, p, x, kernel, stride, channels, common)
    else:
        dilation = lengths(p.dilationFactor, 2, 1)
        spread = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        pads = _padding(p, "ConvolutionPaddingType", x.shape[-2:], spread, stride)
        sides = [window(n, k, s, b) for n, k, s, b in zip(x.shape[-2:], spread, stride, pads, strict=True)]
        made = g.op("conv", (x.shape[0], channels, *sides), **common, **pad_arguments(pads), dilations=dilation)
    return g.restored(made, layer.x)


def _known(shape: Sequence[int | None]) -> list[int]:
    if None in shape:
        raise LoadError("a kernel of an open size", "give the model a fixed shape")
    return [int(length or 0) for length in shape]


def _transposed(
    g: Graph, p: Any, x: Blob, kernel: list[int], stride: list[int], channels: int | None, common: dict[str, Any]
) -> Blob:
    sizes = _known(x.shape[-2:])
    # NeuralNetwork.proto: a transposed convolution ignores the dilation.
    full = [(n - 1) * s + k for n, s, k in zip(sizes, stride, kernel, strict=True)]
    wanted = [int(length) for length in p.outputShape]
    if p.WhichOneof("ConvolutionPaddingType") == "same":
        total = [max(0, f - (wanted[i] if wanted else sizes[i] * stride[i])) for i, f in enumerate(full)]
        halves = [(t // 2, t - t // 2) for t in total]
        pads = [(b, a) for a, b in halves] if p.same.asymmetryMode == 1 else halves
        wanted = wanted or [n * s for n, s in zip(sizes, stride, strict=True)]
    else:
        pads = borders(p.valid.paddingAmounts)
        wanted = wanted or [f - sum(pair) for f, pair in zip(full, pads, strict=True)]
    if len(wanted) != 2 or min(wanted) < 1:
        raise LoadError(f"a transposed convolution to {wanted}", "the network is damaged")
    shape = (x.shape[0], channels, *wanted)
    exact = all(f - sum(pair) == w for f, pair, w in zip(full, pads, wanted, strict=True))
    output = None if exact or None in shape else list(shape)
    return g.op("conv_transpose", shape, **common, **pad_arguments(pads), output_shape=output)


@layer("pooling")
def pooling(g: Graph, layer: Layer) -> Blob:
    """Maxima, means or roots of sums of squares of windows; of all of H and W with ``globalPooling``."""
    p, x = layer.params, g.images(layer.x)
    if p.type not in _POOLS:
        raise LoadError(f"the unknown pooling type {p.type}", "the file is damaged")
    if p.globalPooling:
        kind = ("reduce_max", "reduce_mean", "reduce_l2_norm")[p.type]
        return g.restored(g.op(kind, (*x.shape[:2], 1, 1), x=x, axes=[2, 3], keep_dims=True), layer.x)
    kernel, stride, sizes = lengths(p.kernelSize, 2, 3), lengths(p.stride, 2, 1), x.shape[-2:]
    if p.WhichOneof("PoolingPaddingType") == "includeLastPixel":
        around = lengths(p.includeLastPixel.paddingAmounts, 2, 0)
        zipped = zip(_known(sizes), kernel, stride, around, strict=True)
        pads = [_last_pixel(n, k, s, amount, any(around)) for n, k, s, amount in zipped]
    else:
        pads = _padding(p, "PoolingPaddingType", sizes, kernel, stride)
    sides = [window(n, k, s, b) for n, k, s, b in zip(sizes, kernel, stride, pads, strict=True)]
    exclude = bool(p.avgPoolExcludePadding) if p.type == 1 else None
    given = {"kernel_sizes": kernel, "strides": stride, **pad_arguments(pads)}
    shape = (*x.shape[:2], *sides)
    made = g.op(_POOLS[p.type], shape, x=x, **given, exclude_padding_from_average=exclude)
    return g.restored(made, layer.x)


def _last_pixel(size: int, kernel: int, stride: int, pad: int, padded: bool) -> tuple[int, int]:
    """Return the padding with which no pixel is left out; after Caffe, no window starts in the padding at the end."""
    if stride < 1:
        raise LoadError("a stride of 0", "the file is damaged")
    count = -(-(size + 2 * pad - kernel) // stride) + 1
    if padded and (count - 1) * stride >= size + pad:
        count -= 1
    return pad, max(0, (count - 1) * stride + kernel - size - pad)


_EDGES = (("Front", "Back"), ("Top", "Bottom"), ("Left", "Right"))
_SIDES = ("Depth", "Height", "Width")


def _volume(p: Any, field: str) -> list[int]:
    found = [int(getattr(p, field + side)) for side in _SIDES]
    return [value or 1 for value in found]


def _volume_pads(p: Any, sizes: Sequence[int | None], kernel: list[int], stride: list[int]) -> Pads:
    # 0 is custom, 1 valid, 2 same.
    if p.paddingType == 2:
        return [same(n, k, s, start=False) for n, k, s in zip(sizes, kernel, stride, strict=True)]
    if p.paddingType == 1:
        return [(0, 0)] * 3
    return [(int(getattr(p, f"customPadding{one}")), int(getattr(p, f"customPadding{two}"))) for one, two in _EDGES]


@layer("convolution3d")
def convolution3d(g: Graph, layer: Layer) -> Blob:
    """Convolve [n, C, D, H, W], or transpose the convolution."""
    p, x = layer.params, g.lay(layer.x)
    kernel, stride, groups = _volume(p, "kernel"), _volume(p, "stride"), max(1, p.nGroups)
    channels, sizes = p.outputChannels, x.shape[2:]
    shape = (p.inputChannels, channels // groups) if p.isDeconvolution else (channels, p.inputChannels // groups)
    weight = layer.weights.tensor(p.weights, (*shape, *kernel), axis=1 if p.isDeconvolution else 0)
    bias = layer.weights.tensor(p.bias, (channels,)) if p.hasBias else None
    common = {"x": x, "weight": weight, "bias": bias, "strides": stride, "groups": groups}
    dilation = _volume(p, "dilation")
    spread = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if not p.isDeconvolution:
        pads = _volume_pads(p, sizes, spread, stride)
        sides = [window(n, k, s, b) for n, k, s, b in zip(sizes, spread, stride, pads, strict=True)]
        return g.op("conv", (x.shape[0], channels, *sides), **common, dilations=dilation, **pad_arguments(pads))
    full = [(n - 1) * s + k for n, s, k in zip(_known(sizes), stride, spread, strict=True)]
    if p.paddingType == 2:
        total = [max(0, f - n * s) for f, n, s in zip(full, _known(sizes), stride, strict=True)]
        pads = [(t // 2, t - t // 2) for t in total]
    else:
        pads = _volume_pads(p, sizes, spread, stride)
    wanted = [int(length) for length in p.outputShape][-3:] or [f - sum(b) for f, b in zip(full, pads, strict=True)]
    made = (x.shape[0], channels, *wanted)
    output = None if None in made else list(made)
    return g.op("conv_transpose", made, **common, dilations=dilation, **pad_arguments(pads), output_shape=output)


@layer("pooling3d")
def pooling3d(g: Graph, layer: Layer) -> Blob:
    """Maxima or means of windows of [n, C, D, H, W]."""
    p, x = layer.params, g.lay(layer.x)
    kernel, stride, sizes = _volume(p, "kernel"), _volume(p, "stride"), x.shape[2:]
    pads = _volume_pads(p, sizes, kernel, stride)
    sides = [window(n, k, s, b) for n, k, s, b in zip(sizes, kernel, stride, pads, strict=True)]
    exclude = bool(p.countExcludePadding) if p.type == 1 else None
    given = {"kernel_sizes": kernel, "strides": stride, **pad_arguments(pads)}
    shape = (*x.shape[:2], *sides)
    return g.op(_POOLS[p.type], shape, x=x, **given, exclude_padding_from_average=exclude)


@layer("globalPooling3d")
def global_pooling3d(g: Graph, layer: Layer) -> Blob:
    """The maximum or mean of each volume of [n, C, D, H, W]."""
    x = g.lay(layer.x)
    kind = "reduce_mean" if layer.params.type == 1 else "reduce_max"
    return g.op(kind, (*x.shape[:-3], 1, 1, 1), x=x, axes=[-3, -2, -1], keep_dims=True)
