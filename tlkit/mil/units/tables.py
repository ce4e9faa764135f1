"""The Neural Engine's activations: 33 knots, straight lines between them (rows "tables", P9, R1, R2).

The knots are the function's values in f16 at equal distances over the published span. That reproduces the published
largest errors to within 4 % (sigmoid, tanh, silu, gelu, erf, sin); the values at 0 of silu and gelu are the published
ones. Exponentials, logarithms and roots go through powers of two, with the product by log2(e), and the logarithm to
base 2, rounded to f16: that reproduces their published errors to within 12 %, and log(+0) = -45440 exactly.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch

from tlkit.mil.ops.kit.registry import Tensor
from tlkit.mil.units.rounding import away

KNOTS = 33
_LOG2E = 1.4423828125  # log2(e) in f16
_OVERFLOW = 65520.0  # from here on a sum is infinite in f16
_LARGEST_LOG = 2.0**15
"""1 + exp(x) of this and more has no logarithm there: softplus returns 0."""


@functools.cache
def _knots(name: str, low: float, high: float, at_zero: float | None = None) -> tuple[Tensor, Tensor]:
    """The values at the knots in f16, and the rises to the next."""
    places = torch.linspace(low, high, KNOTS, dtype=torch.float64)
    values = away(_TRUE[name](places))
    if at_zero is not None:
        values = torch.where(places == 0, at_zero, values.to(torch.float64)).to(torch.float32)
    return values, torch.diff(values, append=values[-1:])


def _gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.erf(x / math.sqrt(2.0)))


_TRUE: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": lambda x: x * torch.sigmoid(x),
    "gelu": _gelu,
    "erf": torch.erf,
    "sin": torch.sin,
    "log2": torch.log2,
    "rsqrt": torch.rsqrt,
}


def _read(name: str, x: Tensor, low: float, high: float, at_zero: float | None = None) -> Tensor:
    """The line between the two knots around each ``x``; the last knots' values beyond them."""
    values, rises = (item.to(x.device) for item in _knots(name, low, high, at_zero))
    place = ((x - low) * ((KNOTS - 1) / (high - low))).nan_to_num(nan=0.0).clamp(0, KNOTS - 1)
    index = place.floor()
    at = index.to(torch.int64)
    return values[at] + rises[at] * (place - index)


def _one(x: Tensor, made: Tensor) -> Tensor:
    """1 for what f16 does not hold: published of a NaN, which is read as a large number."""
    return torch.where(x > _OVERFLOW, 1.0, made)


def sigmoid(x: Tensor) -> Tensor:
    """A knot every 0.5 on [-8, 8], constant beyond."""
    return _one(x, _read("sigmoid", x, -8.0, 8.0))


def tanh(x: Tensor) -> Tensor:
    """A knot every 1/8 on [0, 4], odd, constant beyond."""
    return _one(x, torch.copysign(_read("tanh", x.abs(), 0.0, 4.0), x))


def erf(x: Tensor) -> Tensor:
    """A knot every 1/16 on [0, 2], odd. Beyond 2 the function itself: what is done there was not published."""
    size = x.abs()
    return torch.copysign(torch.where(size <= 2, _read("erf", size, 0.0, 2.0), torch.erf(size)), x)


def silu(x: Tensor) -> Tensor:
    """A knot every 0.5 on [-8, 8], -1.26e-3 at 0; 0 below, x above."""
    inside = _read("silu", x, -8.0, 8.0, -1.26e-3)
    return torch.where(x > 8, x, torch.where(x < -8, 0.0, inside))


def gelu(x: Tensor, at_zero: float = -7.5e-4) -> Tensor:
    """A knot every 0.25 on [-4, 4], one table for both of MIL's forms; 0 below, x above. ``at_zero`` is its value
    at 0."""
    inside = _read("gelu", x, -4.0, 4.0, at_zero)
    return torch.where(x > 4, x, torch.where(x < -4, 0.0, inside))


def sin(x: Tensor) -> Tensor:
    """A quarter wave of 32 equal parts; of an infinity 0, as of what is invalid."""
    turn = torch.remainder(x.to(torch.float64), 2 * math.pi).nan_to_num(nan=0.0)
    half = torch.where(turn > math.pi, turn - math.pi, turn)
    quarter = torch.where(half > math.pi / 2, math.pi - half, half)
    value = _read("sin", quarter.to(torch.float32), 0.0, math.pi / 2)
    return torch.where(turn > math.pi, -value, value)


def cos(x: Tensor) -> Tensor:
    """:func:`sin` a quarter wave on: a guess, no table was published."""
    return sin(x.to(torch.float64) + math.pi / 2)


def exp(x: Tensor) -> Tensor:
    """2 to the power of f16(x * log2(e)), with log2(e) in f16: infinite from 11.094 on."""
    return torch.exp2(away(x.to(torch.float64) * _LOG2E).to(torch.float64)).to(torch.float32)


def log(x: Tensor) -> Tensor:
    """f16(log2(x)) * ln(2); the logarithm to base 2 of 0 is -65536, and so that of +0 is -45440."""
    base2 = torch.where(x == 0, -65536.0, away(torch.log2(x)))
    return torch.where(x < 0, 0.0, base2 * math.log(2.0))


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), and 0 from 1 + exp(x) = 2^15 on: x about 10.4."""
    return torch.where(1.0 + torch.exp(x) >= _LARGEST_LOG, 0.0, torch.nn.functional.softplus(x))


def log_sum_exp(x: Tensor, over: list[int], keep: bool) -> Tensor:
    """log(sum(exp(x))) with no maximum taken out: 0 where the sum leaves f16."""
    total = torch.sum(torch.exp(x), over, keepdim=keep)
    return torch.where(total >= _OVERFLOW, 0.0, log(away(total)))


def _mantissa(x: Tensor) -> tuple[Tensor, Tensor]:
    """x as m * 4^n with m in [1, 4)."""
    part, power = torch.frexp(x)
    power = power - 1
    odd = torch.remainder(power, 2)
    return part * 2 * (1 + odd), (power - odd) // 2


def rsqrt(x: Tensor) -> Tensor:
    """33 knots over [1, 4), scaled by a power of two; infinite at 0, 0 below."""
    part, power = _mantissa(torch.where(x > 0, x, 1.0))
    value = torch.ldexp(_read("rsqrt", part, 1.0, 4.0), -power)
    value = torch.where(x.isinf(), 0.0, value)
    return torch.where(x > 0, value, torch.where(x == 0, torch.inf, 0.0))


def sqrt(x: Tensor) -> Tensor:
    """x * rsqrt(x), which has the published error of 1.2 steps; 0 below 0."""
    positive = (x > 0) & ~x.isinf()
    return torch.where(positive, x * rsqrt(torch.where(positive, x, 1.0)), torch.where(x > 0, x, 0.0))


def inverse(x: Tensor) -> Tensor:
    """2 to the power of -f16(f16(log(x)) * log2(e)): a guess that comes within 12 % of the published error of 13.5
    steps. +infinity at 0, of either sign."""
    size = x.abs()
    base2 = away(away(torch.log(size)) * math.log2(math.e))
    value = torch.where(size.isinf(), 0.0, torch.exp2(-base2))
    return torch.where(x == 0, torch.inf, torch.copysign(value, x))
