"""Image sampling: the grids that MIL's sampling modes define, and interpolation on them.

Grids are in pixels: 0 is the centre of the first pixel, ``size - 1`` that of the last.
"""

from __future__ import annotations

import torch

from tlkit.errors import LoadError
from tlkit.mil.ops.kit.registry import Tensor


def offsets(span: Tensor, count: int, mode: str) -> Tensor:
    """Return ``count`` offsets within each of ``span`` [N] (last minus first pixel, not negative), as [N, count].

    The formulas are those of MIL's ``resize_bilinear``.
    """
    steps = torch.arange(count, dtype=torch.float32, device=span.device)
    span = span.unsqueeze(-1)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if count == 1:
            return span / 2 if mode == "ALIGN_CORNERS" else span * 0
        return steps * (span / (count - 1))
    if mode == "DEFAULT":
        # span + 1 is the number of pixels.
        points = steps * ((span + 1) / count)
    elif mode == "OFFSET_CORNERS":
        # As ROI align samples: half a spacing away from the edge.
        points = (steps + 0.5) * (span.clamp(min=1) / count)
    elif mode == "UNALIGN_CORNERS":
        points = (steps + 0.5) * ((span + 1) / count) - 0.5
    else:
        raise LoadError(f"unknown sampling_mode '{mode}'")
    return torch.minimum(points.clamp(min=0), span)


def grid(size: int, count: int, mode: str, device: torch.device) -> Tensor:
    """Return the ``count`` points at which an axis of ``size`` pixels is sampled."""
    return offsets(torch.full((1,), float(size - 1), device=device), count, mode)[0]


def linear(x: Tensor, axis: int, points: Tensor) -> Tensor:
    """Interpolate ``x`` linearly at ``points`` of ``axis``."""
    # Points are not negative, so truncation is floor.
    low = points.to(torch.int64)
    high = (low + 1).clamp(max=x.shape[axis] - 1)
    weight = (points - low).reshape(-1, *(1,) * (x.ndim - 1 - axis % x.ndim))
    return torch.lerp(x.index_select(axis, low), x.index_select(axis, high), weight)


def nearest(x: Tensor, axis: int, count: int, mode: str = "DEFAULT") -> Tensor:
    """Take ``count`` of ``axis``'s elements.

    For output i of n, DEFAULT and UNALIGN_CORNERS take the element under the middle of the output's pixel, FLOOR
    (``upsample_nearest_neighbor``) the one under its start, the other modes the one nearest the grid point.
    """
    size = x.shape[axis]
    # OFFSET_CORNERS spreads over size - 1 pixels, so that even an unchanged size resamples.
    if size == count and mode != "OFFSET_CORNERS":
        return x
    steps = torch.arange(count, device=x.device)
    if mode == "FLOOR":  # in integers, like the next: a rounding error would take another pixel
        return x.index_select(axis, steps * size // count)
    if mode in ("DEFAULT", "UNALIGN_CORNERS"):
        return x.index_select(axis, (2 * steps + 1) * size // (2 * count))
    picked = torch.floor(grid(size, count, mode, x.device) + 0.5).to(torch.int64)
    return x.index_select(axis, picked.clamp(0, size - 1))


def bilinear(x: Tensor, image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Sample images ``image`` [K] of x [B, C, H, W] at rows [K, h] by columns [K, w] inside them: [K, C, h, w]."""
    height, width = x.shape[-2:]
    top, left = rows.to(torch.int64), columns.to(torch.int64)
    below, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down = (rows - top)[:, None, :, None]
    across = (columns - left)[:, None, None, :]
    which = image[:, None, None]

    def pick(row: Tensor, column: Tensor) -> Tensor:
        # An index on either side of a slice puts its axes first: [K, h, w, C].
        return x[which, :, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2)

    upper = torch.lerp(pick(top, left), pick(top, right), across)
    return torch.lerp(upper, torch.lerp(pick(below, left), pick(below, right), across), down)


def reflected(at: Tensor, size: int, edge: float) -> Tensor:
    """Return coordinates mirrored into the image, about the outer pixels' centres (``edge`` 0) or borders (0.5)."""
    span = size - 1 + 2 * edge
    if span == 0:
        return torch.zeros_like(at)
    # Mirror images repeat after twice the span.
    within = torch.remainder(at + edge, 2 * span)
    return (torch.where(within > span, 2 * span - within, within) - edge).clamp(0, size - 1)


def pick(x: Tensor, row: Tensor, column: Tensor, outside: float | None) -> Tensor:
    """Take pixels [B, h, w] of x [B, C, H, W]; outside the image, the border's pixels or the value ``outside``."""
    height, width = x.shape[-2:]
    # One index into the image's pixels in row-major order.
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    flat = index.flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)
    taken = x.flatten(2).gather(2, flat).reshape(*x.shape[:2], *row.shape[1:])
    if outside is None:
        return taken
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return torch.where(inside.unsqueeze(1), taken, outside)
