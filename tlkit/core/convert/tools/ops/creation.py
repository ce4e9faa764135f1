"""Tensors created like others, and grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tlkit.core.convert.tools.kit.mends import composed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_LIKE = "coremltools leaves out the type under export, and subtracts a flexible tensor from itself: NaN where it is inf"


def _like(x: Tensor, value: float, dtype: torch.dtype | None) -> Any:
    import torch

    if dtype is None and all(isinstance(size, int) for size in x.shape):
        return NotImplemented
    return torch.full(x.shape, value, dtype=dtype or x.dtype)


@composed("zeros_like", _LIKE, replaces=True)
def _zeros_like(x: Tensor, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    return _like(x, 0, dtype)


@composed("ones_like", _LIKE, replaces=True)
def _ones_like(x: Tensor, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    return _like(x, 1, dtype)


@composed("full_like", _LIKE, replaces=True)
def _full_like(x: Tensor, value: float, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    return _like(x, value, dtype)


_TYPED = "coremltools leaves out the type under export"


@composed("zeros", _TYPED, replaces=True, traced=False)
def _zeros(size: Sequence[Any], *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    return _full(size, 0, dtype)


@composed("ones", _TYPED, replaces=True, traced=False)
def _ones(size: Sequence[Any], *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    return _full(size, 1, dtype)


def _full(size: Sequence[Any], value: float, dtype: torch.dtype | None) -> Any:
    import torch

    # coremltools makes f32 anyway.
    if dtype is None or dtype == torch.float32 or dtype.is_complex:
        return NotImplemented
    return torch.full(list(size), value, dtype=dtype)


def _has_type(given: Sequence[Any]) -> bool:
    # In a trace: n[, m], and then type, layout, device and whether it is pinned.
    kind = given[-4] if len(given) > 4 else None
    return getattr(kind, "val", kind) is not None


@composed("eye", "coremltools leaves out the type", replaces=True, applies=_has_type)
def _eye(n: int, m: int | None = None, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    import torch

    if dtype in (None, torch.float32):
        return NotImplemented
    width = n if m is None else m
    return (torch.arange(n)[:, None] == torch.arange(width)[None]).to(dtype)


@composed("meshgrid", "coremltools only takes 1-d tensors of one type", replaces=True)
def _meshgrid(tensors: Sequence[Tensor], indexing: str = "ij") -> list[Tensor]:
    axes = [tensor.reshape(-1) for tensor in tensors]
    order = list(range(len(axes)))
    if indexing == "xy" and len(axes) > 1:
        # In "xy" the first tensor runs along the second axis.
        order[:2] = [1, 0]
    shape = [axes[index].shape[0] for index in order]
    made = []
    for index, axis in enumerate(axes):
        place = order.index(index)
        made.append(axis.reshape([-1 if at == place else 1 for at in range(len(axes))]).expand(shape))
    return made


def _open_steps(given: Sequence[Any]) -> bool:
    return getattr(given[2], "val", given[2]) is None


@composed(
    "linspace",
    "coremltools takes no number of steps that is known only when the model runs",
    applies=_open_steps,
    replaces=True,
)
def _linspace(start: Any, end: Any, steps: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    import torch

    if isinstance(steps, int):
        return NotImplemented
    count = torch.arange(steps).to(torch.float32)
    # From the nearer end, as torch does: the last value is ``end`` itself, of one step ``start``.
    share = count / count[-1:].clamp(min=1)
    made = torch.where(share < 0.5, start + (end - start) * share, end - (end - start) * (1 - share))
    return made.to(dtype or torch.float32)
