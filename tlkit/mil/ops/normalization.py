"""MIL's normalizations. From iOS17 on their parameters may have another float type than ``x``; all compute in f32
here."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tlkit.mil.ops.kit.registry import Ints, Tensor, op


@op()
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, one of each per channel (axis 1)."""
    # Not training, so that the momentum (0.0) is not used.
    return torch.batch_norm(x, gamma, beta, mean, variance, False, 0.0, epsilon, True)


@op()
def instance_norm(x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5) -> Tensor:
    """Normalize each channel of each instance over its spatial axes, then scale and shift it."""
    return torch.instance_norm(x, gamma, beta, None, None, True, 0.0, epsilon, True)


@op()
def layer_norm(
    x: Tensor,
    axes: Ints | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Normalize over ``axes`` (default: all), then scale and shift by tensors of those axes' shape."""
    rank = x.ndim
    if axes is not None and len(axes) == 1 and axes[0] in (-1, rank - 1):  # the common case
        return torch.layer_norm(x, x.shape[-1:], gamma, beta, epsilon)
    over = sorted({axis % rank for axis in axes}) if axes is not None else list(range(rank))
    if over[0] == rank - len(over):
        return F.layer_norm(x, x.shape[over[0] :], gamma, beta, epsilon)
    variance, mean = torch.var_mean(x, over, correction=0, keepdim=True)
    shape = [size if axis in over else 1 for axis, size in enumerate(x.shape)]
    scaled = (x - mean) * torch.rsqrt(variance + epsilon)
    scaled = scaled if gamma is None else scaled * gamma.reshape(shape)
    return scaled if beta is None else scaled + beta.reshape(shape)


@op()
def l2_norm(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    """x / sqrt(sum of squares + epsilon), the sum over the last three axes."""
    return x * torch.rsqrt(torch.sum(x * x, (-3, -2, -1), keepdim=True) + epsilon)


@op()
def local_response_norm(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha / size * sum of squares over the ``size`` channels around) ** beta.

    The window reaches size // 2 channels down and (size - 1) // 2 up. Of a tensor of rank 3 the channels are the first
    axis: coremltools' recorded Core ML output for that rank says so, although the op's documentation says [n, C, D].
    """
    squares = x * x if x.ndim > 3 else (x * x).unsqueeze(0)
    # [N, 1, C, positions]: the window runs along the channels only
    flat = F.pad(squares.flatten(2).unsqueeze(1), (0, 0, size // 2, (size - 1) // 2))
    # The mean over the window has the formula's division by size in it.
    sums = F.avg_pool2d(flat, (size, 1), stride=1).reshape(x.shape)
    return x * torch.pow(sums * alpha + k, -beta)
