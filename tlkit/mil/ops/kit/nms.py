"""Greedy non-maximum suppression."""

from __future__ import annotations

import numpy as np
import torch

from tlkit.errors import ExecutionError
from tlkit.host import budget
from tlkit.mil.ops.kit.registry import Tensor

_BLOCK, _OTHERS = 64, 1 << 13  # candidates compared at once, and with how many others: half a million pairs
_BOXES = 20_000  # that may remain of as many or more: some 10 s


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
    if min(left.numel(), limit) > _BOXES * budget.factor():
        said = f"non-maximum suppression would compare {left.numel():,} boxes, each with all others"
        raise ExecutionError(said, budget.longer())
    # Compared in f32: a Python float is wider.
    threshold = torch.tensor(iou_threshold, dtype=torch.float32, device=boxes.device)

    def suppressed(by: Tensor, candidates: Tensor) -> Tensor:
        shares = _iou(boxes[by], boxes[candidates])
        overlaps = (shares > 0) & (shares >= threshold) if ties else shares > threshold
        return overlaps & (classes[by][:, None] == classes[candidates]) if per_class else overlaps

    kept, count = [order[:0]], 0
    # The best candidates decide among themselves, then together about the rest: one by one costs many times more.
    while left.numel() and count < limit:
        block, left = left[:_BLOCK], left[_BLOCK:]
        chosen = block[_among(suppressed(block, block))]
        kept.append(chosen)
        count += len(chosen)
        pieces = left.split(_OTHERS)
        left = torch.cat([piece[~suppressed(chosen, piece).any(0)] for piece in pieces])
    return torch.cat(kept)[:limit]


def _among(overlaps: Tensor) -> Tensor:
    """Return the places of those that remain of [N, N] candidates, best first, each suppressing those after it."""
    table, alive = overlaps.cpu().numpy(), np.ones(len(overlaps), bool)
    for place in range(len(table)):
        if alive[place]:
            alive[place + 1 :] &= ~table[place, place + 1 :]
    return torch.from_numpy(np.flatnonzero(alive)).to(overlaps.device)


def _iou(some: Tensor, others: Tensor) -> Tensor:
    """Intersection over union [N, M] of boxes [N, 4] with others [M, 4]; NaN where both are empty."""
    some = some[:, None]
    low = torch.maximum(some[..., :2] - some[..., 2:] / 2, others[:, :2] - others[:, 2:] / 2)
    high = torch.minimum(some[..., :2] + some[..., 2:] / 2, others[:, :2] + others[:, 2:] / 2)
    common = (high - low).clamp(min=0).prod(-1)
    return common / (some[..., 2:].prod(-1) + others[:, 2:].prod(-1) - common)
