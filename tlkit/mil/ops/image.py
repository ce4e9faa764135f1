"""MIL's image operations: images are the last two axes, [..., height, width]."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tlkit.errors import LoadError
from tlkit.mil.ops.kit import boxes as _boxes
from tlkit.mil.ops.kit import sampling as _sampling
from tlkit.mil.ops.kit.registry import Ints, Tensor, op

_TORCH_ALIGNS = {"STRICT_ALIGN_CORNERS": True, "ALIGN_CORNERS": True, "UNALIGN_CORNERS": False}
# The (padding_mode, align_corners) pairs that torch's grid_sample computes as MIL does.
TORCH_PADDING = {("constant", True): "zeros", ("constant", False): "zeros"}
TORCH_PADDING |= {("border", True): "border", ("border", False): "border"}
TORCH_PADDING |= {("reflection", True): "reflection", ("symmetric", False): "reflection"}


def scaled(size: int, factor: float) -> int:
    """Scale an axis's length by ``factor``, an f32; the margin makes up for what f32 loses of it."""
    return int(size * factor * (1 + 2**-24))


def _resize(x: Tensor, height: int, width: int, mode: str) -> Tensor:
    # For an output of length 1 torch samples the first pixel, MIL's ALIGN_CORNERS the middle.
    if x.ndim == 4 and mode in _TORCH_ALIGNS and (mode != "ALIGN_CORNERS" or min(height, width) > 1):
        return F.interpolate(x, (height, width), mode="bilinear", align_corners=_TORCH_ALIGNS[mode])
    rows = _sampling.grid(x.shape[-2], height, mode, x.device)
    columns = _sampling.grid(x.shape[-1], width, mode, x.device)
    return _sampling.linear(_sampling.linear(x, -2, rows), -1, columns)


@op()
def resize_bilinear(
    x: Tensor, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT"
) -> Tensor:
    """Resize by bilinear interpolation."""
    return _resize(x, target_size_height, target_size_width, sampling_mode)


@op(exact=True)
def resize_nearest_neighbor(x: Tensor, target_size_height: int, target_size_width: int) -> Tensor:
    """Resize by taking, for output i of n, the input at floor((i + 0.5) * size / n)."""
    return _sampling.nearest(_sampling.nearest(x, -2, target_size_height), -1, target_size_width)


@op()
def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """Scale by bilinear interpolation; ``half_pixel_centers`` (iOS16) is ``not align_corners`` if it is not given."""
    height, width = scaled(x.shape[-2], scale_factor_height), scaled(x.shape[-1], scale_factor_width)
    if align_corners:
        return _resize(x, height, width, "STRICT_ALIGN_CORNERS")
    return _resize(x, height, width, "DEFAULT" if half_pixel_centers is False else "UNALIGN_CORNERS")


