"""Trace a module as if it just ran, for those that a trace does not get through. Importing this imports torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def untold() -> Iterator[None]:
    """While active, ``torch.jit.is_tracing`` is False for all but torch, and torch's checks take sizes of a trace.

    Some models do something else where they are traced, which not all of their parts take: transformers' make masks
    that they leave out otherwise. A trace makes tensors of sizes, and ``torch._check`` (by 2.13, ``max_unpool2d`` and
    its kin) refuses a tensor as a condition.
    """
    whole: Any = torch
    real, check = whole.jit.is_tracing, whole._check_with

    def asked() -> bool:
        asks: str = sys._getframe(1).f_globals.get("__name__", "")
        return asks.startswith("torch.") and bool(real())

    def checked(error: Any, condition: Any, message: Any) -> None:
        check(error, bool(condition) if isinstance(condition, torch.Tensor) else condition, message)

    whole.jit.is_tracing, whole._check_with = asked, checked
    try:
        yield
    finally:
        whole.jit.is_tracing, whole._check_with = real, check
