"""Sampling at the places of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from tlkit.core.convert.tools.kit.mends import composed

if TYPE_CHECKING:
    from torch import Tensor


@composed("affine_grid_generator", "coremltools only takes it together with the sampling", replaces=True)
def _affine_grid(theta: Tensor, size: Sequence[Any], align_corners: bool) -> Tensor:
    """Return places (N, ..., axes) in -1 to 1: ``theta`` (N, axes, axes + 1) of the places of the result."""
    import torch

    lengths = list(size[2:])
    axes = []
    for length in lengths:
        steps = torch.arange(length).to(theta.dtype)
        if align_corners:
            axes.append(steps * (2 / (length - 1)) - 1 if length != 1 else steps * 0)
        else:
            axes.append((steps * 2 + 1) / length - 1)
    shape = [1, *lengths, 1]
    parts = []
    for index in reversed(range(len(axes))):  # the last axis is x, the first coordinate
        view = [-1 if place == index + 1 else 1 for place in range(len(shape))]
        parts.append(axes[index].reshape(view).expand(shape))
    places = torch.cat([*parts, torch.ones(shape, dtype=theta.dtype)], -1)
    count = 1
    for length in lengths:
        count = count * length
    grid = places.reshape(1, count, len(lengths) + 1) @ theta.transpose(1, 2)  # N x count x axes
    return grid.reshape([theta.shape[0], *lengths, len(lengths)])


def _beyond_mil(given: Sequence[Any]) -> bool:
    # Operand 2 is the mode: 0 bilinear, 1 nearest, 2 bicubic.
    return bool(given[0].rank == 5 or getattr(given[2], "val", given[2]) == 2)


@composed(
    "grid_sampler", "MIL only samples images, not volumes, and not bicubically", replaces=True, applies=_beyond_mil
)
def _grid_sampler(x: Tensor, grid: Tensor, mode: int, padding: int, align_corners: bool) -> Any:
    import torch
    from torch._decomp import decomposition_table

    if x.dim() == 4:
        if mode != 2:
            return NotImplemented
        rule = decomposition_table[torch.ops.aten.grid_sampler_2d.default]
        return rule(x, grid, mode, padding, align_corners)
    if padding == 2:
        raise ValueError("grid_sample of a volume that is reflected at its ends")
    return _of_volume(x, grid, mode, padding, align_corners)


def _of_volume(x: Tensor, grid: Tensor, mode: int, padding: int, align_corners: bool) -> Tensor:
    """Take the 8 elements around each place (the nearest for ``mode`` 1) and weigh them; beyond the ends are zeros."""
    import torch

    sizes = [x.shape[4], x.shape[3], x.shape[2]]  # in the order of the grid's coordinates
    places = []
    for axis, size in enumerate(sizes):
        place = grid[..., axis]
        place = (place + 1) / 2 * (size - 1) if align_corners else ((place + 1) * size - 1) / 2
        # Padding 1 repeats the border.
        places.append(place.clamp(0, size - 1) if padding == 1 else place)
    flat = x.flatten(2)  # N x C x (depth * height * width)
    total: Any = 0
    for corner in [(0, 0, 0)] if mode == 1 else product((0, 1), repeat=3):
        weight: Any = 1
        inside: Any = None
        index: Any = 0
        # z, y, x, as elements follow each other in memory.
        for axis in (2, 1, 0):
            size = sizes[axis]
            low = places[axis].round() if mode == 1 else places[axis].floor()
            at = low + corner[axis]
            if mode != 1:
                share = places[axis] - low
                weight = weight * (share if corner[axis] else 1 - share)
            within = (at >= 0) & (at <= size - 1)
            inside = within if inside is None else inside & within
            index = index * size + at.clamp(0, size - 1).to(torch.int64)
        taken = torch.gather(flat, 2, index.flatten(1)[:, None].expand(-1, x.shape[1], -1))  # N x C x places
        factor = (weight * inside.to(x.dtype)) if mode != 1 else inside.to(x.dtype)
        total = total + taken * factor.flatten(1)[:, None]
    sampled: Tensor = total.reshape([x.shape[0], x.shape[1], *grid.shape[1:4]])
    return sampled
