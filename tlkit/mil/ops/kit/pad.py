"""Padding in any number of dimensions; PyTorch's kernels mirror and replicate only in the last three."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from tlkit.errors import ExecutionError
from tlkit.mil.ops.kit.registry import Tensor

_MODES = ("constant", "reflect", "replicate")


def pad(x: Tensor, amounts: Sequence[int], mode: str, value: Any) -> Tensor:
    """Pad the last ``len(amounts) / 2`` dimensions by (before, after) pairs, in dimension order."""
    if mode not in _MODES:
        raise ExecutionError(f"unknown pad mode '{mode}'", f"modes are {', '.join(_MODES)}")
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))
    if mode == "constant":
        return F.pad(x, _reversed(pairs), value=value)
    # torch mirrors at most three axes, so leading axes without padding are left out.
    while pairs and pairs[0] == (0, 0):
        pairs.pop(0)
    if 1 <= len(pairs) <= 3 and x.is_floating_point():
        inner = x.shape[x.ndim - len(pairs) :]
        # torch wants a batch and a channel axis before the padded ones.
        padded = F.pad(x.reshape(1, -1, *inner), _reversed(pairs), mode=mode)
        return padded.reshape(x.shape[: x.ndim - len(pairs)] + padded.shape[2:])
    for axis, (before, after) in enumerate(pairs, start=x.ndim - len(pairs)):
        if before or after:
            x = x.index_select(axis, _places(x.shape[axis], before, after, mode, x.device))
    return x


def _reversed(pairs: Sequence[tuple[int, int]]) -> list[int]:
    """torch lists the last dimension first."""
    return [amount for pair in reversed(pairs) for amount in pair]


def _places(size: int, before: int, after: int, mode: str, device: torch.device) -> Tensor:
    place = torch.arange(-before, size + after, device=device)
    if mode == "reflect":
        place = place.abs()
        # The two absolute values mirror about the first and about the last element.
        return size - 1 - (size - 1 - place).abs()
    return place.clamp(0, size - 1)
