"""MIL's elementwise operations on one tensor. int32 goes in where MIL allows it and comes out as int32."""

from __future__ import annotations

import torch

from tlkit.mil.ops.kit.registry import CARRIERS, Tensor, op
from tlkit.mil.types import DType


@op("abs", exact=True)
def abs_(x: Tensor) -> Tensor:
    """The absolute value."""
    return torch.abs(x)


@op()
def acos(x: Tensor) -> Tensor:
    """The inverse cosine; NaN outside [-1, 1]."""
    return torch.acos(x)


@op()
def asin(x: Tensor) -> Tensor:
    """The inverse sine; NaN outside [-1, 1]."""
    return torch.asin(x)


@op()
def atan(x: Tensor) -> Tensor:
    """The inverse tangent."""
    return torch.atan(x)


@op()
def atanh(x: Tensor) -> Tensor:
    """The inverse hyperbolic tangent; infinite at -1 and 1."""
    return torch.atanh(x)


@op(exact=True)
def ceil(x: Tensor) -> Tensor:
    """The smallest integer not below x."""
    return torch.ceil(x)


@op(exact=True)
def clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    """min(max(x, alpha), beta). iOS17 demands alpha < beta; before, beta wins."""
    return torch.clamp(x, alpha, beta)


@op()
def cos(x: Tensor) -> Tensor:
    """The cosine."""
    return torch.cos(x)


@op()
def cosh(x: Tensor) -> Tensor:
    """The hyperbolic cosine."""
    return torch.cosh(x)


@op()
def erf(x: Tensor) -> Tensor:
    """The Gauss error function."""
    return torch.erf(x)


@op()
def exp(x: Tensor) -> Tensor:
    """e to the power of x."""
    return torch.exp(x)


@op()
def exp2(x: Tensor) -> Tensor:
    """2 to the power of x."""
    # torch makes an f32 of an int32; MIL keeps the type.
    return torch.exp2(x).to(x.dtype)


@op(exact=True)
def floor(x: Tensor) -> Tensor:
    """The largest integer not above x."""
    return torch.floor(x)


@op()
def inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    """1 / (x + epsilon)."""
    return torch.reciprocal(x + epsilon)


@op()
def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    """The natural logarithm of x + epsilon."""
    # 1e-45 rounds to the smallest f32: it changes only the logarithm of 0, to -103.
    return torch.log(x + epsilon)


@op(exact=True)
def logical_not(x: Tensor) -> Tensor:
    """Whether x is false."""
    return torch.logical_not(x)


@op("round", exact=True)
def round_(x: Tensor) -> Tensor:
    """The nearest integer, ties to the even one."""
    return torch.round(x)


@op()
def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    """1 / sqrt(x + epsilon)."""
    return torch.rsqrt(x + epsilon)


@op(exact=True)
def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1."""
    return torch.sign(x)


@op()
def sin(x: Tensor) -> Tensor:
    """The sine."""
    return torch.sin(x)


@op()
def sinh(x: Tensor) -> Tensor:
    """The hyperbolic sine."""
    return torch.sinh(x)


@op()
def sqrt(x: Tensor) -> Tensor:
    """The square root; NaN below 0."""
    return torch.sqrt(x)


@op()
def square(x: Tensor) -> Tensor:
    """x * x."""
    return x * x


@op()
def tan(x: Tensor) -> Tensor:
    """The tangent."""
    return torch.tan(x)


@op()
def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return torch.tanh(x)


@op(exact=True)
def threshold(x: Tensor, alpha: float) -> Tensor:
    """max(x, alpha)."""
    return torch.clamp(x, min=alpha)


@op(aliases=True)
def cast(x: Tensor, dtype: str) -> Tensor:
    """x as MIL's ``dtype``; iOS17 adds 8 and 16-bit integers.

    A float is truncated toward 0 and clamped to the integer type's range, with NaN as 0 (as Apple's processors do); an
    integer keeps its low bits; a bool is x != 0.
    """
    target = DType.named(dtype)
    carrier = CARRIERS[target]
    if target.is_float or target is DType.BOOL:
        return x.to(carrier)
    if x.is_floating_point():
        signed = not target.mil.startswith("u")
        low, high = (-(2 ** (target.bits - 1)), 2 ** (target.bits - 1) - 1) if signed else (0, 2**target.bits - 1)
        # f32 cannot hold int32's bounds, so they are applied to 64-bit integers.
        wide = torch.nan_to_num(x).clamp(-(2.0**33), 2.0**33).to(torch.int64)
        return wide.clamp(low, high).to(carrier)
    whole = x.to(carrier)
    # uint16 is carried as int32, whose upper bits have to be cleared.
    return whole & 0xFFFF if target is DType.UINT16 else whole