@op(exact=True)
def upsample_nearest_neighbor(x: Tensor, scale_factor_height: float = 1, scale_factor_width: float = 1) -> Tensor:
    """Scale by taking, for output i of n, the input at floor(i * size / n)."""
    height, width = scaled(x.shape[-2], scale_factor_height), scaled(x.shape[-1], scale_factor_width)
    if x.ndim == 4 and height % x.shape[-2] == 0 and width % x.shape[-1] == 0:
        return x.repeat_interleave(height // x.shape[-2], -2).repeat_interleave(width // x.shape[-1], -1)
    return _sampling.nearest(_sampling.nearest(x, -2, height, "FLOOR"), -1, width, "FLOOR")


@op(since=17, aliases=True)
def resize(
    x: Tensor,
    shape: Ints,
    resized_dims: int,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """Resize the last ``resized_dims`` axes to the last lengths in ``shape``; 0 keeps an axis as it is.

    ``kit.sampling.nearest`` describes which elements NEAREST_NEIGHBOR takes.
    """
    values = x if x.is_floating_point() or interpolation_mode == "NEAREST_NEIGHBOR" else x.to(torch.float32)
    for axis in range(-resized_dims, 0):
        count = shape[axis] or x.shape[axis]
        if interpolation_mode == "NEAREST_NEIGHBOR":
            values = _sampling.nearest(values, axis, count, sampling_mode)
        else:
            points = _sampling.grid(x.shape[axis], count, sampling_mode, x.device)
            values = _sampling.linear(values, axis, points)
    return values.to(x.dtype)


@op(exact=True)
def crop(x: Tensor, crop_height: Ints, crop_width: Ints) -> Tensor:
    """Cut (top, bottom) rows and (left, right) columns off."""
    height, width = x.shape[-2:]
    return x[..., crop_height[0] : height - crop_height[1], crop_width[0] : width - crop_width[1]]


@op()
def crop_resize(
    x: Tensor,
    roi: Tensor,
    target_height: int = 1,
    target_width: int = 1,
    normalized_coordinates: bool = False,
    spatial_scale: float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: float = 0.0,
) -> Tensor:
    """Cut boxes from images and resize them; iOS16 adds ``pad_value``.

    ``roi`` [N, 1, 4, 1, 1] cuts every image: [N, B, C, h, w]; [N, 1, 5, 1, 1] names each box's image first: [N, 1, C,
    h, w]. A point outside the image takes the pad value, not a mixture with it.
    """
    count, batch = roi.shape[0], x.shape[0]
    boxes = roi.reshape(count, -1)
    if boxes.shape[1] == 5:
        image, boxes = boxes[:, 0].to(torch.int64), boxes[:, 1:]
    else:
        # Every box is cut from every image, with the box as the outer index.
        image = torch.arange(batch, device=x.device).repeat(count)
        boxes = boxes.repeat_interleave(batch, 0)
    spans = _boxes.spans(boxes, box_coordinate_mode, spatial_scale)
    target = (target_height, target_width)
    if normalized_coordinates and sampling_mode == "UNALIGN_CORNERS":
        cut = _boxes.cut_by_edges(x, image, spans, target)
    else:
        cut = _boxes.cut(x, image, spans, target, normalized_coordinates, sampling_mode, pad_value)
    return cut.reshape(count, -1, *cut.shape[1:])


@op("crop_resize", since=17)
def crop_resize_17(
    x: Tensor,
    boxes: Tensor,
    box_indices: Tensor | None = None,
    target_height: int = 1,
    target_width: int = 1,
    normalized_coordinates: bool = False,
    spatial_scale: float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: float = 0.0,
) -> Tensor:
    """Cut ``boxes`` [N, 4] from the images that ``box_indices`` [N] names (0, 1, ... without it): [N, C, h, w]."""
    count = boxes.shape[0]
    image = torch.arange(count, device=x.device) if box_indices is None else box_indices.to(torch.int64)
    spans = _boxes.spans(boxes, box_coordinate_mode, spatial_scale)
    target = (target_height, target_width)
    return _boxes.cut(x, image, spans, target, normalized_coordinates, sampling_mode, pad_value)


@op()
def resample(
    x: Tensor,
    coordinates: Tensor,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    """Sample x [B, C, H, W] at ``coordinates`` [B, h, w, 2], each (column, row): [B, C, h, w].

    iOS16 takes f16 coordinates, iOS17 8 and 16-bit integers too.
    """
    coordinates = coordinates.to(torch.float32)
    padding = TORCH_PADDING.get((padding_mode, align_corners))
    plain = sampling_mode == "bilinear" and coordinates_mode == "normalized_minus_one_to_one"
    # grid_sample pads with zeros only.
    if plain and padding is not None and (padding != "zeros" or padding_value == 0):
        return F.grid_sample(x, coordinates, "bilinear", padding, align_corners)
    # The last axis holds (column, row), x before y.
    column = _pixels(coordinates[..., 0], x.shape[-1], coordinates_mode, align_corners)
    row = _pixels(coordinates[..., 1], x.shape[-2], coordinates_mode, align_corners)
    if padding_mode in ("reflection", "symmetric"):
        edge = 0.0 if padding_mode == "reflection" else 0.5
        row, column = _sampling.reflected(row, x.shape[-2], edge), _sampling.reflected(column, x.shape[-1], edge)
    outside = padding_value if padding_mode == "constant" else None
    if sampling_mode == "nearest":
        return _sampling.pick(x, torch.round(row).to(torch.int64), torch.round(column).to(torch.int64), outside)
    top, left = torch.floor(row), torch.floor(column)
    # [B, 1, h, w], the same for every channel
    down, across = (row - top).unsqueeze(1), (column - left).unsqueeze(1)
    top, left = top.to(torch.int64), left.to(torch.int64)
    upper = torch.lerp(_sampling.pick(x, top, left, outside), _sampling.pick(x, top, left + 1, outside), across)
    below = top + 1
    lower = torch.lerp(_sampling.pick(x, below, left, outside), _sampling.pick(x, below, left + 1, outside), across)
    return torch.lerp(upper, lower, down)


def _pixels(at: Tensor, size: int, mode: str, align_corners: bool) -> Tensor:
    """Coordinates as pixels."""
    if mode == "unnormalized":
        return at
    if mode not in ("normalized_minus_one_to_one", "normalized_zero_to_one"):
        raise LoadError(f"unknown coordinates_mode '{mode}'")
    part = (at + 1) / 2 if mode == "normalized_minus_one_to_one" else at
    # The ends of the range are the outer pixels' centres with align_corners, else the image's borders.
    return part * (size - 1) if align_corners else part * size - 0.5


@op()
def affine(
    x: Tensor,
    transform_matrix: Tensor,
    output_height: int,
    output_width: int,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    """Sample x [B, C, H, W] where ``transform_matrix`` [B or 1, 6] sends the output's normalized coordinates."""
    theta = transform_matrix.reshape(-1, 2, 3).expand(x.shape[0], 2, 3)
    coordinates = F.affine_grid(theta, [x.shape[0], x.shape[1], output_height, output_width], align_corners)
    return resample(x, coordinates, sampling_mode, padding_mode, padding_value, coordinates_mode, align_corners)
