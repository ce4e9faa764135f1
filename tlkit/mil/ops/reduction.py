"""MIL's reductions: over ``axes`` (default: all), each axis removed or, with ``keep_dims``, kept with length 1.

int32 gives int32; a mean, a norm or a logarithm of integers is computed in f32 and truncated toward 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from tlkit.mil.ops.kit.registry import Ints, Tensor, measured, op


def _over(x: Tensor, axes: Ints | None) -> list[int]:
    return list(range(x.ndim)) if axes is None else list(axes)


def _floating(
    x: Tensor, axes: Ints | None, keep_dims: bool, run: Callable[[Tensor, list[int], bool], Tensor]
) -> Tensor:
    """Reduce in f32 and return x's type; an empty list of axes reduces each element by itself."""
    values = x if x.is_floating_point() else x.to(torch.float32)
    if axes is not None and len(axes) == 0:
        return run(values.unsqueeze(-1), [-1], False).to(x.dtype)
    return run(values, _over(x, axes), keep_dims).to(x.dtype)


@op(aliases=True)
def reduce_sum(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """The sum."""
    if axes is not None and len(axes) == 0:
        return x
    # torch would widen integers to int64.
    return torch.sum(x, _over(x, axes), keepdim=keep_dims, dtype=x.dtype)


@op()
def reduce_mean(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """The mean."""
    return _floating(x, axes, keep_dims, torch.mean)


@op(aliases=True)
def reduce_prod(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """The product."""
    # torch multiplies along one axis at a time; from the last one on, so that the others keep their numbers.
    for axis in sorted((axis % max(x.ndim, 1) for axis in _over(x, axes)), reverse=True):
        x = torch.prod(x, axis, keepdim=keep_dims, dtype=x.dtype)
    return x


@op(exact=True)
def reduce_max(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """The largest value."""
    return x if axes is not None and len(axes) == 0 else torch.amax(x, _over(x, axes), keepdim=keep_dims)


@op(exact=True)
def reduce_min(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """The smallest value."""
    return x if axes is not None and len(axes) == 0 else torch.amin(x, _over(x, axes), keepdim=keep_dims)


@op()
def reduce_l1_norm(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """The sum of absolute values."""
    return reduce_sum(torch.abs(x), axes, keep_dims)


@op()
def reduce_l2_norm(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """The square root of the sum of squares."""
    return _floating(x, axes, keep_dims, lambda v, over, keep: torch.sqrt(torch.sum(v * v, over, keepdim=keep)))


@op()
def reduce_sum_square(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """The sum of squares."""
    return reduce_sum(x * x, axes, keep_dims)


@op()
def reduce_log_sum(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """The natural logarithm of the sum."""
    return _floating(x, axes, keep_dims, lambda v, over, keep: torch.log(torch.sum(v, over, keepdim=keep)))


@op()
def reduce_log_sum_exp(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """The natural logarithm of the sum of exponentials, without overflow."""
    return _floating(x, axes, keep_dims, torch.logsumexp)


@measured("R2", "reduce_log_sum_exp")
def reduce_log_sum_exp_measured(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """The formula taken literally, in f32, without subtracting the maximum first: infinite for x above 88.7, and -inf
    where all are below -103.3.

    Core ML failed WebNN's test cases at 100 and -100 (rustnn/rustnn#213); on the Neural Engine it leaves f16's range
    where this leaves f32's (apple/coremltools#2690).
    """
    return _floating(x, axes, keep_dims, lambda v, over, keep: torch.log(torch.sum(torch.exp(v), over, keepdim=keep)))


@op(exact=True)
def reduce_argmax(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    """The index of the largest value along ``axis``; ``output_dtype`` (iOS17) is int32 or uint16."""
    return torch.argmax(x, axis, keep_dims).to(torch.int32)


@op(exact=True)
def reduce_argmin(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    """The index of the smallest value along ``axis``; ``output_dtype`` (iOS17) is int32 or uint16."""
    return torch.argmin(x, axis, keep_dims).to(torch.int32)
