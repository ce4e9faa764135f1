"""Sliding windows: the padding that MIL's pad types stand for, in convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from tlkit.errors import LoadError
from tlkit.mil.ops.kit.registry import Ints, Tensor

Pads: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""The number of padding elements before, and after, each spatial axis."""


def window_pads(
    x: Tensor, kernel: Sequence[int], strides: Ints, pad_type: str, pad: Ints | None, dilations: Ints | None = None
) -> Pads:
    """Return the padding that ``pad_type`` gives ``x`` [n, C, *D]."""
    if pad_type == "custom" and pad is not None:
        return pad[::2], pad[1::2]
    if pad_type in ("valid", "custom"):
        return (0,) * len(kernel), (0,) * len(kernel)
    if pad_type not in ("same", "same_lower"):
        raise LoadError(f"unknown pad_type '{pad_type}'", "it is valid, same, same_lower or custom")
    small, large = [], []
    for i, (size, k, s) in enumerate(zip(x.shape[2:], kernel, strides, strict=True)):
        reach = (k - 1) * (dilations[i] if dilations else 1) + 1
        # SAME means ceil(size / stride) positions.
        total = max(0, (-(-size // s) - 1) * s + reach - size)
        small.append(total // 2)
        large.append(total - total // 2)
    return (small, large) if pad_type == "same" else (large, small)


def pairs_for_torch(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Return the padding as ``torch.nn.functional.pad`` takes it: the last axis first."""
    return [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]


def each(vector: Tensor, rank: int) -> tuple[int, ...]:
    """Return the shape that aligns a vector with axis 1 of a tensor of ``rank``."""
    return (1, vector.shape[0], *(1,) * (rank - 2))
