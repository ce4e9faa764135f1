"""Rounding to f16 as the Neural Engine does: ties away from zero, and never a NaN."""

from __future__ import annotations

import functools
import importlib.util
import math
from typing import Any

import torch

from tlkit.mil.ops.kit.registry import Tensor, round_f16

NAN_READ = 98304.0
"""What the Neural Engine reads a NaN as (row P5); an infinity is read as :data:`INF_READ` where products are summed."""
INF_READ = 65536.0

_SUBNORMAL = 2.0**24  # f16's steps below 2^-14 are 2^-24
_LARGEST = 65504.0


def away(x: Tensor) -> Tensor:
    """Round f32 or f64 values to the nearest f16, ties away from zero, carried in f32; what passes 65504 is infinite.

    A NaN stays one. f64 values are rounded once: what f32 cuts off of them is kept as a sticky last bit.
    """
    made = _compiled(x) if x.device.type == "cpu" and has_numba() else None
    return by_torch(x) if made is None else made


def _compiled(x: Tensor) -> Tensor | None:
    from tlkit.mil.units import compiled_rounding  # late: numba is an extra

    return compiled_rounding.away(x)


@functools.cache
def has_numba() -> bool:
    """Whether loops can be compiled: numba is an extra."""
    return importlib.util.find_spec("numba") is not None


def rounded_sum(x: Tensor, y: Tensor, sign: int) -> Tensor | None:
    """:func:`away` of x + sign * y by a compiled loop, where there is one for such tensors."""
    if x.is_cuda or not has_numba():
        return None
    from tlkit.mil.units import compiled_rounding  # late: numba is an extra

    return compiled_rounding.combined(x, y, sign)


def by_torch(x: Tensor) -> Tensor:
    """:func:`away` by torch's operations, on any device."""
    x = _sticky(x) if x.dtype is torch.float64 else x
    # f16 keeps 10 of f32's 23 bits: half of the last kept one is added to the magnitude, and the rest cut off.
    wide = ((x.contiguous().view(torch.int32) + 0x1000) & -0x2000).view(torch.float32)
    size = x.abs()
    small = torch.copysign(torch.floor(size * _SUBNORMAL + 0.5) / _SUBNORMAL, x)
    made = torch.where(size < 2.0**-14, small, wide)
    made = torch.where(made.abs() > _LARGEST, torch.copysign(torch.full_like(made, torch.inf), x), made)
    return torch.where(x.isnan(), x, made)


def _sticky(x: Tensor) -> Tensor:
    """f64 to f32 toward zero, with the last bit set where that lost anything: enough to round correctly to 11 bits."""
    near = x.to(torch.float32)
    over = near.abs().to(torch.float64) > x.abs()
    cut = torch.where(over, torch.nextafter(near, torch.zeros_like(near)), near)
    lost = (cut.to(torch.float64) != x) & x.isfinite()
    return torch.where(lost, (cut.view(torch.int32) | 1).view(torch.float32), cut)


def even(x: Tensor) -> Tensor:
    """Round f64 values once to the nearest f16, ties to even: torch's own conversion goes through f32, and rounds
    twice."""
    return _sticky(x).to(torch.float16)


def half_away(x: Tensor) -> Tensor:
    """Round to whole numbers, ties away from zero."""
    return torch.copysign(torch.floor(x.abs() + 0.5), x)


def no_nan(x: Any) -> Any:
    """Results of invalid operations become +0 (row P8); anything but float tensors stays."""
    if isinstance(x, torch.Tensor):
        return torch.where(x.isnan(), 0.0, x) if _may_hold_nan(x) else x
    return type(x)(no_nan(item) for item in x) if isinstance(x, tuple | list) else x


def read(x: Any) -> Any:
    """Operands as the Neural Engine reads them: a NaN is a large number."""
    if isinstance(x, torch.Tensor):
        return torch.where(x.isnan(), NAN_READ, x) if _may_hold_nan(x) else x
    return type(x)(read(item) for item in x) if isinstance(x, tuple | list) else x


def to_away(x: Any) -> Any:
    """:func:`away` for each float tensor of a result."""
    if isinstance(x, torch.Tensor):
        return away(x) if x.is_floating_point() else x
    return type(x)(to_away(item) for item in x) if isinstance(x, tuple | list) else x


def to_even(x: Any) -> Any:
    """The nearest f16, ties to even, of f32 or f64 values."""
    if isinstance(x, torch.Tensor):
        return even(x).to(torch.float32) if x.dtype is torch.float64 else round_f16(x.to(torch.float32))
    return type(x)(to_even(item) for item in x) if isinstance(x, tuple | list) else x


def _may_hold_nan(x: Tensor) -> bool:
    """False where one quick pass shows that there is none: a sum is finite only then. A GPU is not waited for."""
    if not x.is_floating_point():
        return False
    return x.is_cuda or not math.isfinite(float(x.sum()))
