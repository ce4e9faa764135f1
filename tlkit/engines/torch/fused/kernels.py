"""The kernels that fused convolutions are made of, and the same in PyTorch's own words where there is no CUDA."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch

from tlkit.mil.ops.kit.registry import Ints

_FINISH = """
template <typename T> T finished({operands} float low, float high) {{
    float made = float(x);
    {steps}
    return made < low ? T(low) : (made > high ? T(high) : T(made));
}}
"""
"""One pass over a convolution's result; each step rounds, and comparisons leave a NaN as it is."""


def takes_relu(x: Any, pad_type: str, pad: Ints | None) -> bool:
    """Whether cuDNN's convolution with its activation takes this: on CUDA, padded alike at both ends."""
    if x.device.type != "cuda" or not torch.backends.cudnn.is_available():
        return False
    return pad_type == "valid" or (pad_type == "custom" and pad is not None and tuple(pad[::2]) == tuple(pad[1::2]))


def convolved_relu(
    x: Any, weight: Any, bias: Any, strides: Ints | None, pad: Ints | None, dilations: Ints | None, groups: int
) -> Any:
    """max(conv(x) + bias, 0) by cuDNN, which rounds once."""
    around = pad[::2] if pad is not None else (0, 0)
    given = (tuple(strides or (1, 1)), tuple(around), tuple(dilations or (1, 1)), groups)
    return torch.cudnn_convolution_relu(x.contiguous(memory_format=torch.channels_last), weight, bias, *given)


def finished(x: Any, bias: Any, residual: Any, low: float, high: float) -> Any:
    """min(max(x + bias + residual, low), high), each sum rounded; ``bias`` is [C], of x [n, C, H, W]."""
    column = None if bias is None else bias.reshape(1, -1, 1, 1)
    if x.device.type == "cuda" and x.dtype is torch.float16:
        operands = [item for item in (x, column, residual) if item is not None]
        made: Any = _jitted(bias is not None, residual is not None)(*operands, low=low, high=high)
        return made
    for item in (column, residual):
        x = x if item is None else x + item
    return x if (low, high) == (-math.inf, math.inf) else torch.clamp(x, low, high)


@cache
def _jitted(biased: bool, adds: bool) -> Any:
    """Return the pass as one kernel, compiled by NVRTC when it first runs."""
    names = ["x", *(["bias"] if biased else []), *(["residual"] if adds else [])]
    steps = "\n    ".join(f"made = float(T(made + float({name})));" for name in names[1:])
    code = _FINISH.format(operands=" ".join(f"T {name}," for name in names), steps=steps)
    create: Any = torch.cuda.jiterator._create_jit_fn
    return create(code, low=-math.inf, high=math.inf)
