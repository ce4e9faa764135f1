"""Layers on images: convolutions, pools, borders and sizes."""

from __future__ import annotations

from typing import Any

from tlkit.errors import LoadError
from tlkit.formats.coreml.espresso.network import EspressoLayer
from tlkit.frontends.espresso.kit.making import DAMAGED, Fields, Held, Kit, espresso, flag, number, unknown, whole

_SIDES = ("pad_t", "pad_b", "pad_l", "pad_r")
_POOLS = {0: 1, 1: 0, 2: 2}  # average, max, L2, as the network counts them


def _borders(sizes: list[int]) -> dict[str, Any]:
    """Return top, bottom, left and right as a ``BorderAmounts``."""
    pairs = (sizes[:2], sizes[2:])
    return {"borderAmounts": [{"startEdgeSize": start, "endEdgeSize": end} for start, end in pairs]}


def _sides(layer: EspressoLayer) -> list[int]:
    return [max(0, whole(layer, side)) for side in _SIDES]


def _padded(k: Kit, layer: EspressoLayer) -> str:
    """Return the input of a convolution whose padding is not zeros, padded; else the input."""
    value = number(layer, "pad_value")
    if not value:
        return layer.inputs[0]
    if whole(layer, "pad_mode") == 1:
        raise unknown(layer, "pad_value")
    to = k.fresh(layer.inputs[0])
    return k.add(
        "padding", layer, layer.inputs[0], to=to, constant={"value": value}, paddingAmounts=_borders(_sides(layer))
    )


@espresso("convolution", "deconvolution")
def convolution(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """A convolution, or a transposed one, whose weights are [K, C / groups, Ny, Nx]; K are all input channels."""
    if flag(layer, "pad_fill_mode") or flag(layer, "has_batch_norm"):
        raise unknown(layer, "pad_fill_mode" if flag(layer, "pad_fill_mode") else "has_batch_norm")
    groups, transposed = max(1, whole(layer, "n_groups", 1)), layer.kind == "deconvolution"
    source = _padded(k, layer)
    sides = _sides(layer) if source == layer.inputs[0] else [0, 0, 0, 0]
    fields: dict[str, Any] = {
        "outputChannels": whole(layer, "C"),
        "kernelChannels": whole(layer, "K") if transposed else whole(layer, "K") // groups,
        "nGroups": groups,
        "kernelSize": [whole(layer, "Ny"), whole(layer, "Nx")],
        "stride": [whole(layer, "stride_y", 1), whole(layer, "stride_x", 1)],
        "dilationFactor": [whole(layer, "dilation_y", 1), whole(layer, "dilation_x", 1)],
        "isDeconvolution": transposed,
        "weights": k.tensor(held, "weights"),
    }
    if flag(layer, "has_biases"):
        fields |= {"hasBias": True, "bias": k.tensor(held, "bias")}
    fields |= {"same": {}} if whole(layer, "pad_mode") == 1 else {"valid": {"paddingAmounts": _borders(sides)}}
    if transposed and whole(layer, "deconv_out_height"):
        fields["outputShape"] = [whole(layer, f"deconv_out_{side}") for side in ("height", "width")]
    k.add("convolution", layer, source, **fields)


@espresso("pool")
def pool(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """The average, maximum or L2 norm of windows, or of whole channels."""
    mode, style = whole(layer, "avg_or_max"), whole(layer, "top_shape_style")
    if mode not in _POOLS or style not in (0, 2):
        raise unknown(layer, "top_shape_style" if mode in _POOLS else "avg_or_max")
    sides, padding = _sides(layer), whole(layer, "pad_mode")
    fields: dict[str, Any] = {
        "type": _POOLS[mode],
        "kernelSize": [max(1, whole(layer, f"size_{axis}", 1)) for axis in "yx"],
        "stride": [max(1, whole(layer, f"stride_{axis}", 1)) for axis in "yx"],
        "avgPoolExcludePadding": flag(layer, "average_count_exclude_padding"),
        "globalPooling": flag(layer, "is_global"),
    }
    if padding == 1:
        fields["same"] = {}
    elif style == 2 and sides[0] == sides[1] and sides[2] == sides[3]:
        fields["includeLastPixel"] = {"paddingAmounts": sides[::2]}
    elif style == 2:
        raise unknown(layer, "top_shape_style")
    else:
        fields["valid"] = {"paddingAmounts": _borders(sides if padding == 0 else [0, 0, 0, 0])}
    k.add("pooling", layer, **fields)


@espresso("general_padding")
def general_padding(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """A border of a constant, of reflected or of repeated pixels."""
    mode = whole(layer, "pad_pad_mode")
    kinds = {0: ("constant", {"value": number(layer, "pad_value")}), 1: ("reflection", {}), 2: ("replication", {})}
    if mode not in kinds:
        raise unknown(layer, "pad_pad_mode")
    kind, fields = kinds[mode]
    k.add("padding", layer, paddingAmounts=_borders(_sides(layer)), **Fields({kind: fields}))


@espresso("crop")
def crop(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """Cut so many pixels off each side."""
    k.add("crop", layer, cropAmounts=_borders([max(0, whole(layer, side)) for side in "tblr"]))


@espresso("upsample")
def upsample(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """Repeat pixels, or interpolate between them: the old way, or with corners aligned or not."""
    mode = whole(layer, "mode")
    if mode not in (0, 1):
        raise unknown(layer, "mode")
    fields: dict[str, Any] = {"mode": mode}
    if flag(layer, "use_fractional_scale_factors"):
        fields["fractionalScalingFactor"] = [number(layer, f"fractional_scaling_factor_{axis}", 1) for axis in "yx"]
    else:
        fields["scalingFactor"] = [max(1, whole(layer, f"scaling_factor_{axis}", 1)) for axis in "yx"]
    if mode and "align_corners" in layer.attributes and not flag(layer, "is_legacy_mode"):
        fields["linearUpsampleMode"] = 1 if flag(layer, "align_corners") else 2
    k.add("upsample", layer, **fields)


@espresso("crop_and_resize")
def crop_and_resize(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """Another size, by interpolation. Mode 2 of its grid is what MIL's resize_bilinear compiles to by default, and
    number 2 among a network's modes; others were never seen, nor how boxes are given."""
    if len(layer.inputs) != 1:
        raise LoadError("how a crop_and_resize takes its boxes is not published", DAMAGED)
    for key, known in (("grid_sampling_mode", 2), ("mode", 1), ("spatial_scale", 1)):
        if number(layer, key, known) != known:
            raise unknown(layer, key)
    if "grid_sampling_mode" not in layer.attributes:
        raise LoadError("what a crop_and_resize without a grid_sampling_mode computes is not published", DAMAGED)
    sizes = [whole(layer, f"target_size_{side}") for side in "hw"]
    k.add("resizeBilinear", layer, targetSize=sizes, mode={"samplingMethod": 2})


@espresso("space_to_depth")
def space_to_depth(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """Blocks of pixels to channels; ``reverse`` the other way, as PyTorch does it with ``pixel_shuffle``."""
    mode = 2 if flag(layer, "pixel_shuffle") else 1 if flag(layer, "reverse") else 0
    k.add("reorganizeData", layer, blockSize=whole(layer, "block_size"), mode=mode)


@espresso("lrn")
def lrn(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """Local response normalization over channels."""
    given = Fields({key: number(layer, key) for key in ("alpha", "beta")})
    size = whole(layer, "local_size" if "local_size" in layer.attributes else "N")
    k.add("lrn", layer, localSize=size, k=number(layer, "k", 1.0), **given)
