"""Greedy non-maximum suppression."""

from __future__ import annotations

import torch

from tlkit.mil.ops.kit.registry import Tensor


def select(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    score_threshold: float,
    limit: int,
    per_class: bool,
    *,
    ties: bool = False,
) -> Tensor:
    """Return the indices of the boxes kept, best first, at most ``limit``; at least the best box is kept.

    ``boxes`` is [B, 4] (centre x, centre y, width, height), ``scores`` [B, K]; a box is ranked by its best score, and
    with ``per_class`` only boxes with the same best class suppress each other. ``ties`` says whether boxes that overlap
    by exactly the threshold do; boxes that do not overlap never do.
    """
    best, classes = scores.max(-1)
    order = best.argsort(descending=True, stable=True)
    passing = order[best[order] >= score_threshold]
    # NeuralNetwork.proto: if no box passes the score threshold, the best one is returned.
    left = passing if passing.numel() else order[:1]
    kept: list[Tensor] = []
    # Compared in f32: a Python float is wider.
    threshold = torch.tensor(iou_threshold, dtype=torch.float32, device=boxes.device)
    while left.numel() and len(kept) < limit:
        first, left = left[:1], left[1:]
        kept.append(first)
        shares = _iou(boxes[first], boxes[left])
        overlaps = (shares > 0) & (shares >= threshold) if ties else shares > threshold
        if per_class:
            overlaps &= classes[left] == classes[first]
        left = left[~overlaps]
    return torch.cat(kept) if kept else order[:0]


def _iou(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of one box [1, 4] with others [M, 4]; NaN where both are empty."""
    low = torch.maximum(box[:, :2] - box[:, 2:] / 2, others[:, :2] - others[:, 2:] / 2)
    high = torch.minimum(box[:, :2] + box[:, 2:] / 2, others[:, :2] + others[:, 2:] / 2)
    common = (high - low).clamp(min=0).prod(-1)
    return common / (box[:, 2:].prod(-1) + others[:, 2:].prod(-1) - common)
