"""One pass over a convolution's result, for NVIDIA's GPUs, in Triton's words; it comes with PyTorch for CUDA.

Triton reads the kernel's annotations, so that they are neither put off nor those of a type checker.
"""

from typing import Any

import torch
import triton
import triton.language as tl

_BLOCK = 1024
"""Elements of one program."""
LARGEST = 2**31 - _BLOCK
"""Elements in all: places are numbers of 32 bits, since a remainder of 64 bits takes longer than the memory."""


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _finish(  # type: ignore[no-untyped-def]
    x, bias, residual, made, count, channels, low, high,
    biased: tl.constexpr, adds: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0) * block + tl.arange(0, block)
    there = place < count
    value = tl.load(x + place, mask=there).to(tl.float32)
    if biased:
        value = (value + tl.load(bias + place % channels, mask=there).to(tl.float32)).to(tl.float16).to(tl.float32)
    if adds:
        value = (value + tl.load(residual + place, mask=there).to(tl.float32)).to(tl.float16).to(tl.float32)
    # comparisons leave a NaN as it is
    value = tl.where(value < low, low, value)
    value = tl.where(value > high, high, value)
    tl.store(made + place, value.to(tl.float16), mask=there)


def finish(x: Any, bias: Any, residual: Any, low: float, high: float) -> Any:
    """min(max(x + bias + residual, low), high) of f16 tensors [n, C, H, W], each sum rounded; channels last."""
    x = x.contiguous(memory_format=torch.channels_last)
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    made, count = torch.empty_like(x), x.numel()
    given = (x if bias is None else bias, x if residual is None else residual)
    flags = {"biased": bias is not None, "adds": residual is not None, "block": _BLOCK}
    _finish[(triton.cdiv(count, _BLOCK),)](x, *given, made, count, x.shape[1], low, high, **flags)
    return made
