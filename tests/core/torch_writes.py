"""Writes into parts of tensors and what is read of them afterwards, as functions of two tensors of 2 x 3."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


def _column(a: Tensor, b: Tensor) -> Tensor:
    c = a * 1
    c[:, 1] = b[:, 0]
    return c


def _in_place(a: Tensor, b: Tensor) -> Tensor:
    c = a * 1
    c[0].mul_(2)
    c[1, 2:].add_(1)
    return c


def _interleaved(a: Tensor, b: Tensor) -> Tensor:
    c = torch.zeros(2, 6)
    c[:, ::2] = a
    c[:, 1::2] = -b
    return c


def _through_views(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    c = a * 1
    t = c.t()
    t[0] = 5
    c.view(-1)[3] = 7
    return c + 1, t * 2


def _seen_by_views(a: Tensor, b: Tensor) -> Tensor:
    c = a * 1
    d = c[:1]
    c.add_(1)
    return d * 2


def _shifted(a: Tensor, b: Tensor) -> Tensor:
    c = torch.zeros_like(a)
    c[:, 1:] = b[:, :-1]
    c[c > 0.5] = 9
    c[0, 0] += 1
    return c


def _chained_views(a: Tensor, b: Tensor) -> Tensor:
    c = a * 1
    c.unsqueeze(0)[0, :, 1].fill_(3.0)
    c.narrow(1, 0, 1).copy_(c[:, 2:])
    c[None].transpose(1, 2)[0, 0, 0] = 1.5
    return c


def _turned(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    c = a * 1
    c.T[0] = 4
    c.mT[1].mul_(3)
    c.movedim(0, 1)[2, 0] = -1
    c.permute(1, 0)[:1, 1:].add_(b[1:, 1:2])
    return c, c.T + 1, c.movedim(0, 1) * 2


def _kept_views(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    c = a * 1
    rows, turned, wide, same = c[0], c.mT, c[None].expand(2, 2, 3), c.to(torch.float32)
    c.view(-1)[4] = 8
    rows.zero_()
    same.add_(1)
    return rows + 1, turned * 2, wide - 1, c.ravel()[1:]


def _zeros_of_views(a: Tensor, b: Tensor) -> Tensor:
    c = torch.stack([a, b])
    c[0].zero_()
    c.narrow(2, 1, 1).zero_()
    c.permute(2, 1, 0)[0].zero_()
    c.diagonal(dim1=0, dim2=1).fill_(2)
    return c


def _deep(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    c = torch.zeros(2, 3, 2, 3)
    c[0][1:][0][1] = b[0]
    c[1].transpose(0, 1)[..., 0].unsqueeze(-1).squeeze(-1).t()[1].copy_(a[1, :2])
    c.flatten(1)[:, 3:5] += 1
    return c, c[1, :, 0]


def _one_after_another(a: Tensor, b: Tensor) -> Tensor:
    c = a * 1
    for column, following in pairwise(range(3)):
        c[:, following] = c[:, following] - c[:, column] * b[:, column]
    return c


def _copied(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    c = a * 1
    d = c.to(torch.float32, copy=True)
    d[0] = 7
    e = c.t().reshape(-1)
    e[0] = 3
    return c, d + e.sum()


WRITES: dict[str, Callable[..., Any]] = {
    "a column": _column,
    "in place": _in_place,
    "interleaved": _interleaved,
    "through views": _through_views,
    "seen by views": _seen_by_views,
    "shifted": _shifted,
    "chained views": _chained_views,
    "turned": _turned,
    "kept views": _kept_views,
    "zeros of views": _zeros_of_views,
    "deep": _deep,
    "one after another": _one_after_another,
    "copied": _copied,
}
