"""The kernels that fused convolutions are made of, and the same in PyTorch's own words where there is no CUDA."""

from __future__ import annotations

import functools
import importlib.util
import math
from functools import cache
from typing import Any

import torch

from tlkit.mil.ops import conv
from tlkit.mil.ops.kit.registry import Ints

_FEW = 16


def in_order(x: Any, weight: Any, groups: int) -> tuple[Any, Any]:
    """Return a convolution's operands, channels first where it has few.

    cuDNN's kernels for few channels that lie last make 0 of what falls below f16's range, as if a relu followed (seen
    with cuDNN 9.19 for 3, 4 and 8 channels, right for 16 and more); those for channels first make it -infinity.
    """
    few = x.device.type == "cuda" and x.ndim == 4 and groups == 1 and weight.shape[1] < _FEW
    return (x.contiguous(), weight.contiguous()) if few else (x, weight)


@functools.wraps(conv.conv)
def convolve(x: Any, weight: Any, *, groups: int = 1, **given: Any) -> Any:
    """The convolution, with an overflow of either sign."""
    return conv.conv(*in_order(x, weight, groups), groups=groups, **given)


def takes_relu(x: Any, pad_type: str, pad: Ints | None, groups: int) -> bool:
    """Whether cuDNN's convolution with its activation takes this: on CUDA, padded alike at both ends, in one group
    (with a group for each channel it takes 20 times as long as the two one after another)."""
    if x.device.type != "cuda" or groups != 1 or not torch.backends.cudnn.is_available():
        return False
    return pad_type == "valid" or (pad_type == "custom" and pad is not None and tuple(pad[::2]) == tuple(pad[1::2]))


def convolved_relu(
    x: Any, weight: Any, bias: Any, strides: Ints | None, pad_type: str, pad: Ints | None, dilations: Ints | None
) -> Any:
    """max(conv(x) + bias, 0) by cuDNN, which rounds once."""
    around = pad[::2] if pad_type == "custom" and pad is not None else (0, 0)
    given = (tuple(strides or (1, 1)), tuple(around), tuple(dilations or (1, 1)), 1)
    return torch.cudnn_convolution_relu(x.contiguous(memory_format=torch.channels_last), weight, bias, *given)


def finished(x: Any, bias: Any, residual: Any, low: float, high: float) -> Any:
    """min(max(x + bias + residual, low), high), each sum rounded; ``bias`` is [C], of x [n, C, H, W]."""
    if x.device.type == "cuda" and x.dtype is torch.float16 and has_triton():
        from tlkit.engines.torch.fused import triton_kernels  # Triton is there only with CUDA

        if x.numel() <= triton_kernels.LARGEST:
            return triton_kernels.finish(x, bias, residual, low, high)
    for item in (None if bias is None else bias.reshape(1, -1, 1, 1), residual):
        x = x if item is None else x + item
    return x if (low, high) == (-math.inf, math.inf) else torch.clamp(x, low, high)


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def step_kernels(x: Any) -> Any:
    """Return the module of Triton's kernels for a decoder's step on ``x``'s device; None where they do not run."""
    if x.device.type != "cuda" or not has_triton():
        return None
    from tlkit.engines.torch.fused import triton_steps  # Triton is there only with CUDA

    return triton_steps


def block_kernels(x: Any) -> Any:
    """Return the module of Triton's kernels for matrices of blocks, likewise."""
    if x.device.type != "cuda" or not has_triton():
        return None
    from tlkit.engines.torch.fused import triton_blocks  # Triton is there only with CUDA

    return triton_blocks
