"""torchvision's ``nms`` and ``box_iou``, for the suite's own oracle where torchvision is not installed.

After the documented behaviour of ``torchvision.ops``: IoU in the boxes' type, compared with the threshold in double.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch


def stand_in() -> bool:
    """Put a ``torchvision`` with these two in place, before coremltools asks for it; False where there is one."""
    if importlib.util.find_spec("torchvision") is not None:
        return False
    package, functions = (ModuleType(name) for name in ("torchvision", "torchvision.ops"))
    for module in (package, functions):
        module.__spec__ = ModuleSpec(module.__name__, None)
        sys.modules[module.__name__] = module
    package.__dict__.update(ops=functions, __version__="0", __path__=[])
    torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.library.impl("torchvision::nms", "CPU", nms)
    functions.__dict__.update(nms=torch.ops.torchvision.nms, box_iou=box_iou)
    return True


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """The indices of the boxes [N, 4] (x1, y1, x2, y2) that no better one overlaps by more, best first."""
    left = scores.argsort(descending=True, stable=True)
    kept = []
    while left.numel():
        kept.append(left[0])
        shares = box_iou(boxes[left[:1]], boxes[left[1:]])[0].double()
        left = left[1:][~(shares > iou_threshold)]
    return torch.stack(kept) if kept else left


def box_iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Intersection over union of boxes [N, 4] with boxes [M, 4]: [N, M]."""
    low = torch.maximum(first[:, None, :2], second[:, :2])
    high = torch.minimum(first[:, None, 2:], second[:, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (first, second)]
    return common / (areas[0][:, None] + areas[1] - common)
