"""MIL's activations. From iOS17 on their constants may have another float type than ``x``; all compute in f32 here."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tlkit.mil.ops.kit.registry import Tensor, op


@op(exact=True)
def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return torch.relu(x)


@op(exact=True)
def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6)."""
    return torch.clamp(x, 0.0, 6.0)


@op()
def clamped_relu(x: Tensor, alpha: float, beta: float) -> Tensor:
    """min(beta, x) where x >= 0, else min(beta, alpha * x)."""
    return torch.where(x >= 0, x, x * alpha).clamp(max=beta)


@op()
def leaky_relu(x: Tensor, alpha: float) -> Tensor:
    """x where x >= 0, else alpha * x."""
    return F.leaky_relu(x, alpha)


@op()
def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """x where x > 0, else alpha * x, one ``alpha`` per channel (axis 1)."""
    return F.prelu(x, alpha)


@op(exact=True)
def thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    """x where x >= alpha, else 0."""
    return torch.where(x >= alpha, x, 0.0)


@op()
def elu(x: Tensor, alpha: float) -> Tensor:
    """x where x > 0, else alpha * (exp(x) - 1)."""
    return F.elu(x, alpha)


@op()
def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """The Gaussian error linear unit, exact or by one of its two approximations."""
    if mode == "SIGMOID_APPROXIMATION":
        # 1.702 makes the logistic function the nearest to the normal distribution's (Hendrycks and Gimpel,
        # arXiv:1606.08415).
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


@op()
def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x)."""
    return F.silu(x)


@op()
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return torch.sigmoid(x)


@op()
def sigmoid_hard(x: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha * x + beta, clamped to 0..1."""
    return (x * alpha + beta).clamp(0.0, 1.0)


@op()
def linear_activation(x: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha * x + beta."""
    return x * alpha + beta


@op()
def scaled_tanh(x: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha * tanh(beta * x)."""
    return torch.tanh(x * beta) * alpha


@op()
def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x))."""
    # Above 20 torch returns x itself: the difference (2e-9) is lost in f32.
    return F.softplus(x)


@op()
def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """alpha * log(1 + exp(beta * x)), one ``alpha`` and ``beta`` per channel (axis 1)."""
    shape = (-1, *(1,) * (x.ndim - 2))
    return softplus(x * beta.reshape(shape)) * alpha.reshape(shape)


@op()
def softsign(x: Tensor) -> Tensor:
    """x / (1 + abs(x))."""
    return F.softsign(x)


@op()
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along ``axis``."""
    return torch.softmax(x, axis)
