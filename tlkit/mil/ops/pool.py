"""MIL's pools in 1, 2 and 3 dimensions; ``same_lower`` came with iOS16. Padding as in ``conv``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F

from tlkit.mil.ops.kit.registry import Ints, Tensor, measured, op
from tlkit.mil.ops.kit.window import pairs_for_torch, window_pads

_MAX: Mapping[int, Callable[..., Tensor]] = {3: torch.max_pool1d, 4: torch.max_pool2d, 5: torch.max_pool3d}
_AVERAGE: Mapping[int, Callable[..., Tensor]] = {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}


@op(exact=True)
def max_pool(
    x: Tensor,
    kernel_sizes: Ints,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest value of each window; padding never wins."""
    run = _MAX[x.ndim]
    strides = strides or (1,) * len(kernel_sizes)
    if pad_type == "valid" and not ceil_mode:
        return run(x, kernel_sizes, strides)
    before, after, _ = pool_pads(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    if _fits(before, after, kernel_sizes):
        return run(x, kernel_sizes, strides, before)
    # -inf never is the maximum, unless a window is all padding.
    padded = F.pad(x, pairs_for_torch(before, after), value=float("-inf"))
    return run(padded, kernel_sizes, strides)


@op()
def avg_pool(
    x: Tensor,
    kernel_sizes: Ints,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """The mean of each window; padding counts as 0 or is excluded. What ``ceil_mode`` adds at the end never counts."""
    return _average(x, kernel_sizes, strides, pad_type, pad, exclude_padding_from_average, ceil_mode, overhang=False)


@measured("O1", "avg_pool")
def avg_pool_measured(
    x: Tensor,
    kernel_sizes: Ints,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """The same, but what ``ceil_mode`` adds at the end is padding like any other: it counts as 0 or is excluded.

    Core ML divides a window that hangs over by the whole kernel. MIL's documentation means what PyTorch does, which
    divides by the part that does not hang over: of arange(49) as 1x1x7x7, with kernel 2 and stride 3, a Mac printed
    4.75 at the edge where PyTorch has 9.5 (apple/coremltools#2844).
    """
    return _average(x, kernel_sizes, strides, pad_type, pad, exclude_padding_from_average, ceil_mode, overhang=True)


def _average(
    x: Tensor,
    kernel_sizes: Ints,
    strides: Ints | None,
    pad_type: str,
    pad: Ints | None,
    exclude: bool,
    ceil_mode: bool,
    *,
    overhang: bool,
) -> Tensor:
    """An average pool; ``overhang`` says whether what ``ceil_mode`` adds counts like padding."""
    run = _AVERAGE[x.ndim]
    strides = strides or (1,) * len(kernel_sizes)
    if pad_type == "valid" and not ceil_mode:
        return run(x, kernel_sizes, strides)
    before, after, extra = pool_pads(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    if _fits(before, after, kernel_sizes):
        return run(x, kernel_sizes, strides, before, False, not exclude)
    padding = pairs_for_torch(before, after)
    means = run(F.pad(x, padding), kernel_sizes, strides)
    if not exclude and (overhang or not any(extra)):
        return means
    # The same pool over ones gives the share of each window that counts; dividing by it corrects the means.
    ones = x.new_ones((1, 1, *x.shape[2:]))
    if not exclude:
        # Declared padding counts as an element, an overhang does not.
        declared = [a - e for a, e in zip(after, extra, strict=True)]
        ones = F.pad(ones, pairs_for_torch(before, declared), value=1.0)
        padding = pairs_for_torch([0] * len(extra), extra)
    counts = run(F.pad(ones, padding), kernel_sizes, strides)
    return means / counts


@op()
def l2_pool(
    x: Tensor,
    kernel_sizes: Ints,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The square root of each window's sum of squares."""
    strides = strides or (1,) * len(kernel_sizes)
    before, after, _ = pool_pads(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    run = _AVERAGE[x.ndim]
    means = run(F.pad(x * x, pairs_for_torch(before, after)), kernel_sizes, strides)
    size = 1
    for length in kernel_sizes:
        size *= length
    # torch has average pools only: the mean of squares times the window's size is their sum.
    return torch.sqrt(means * size)


def _fits(before: Sequence[int], after: Sequence[int], kernel: Ints) -> bool:
    """Whether torch's pools accept the padding: the same at both ends, at most half a window."""
    return list(before) == list(after) and all(2 * b <= k for b, k in zip(before, kernel, strict=True))


def pool_pads(
    x: Tensor, kernel: Ints, strides: Ints, pad_type: str, pad: Ints | None, ceil_mode: bool
) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Return the padding before and after each axis, and the part of the latter that only ``ceil_mode`` adds."""
    before, after = window_pads(x, kernel, strides, pad_type, pad)
    if not ceil_mode:
        return before, after, ()
    extra = []
    for size, k, s, low, high in zip(x.shape[2:], kernel, strides, before, after, strict=True):
        count = -(-(size + low + high - k) // s) + 1
        if low + high > 0 and (count - 1) * s >= size + low:
            count -= 1  # a window that would start in the padding after
        extra.append(max(0, (count - 1) * s + k - size - low - high))
    return before, [a + e for a, e in zip(after, extra, strict=True)], extra
