"""MIL's activations."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tlkit.mil.ops._registry import Tensor, op


@op(exact=True)
def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return F.relu(x)


@op(exact=True)
def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6)."""
    return F.relu6(x)


@op()
def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """The Gaussian error linear unit, exact or by one of its two approximations."""
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


@op()
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return torch.sigmoid(x)


@op()
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along ``axis``."""
    return torch.softmax(x, axis)
