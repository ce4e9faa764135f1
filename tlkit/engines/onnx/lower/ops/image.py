"""Image operations: resizing and cutting; the points are those of ``mil/ops``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tlkit.engines.onnx.kit.graph import I64, GraphValue, OnnxGraph, UnsupportedGraph
from tlkit.engines.onnx.kit.registry import lowers
from tlkit.engines.onnx.lower.ops.kit import need_floats
from tlkit.mil.ops import image as mil
from tlkit.mil.ops.kit import sampling
from tlkit.mil.ops.kit.registry import Ints

_ALIGNED = {"STRICT_ALIGN_CORNERS": "align_corners", "ALIGN_CORNERS": "align_corners", "UNALIGN_CORNERS": "half_pixel"}
_CPU = torch.device("cpu")


def _picked(g: OnnxGraph, x: GraphValue, axis: int, count: int, mode: str = "DEFAULT") -> GraphValue:
    """Take the ``count`` elements of an axis that ``sampling.nearest`` takes."""
    axis = axis % x.rank
    index = sampling.nearest(torch.arange(x.known[axis]), 0, count, mode).numpy()
    shape = tuple(count if i == axis else size for i, size in enumerate(x.known))
    if np.array_equal(index, np.arange(x.known[axis])):
        return x
    return replace(g.op("Gather", x, index, axis=axis), shape=shape, positive=x.positive, small=x.small)


def _interpolated(g: OnnxGraph, x: GraphValue, axis: int, points: np.ndarray) -> GraphValue:
    """Interpolate linearly at ``points`` of an axis."""
    axis = axis % x.rank
    low = points.astype(I64)
    high = np.minimum(low + 1, x.known[axis] - 1)
    weight = (points - low).astype(np.float32).reshape(-1, *(1,) * (x.rank - 1 - axis))
    below, above = g.op("Gather", x, low, axis=axis), g.op("Gather", x, high, axis=axis)
    made = g.op("Add", below, g.op("Mul", g.op("Sub", above, below), weight))
    return replace(made, shape=tuple(len(low) if i == axis else size for i, size in enumerate(x.known)))


def _resized(g: OnnxGraph, x: GraphValue, height: int, width: int, mode: str) -> GraphValue:
    need_floats(x)
    if x.rank == 4 and mode in _ALIGNED and min(height, width) > 1:
        sizes = np.array([*x.known[:2], height, width], I64)
        made = g.op("Resize", x, None, None, sizes, mode="linear", coordinate_transformation_mode=_ALIGNED[mode])
        return replace(made, positive=x.positive, small=x.small)
    for axis, count in ((-2, height), (-1, width)):
        x = _interpolated(g, x, axis, sampling.grid(x.known[axis], count, mode, _CPU).numpy())
    return x


@lowers(mil.resize_bilinear)
def resize_bilinear(
    g: OnnxGraph, x: GraphValue, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT"
) -> GraphValue:
    """Resize by bilinear interpolation."""
    return _resized(g, x, target_size_height, target_size_width, sampling_mode)


@lowers(mil.resize_nearest_neighbor)
def resize_nearest_neighbor(g: OnnxGraph, x: GraphValue, target_size_height: int, target_size_width: int) -> GraphValue:
    """Resize by taking the input under each output's middle."""
    return _picked(g, _picked(g, x, -2, target_size_height), -1, target_size_width)


@lowers(mil.upsample_bilinear)
def upsample_bilinear(
    g: OnnxGraph,
    x: GraphValue,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> GraphValue:
    """Scale by bilinear interpolation."""
    height, width = mil.scaled(x.known[-2], scale_factor_height), mil.scaled(x.known[-1], scale_factor_width)
    mode = "DEFAULT" if half_pixel_centers is False else "UNALIGN_CORNERS"
    return _resized(g, x, height, width, "STRICT_ALIGN_CORNERS" if align_corners else mode)


@lowers(mil.upsample_nearest_neighbor)
def upsample_nearest_neighbor(
    g: OnnxGraph, x: GraphValue, scale_factor_height: float = 1, scale_factor_width: float = 1
) -> GraphValue:
    """Scale by taking the input under each output's start."""
    height, width = mil.scaled(x.known[-2], scale_factor_height), mil.scaled(x.known[-1], scale_factor_width)
    if x.rank == 4 and x.is_float and height % x.known[-2] == 0 and width % x.known[-1] == 0:
        sizes = np.array([*x.known[:2], height, width], I64)
        how: dict[str, Any] = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return replace(g.op("Resize", x, None, None, sizes, mode="nearest", **how), positive=x.positive, small=x.small)
    return _picked(g, _picked(g, x, -2, height, "FLOOR"), -1, width, "FLOOR")


@lowers(mil.resize)
def resize(
    g: OnnxGraph,
    x: GraphValue,
    shape: Ints,
    resized_dims: int,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> GraphValue:
    """Resize the last axes."""
    for axis in range(-resized_dims, 0):
        count = shape[axis] or x.known[axis]
        if interpolation_mode == "NEAREST_NEIGHBOR":
            x = _picked(g, x, axis, count, sampling_mode)
        else:
            need_floats(x)
            x = _interpolated(g, x, axis, sampling.grid(x.known[axis], count, sampling_mode, _CPU).numpy())
    return x


@lowers(mil.crop)
def crop(g: OnnxGraph, x: GraphValue, crop_height: Ints, crop_width: Ints) -> GraphValue:
    """Cut (top, bottom) rows and (left, right) columns off."""
    rank = x.rank
    firsts = np.array([crop_height[0], crop_width[0]], I64)
    ends = np.array([x.known[-2] - crop_height[1], x.known[-1] - crop_width[1]], I64)
    if (ends <= firsts).any():
        raise UnsupportedGraph("nothing is left")
    return replace(g.op("Slice", x, firsts, ends, [rank - 2, rank - 1]), positive=x.positive, small=x.small)


@lowers(mil.resample)
def resample(
    g: OnnxGraph,
    x: GraphValue,
    coordinates: GraphValue,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> GraphValue:
    """Sample x at coordinates from -1 to 1."""
    need_floats(x, coordinates)
    padding = mil.TORCH_PADDING.get((padding_mode, align_corners))
    plain = sampling_mode == "bilinear" and coordinates_mode == "normalized_minus_one_to_one"
    if not plain or padding is None or (padding == "zeros" and padding_value != 0):
        raise UnsupportedGraph(f"{sampling_mode} sampling with {padding_mode} padding, {coordinates_mode}")
    how: dict[str, Any] = {"mode": "linear", "padding_mode": padding, "align_corners": int(align_corners)}
    return g.op("GridSample", x, coordinates, **how)
