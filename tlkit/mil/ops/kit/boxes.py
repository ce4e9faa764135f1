"""``crop_resize``: boxes cut from images and resized."""

from __future__ import annotations

import torch

from tlkit.errors import LoadError
from tlkit.mil.ops.kit import sampling
from tlkit.mil.ops.kit.registry import Ints, Tensor

Spans = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
"""The boxes' (first, last) rows and (first, last) columns, each [N]."""


def spans(boxes: Tensor, mode: str, scale: float) -> Spans:
    """Return the boxes [N, 4] in the image's coordinates; ``mode`` is ``box_coordinate_mode``."""
    # [N, 2] each: the two corners, or centre and size
    first, last = (boxes.to(torch.float32) * scale).reshape(-1, 2, 2).unbind(1)
    if mode.startswith("CENTER_SIZE"):
        first, last = first - last / 2, first + last / 2
    elif not mode.startswith("CORNERS"):
        raise LoadError(f"unknown box_coordinate_mode '{mode}'")
    rows, columns = (first[:, 0], last[:, 0]), (first[:, 1], last[:, 1])
    return (rows, columns) if mode.endswith("HEIGHT_FIRST") else (columns, rows)


def cut(x: Tensor, image: Tensor, boxes: Spans, target: Ints, normalized: bool, mode: str, pad_value: float) -> Tensor:
    """Sample images ``image`` [N] of x [B, C, H, W] in their boxes; a point outside takes the pad value."""
    points, inside = [], []
    for size, count, (first, last) in zip(x.shape[-2:], target, boxes, strict=True):
        factor = size - 1 if normalized else 1
        span = (last - first) * factor
        steps = sampling.offsets(span.abs(), count, mode)
        # A box whose last corner lies before its first is read backwards.
        at = (first * factor)[:, None] + torch.where((span < 0)[:, None], -steps, steps)
        # Reads stay inside; what lies outside is replaced below.
        points.append(at.clamp(0, size - 1))
        inside.append((at >= 0) & (at <= size - 1))
    sampled = sampling.bilinear(x, image, points[0], points[1])
    return torch.where((inside[0][:, :, None] & inside[1][:, None, :]).unsqueeze(1), sampled, pad_value)


def cut_by_edges(x: Tensor, image: Tensor, boxes: Spans, target: Ints) -> Tensor:
    """As ``cut``, for UNALIGN_CORNERS and normalized boxes before iOS17.

    0 and 1 are the image's edges, not its outer pixels' centres, and points outside are mirrored: the only reading that
    gives what coremltools recorded from Core ML for its one example (a box from 2 to 1).
    """
    points = []
    for size, count, (first, last) in zip(x.shape[-2:], target, boxes, strict=True):
        middles = (torch.arange(count, dtype=torch.float32, device=x.device) + 0.5) / count
        at = torch.lerp(first[:, None], last[:, None], middles) * size - 0.5
        points.append(sampling.reflected(at, size, 0.5))
    return sampling.bilinear(x, image, points[0], points[1])
