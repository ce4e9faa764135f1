"""Padding by a negative amount, which cuts, and by one that is known only when the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tlkit.core.convert.tools.kit.mends import composed

if TYPE_CHECKING:
    from torch import Tensor

_WHY = "coremltools refuses negative amounts, those known only when the model runs, and going around"


def _cuts(given: Sequence[Any]) -> bool:
    if len(given) == 4 and getattr(given[2], "val", given[2]) == "circular":
        return True
    amounts = given[1] if isinstance(given[1], list) else [given[1]]
    values = [getattr(amount, "val", amount) for amount in amounts]
    return any(value is None or (value < 0).any() if hasattr(value, "any") else value is None for value in values)


@composed("pad", _WHY, replaces=True, applies=_cuts)
def _pad(x: Tensor, pad: Sequence[Any], mode: str = "constant", value: float | None = None) -> Any:
    if mode == "constant":
        return _padded(x, pad, value or 0.0)
    if not all(isinstance(amount, int) for amount in pad):
        return _from_inside(x, pad, mode)
    return _around(x, pad) if mode == "circular" else NotImplemented


def _from_inside(x: Tensor, pad: Sequence[Any], mode: str) -> Tensor:
    """Take what lies beyond an end from where ``mode`` says, by amounts that are known only when the model runs."""
    import torch

    for index in range(0, len(pad), 2):
        axis, (left, right) = x.dim() - 1 - index // 2, pad[index : index + 2]
        last = x.shape[axis] - 1
        place = torch.arange(last + 1 + left + right) - left
        if mode == "replicate":
            place = place.clamp(0, last)
        elif mode == "reflect":
            place = last - (last - place.abs()).abs()
        else:
            place = torch.remainder(place, last + 1)
        x = x.index_select(axis, place)
    return x


def _around(x: Tensor, pad: Sequence[int]) -> Tensor:
    """Continue each axis with its other end; a negative amount cuts."""
    import torch

    # torch names the ends of the last axis first.
    for index in range(0, len(pad), 2):
        axis, (left, right) = x.dim() - 1 - index // 2, pad[index : index + 2]
        length = x.shape[axis]
        middle = x.narrow(axis, max(-left, 0), length - max(-left, 0) - max(-right, 0))
        parts = [x.narrow(axis, length - left, left)] if left > 0 else []
        parts += [middle]
        parts += [x.narrow(axis, 0, right)] if right > 0 else []
        x = torch.cat(parts, axis) if len(parts) > 1 else middle
    return x


@composed("constant_pad_nd", _WHY, replaces=True, applies=_cuts)
def _padded(x: Tensor, pad: Sequence[Any], value: float = 0.0) -> Any:
    from torch.nn import functional

    if all(isinstance(amount, int) and amount >= 0 for amount in pad):
        return NotImplemented
    rest = []
    for index in range(0, len(pad), 2):
        axis, (left, right) = x.dim() - 1 - index // 2, pad[index : index + 2]
        if not (isinstance(left, int) and isinstance(right, int)):
            x, left, right = _by_places(x, axis, left, right, value), 0, 0
        start, end = max(-left, 0), max(-right, 0)
        if start or end:
            x = x.narrow(axis, start, x.shape[axis] - start - end)
        rest += [max(left, 0), max(right, 0)]
    return functional.pad(x, rest, value=value) if any(rest) else x


def _by_places(x: Tensor, axis: int, left: Any, right: Any, value: float) -> Tensor:
    """Take each element from where it is in ``x``, and ``value`` beyond: no tensor of a length that may be 0."""
    import torch

    length = x.shape[axis]
    place = torch.arange(length + left + right) - left
    inside = ((place >= 0) & (place < length)).reshape([-1 if at == axis else 1 for at in range(x.dim())])
    return torch.where(inside, x.index_select(axis, place.clamp(0, length - 1)), value)
