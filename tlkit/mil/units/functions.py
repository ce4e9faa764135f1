"""The operations that a unit computes otherwise than MIL says, by the rule that says so, with MIL's inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from tlkit.mil.ops import quantization, transformation
from tlkit.mil.ops.kit.registry import Ints, Tensor
from tlkit.mil.units import products, tables
from tlkit.mil.units.accumulators import Accumulator, Halves, Lanes, WideSums
from tlkit.mil.units.fixed import FixedPoint
from tlkit.mil.units.profiles import Profile
from tlkit.mil.units.rounding import half_away, rounded_sum

_CLEARED = 4094.0  # above this, row O20 makes infinities
_M1_GELU = -5.4e-4


def accumulator(profile: Profile) -> Accumulator:
    """Return what sums a profile's products."""
    if "fixed-point" in profile.rules:
        return FixedPoint(screen=not profile.exact)
    if "lanes" in profile.rules:
        return Lanes()
    return Halves() if "f16-sums" in profile.rules else WideSums()


def functions(profile: Profile, sums: Accumulator, narrow: Callable[[Any], Any]) -> Mapping[str, Callable[..., Any]]:
    """Return the profile's own functions by operation; ``narrow`` rounds inside those that round on the way."""
    found: dict[str, Callable[..., Any]] = {}
    if not isinstance(sums, WideSums):
        for function in (products.conv, products.conv_transpose, products.linear, products.matmul, products.einsum):
            found[function.__name__] = partial(function, sums)
        found["scaled_dot_product_attention"] = partial(attention, sums, narrow)
    if "tables" in profile.rules:
        at_zero = {"at_zero": _M1_GELU} if "lanes" in profile.rules else {}
        found |= {"sigmoid": tables.sigmoid, "tanh": tables.tanh, "silu": tables.silu, "erf": tables.erf}
        found |= {"sin": tables.sin, "cos": tables.cos, "scaled_tanh": scaled_tanh, "gelu": partial(gelu, at_zero)}
    if "powers" in profile.rules:
        found |= {"exp": tables.exp, "log": partial(log, narrow), "sqrt": tables.sqrt}
        found |= {"rsqrt": partial(rsqrt, narrow), "inverse": partial(inverse, narrow)}
    if "softplus" in profile.rules:
        found |= {"softplus": tables.softplus, "softplus_parametric": softplus_parametric, "softsign": softsign}
    if "log-sum-exp" in profile.rules:
        found["reduce_log_sum_exp"] = reduce_log_sum_exp
    if "round-away" in profile.rules:
        found |= {"round": half_away, "quantize": quantize}
    if "wide-slice" in profile.rules:
        found |= {"slice_by_index": slice_by_index, "slice_by_size": slice_by_size}
    if "ties-away" in profile.rules:
        found |= {"add": partial(combined, 1), "sub": partial(combined, -1)}
    return found


def combined(sign: int, x: Tensor, y: Tensor) -> Tensor:
    """x + y or x - y, of floats in f64 or rounded: two f16 values need more than f32's 24 bits to be rounded once."""
    quick = rounded_sum(x, y, sign)
    if quick is not None:
        return quick
    x, y = ((item.to(torch.float64) if item.is_floating_point() else item) for item in (x, y))
    return x + y if sign > 0 else x - y


def attention(
    sums: Accumulator,
    narrow: Callable[[Any], Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
) -> Tensor:
    """Attention in MIL's steps, each rounded: a guess at how the unit splits it."""
    scores = narrow(narrow(products.batched(sums, query, key.mT)) / math.sqrt(query.shape[-1]))
    if attn_mask is not None:
        masked = attn_mask.dtype is torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if masked else narrow(scores + attn_mask)
    return products.batched(sums, narrow(torch.softmax(scores, -1)), value)


def gelu(table: Mapping[str, float], x: Tensor, mode: str = "EXACT") -> Tensor:
    """One table for the exact form and for tanh's; the other is a product with the table of sigmoid."""
    return x * tables.sigmoid(1.702 * x) if mode == "SIGMOID_APPROXIMATION" else tables.gelu(x, **table)


def scaled_tanh(x: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha * tanh(beta * x)."""
    return tables.tanh(x * beta) * alpha


def log(narrow: Callable[[Any], Any], x: Tensor, epsilon: float = 1e-45) -> Tensor:
    """The logarithm of f16(x + epsilon): MIL's default epsilon is 0 in f16."""
    return tables.log(narrow(x + epsilon))


def rsqrt(narrow: Callable[[Any], Any], x: Tensor, epsilon: float = 1e-12) -> Tensor:
    """1 / sqrt(f16(x + epsilon))."""
    return tables.rsqrt(narrow(x + epsilon))


def inverse(narrow: Callable[[Any], Any], x: Tensor, epsilon: float = 1e-4) -> Tensor:
    """1 / f16(x + epsilon)."""
    return tables.inverse(narrow(x + epsilon))


def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """alpha * softplus(beta * x), one of each per channel (axis 1)."""
    shape = (-1, *(1,) * (x.ndim - 2))
    return tables.softplus(x * beta.reshape(shape)) * alpha.reshape(shape)


def softsign(x: Tensor) -> Tensor:
    """x / (1 + abs(x)), 0 for an infinity."""
    return torch.where(x.isinf(), 0.0, x / (1 + x.abs()))


def reduce_log_sum_exp(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """0 where the sum of exponentials leaves f16."""
    over = list(range(x.ndim)) if axes is None else list(axes)
    return tables.log_sum_exp(x, over, keep_dims) if over else tables.log_sum_exp(x.unsqueeze(-1), [-1], False)


def quantize(
    input: Tensor, scale: Tensor, output_dtype: str, zero_point: Tensor | None = None, axis: int | None = None
) -> Tensor:
    """MIL's quantize with ties away from zero: what it rounds is made a whole number first."""
    whole = half_away(input / quantization.along(scale, input, axis))
    return quantization.quantize(whole, torch.ones((), device=input.device), output_dtype, zero_point, axis)


def wide_log(x: Tensor, axis: int = -1, epsilon: float = 1e-45) -> Tensor:
    """log(softmax(x) + epsilon), the softmax in f32."""
    return torch.log(torch.softmax(x, axis) + epsilon)


def slice_by_index(x: Tensor, begin: Any, **others: Any) -> Tensor:
    """An M1's: a slice along the last axis that does not begin at 0 clears what is large."""
    made = transformation.slice_by_index(x, begin, **others)
    masked = others.get("begin_mask") or ()
    return made if not _begins(begin) or (masked and masked[-1]) else _cleared(made)


def slice_by_size(x: Tensor, begin: Any, size: Any) -> Tensor:
    """As :func:`slice_by_index`."""
    made = transformation.slice_by_size(x, begin, size)
    return _cleared(made) if _begins(begin) else made


def _begins(begin: Any) -> bool:
    """Whether a slice of the last axis leaves out its first element."""
    given = begin.tolist() if isinstance(begin, torch.Tensor) else begin
    return bool(given) and given[-1] != 0


def _cleared(x: Tensor) -> Tensor:
    return torch.where(x.abs() > _CLEARED, torch.copysign(torch.full_like(x, torch.inf), x), x)


def whole_sums(unit: Tensor, function: Callable[..., Any], **given: Any) -> Tensor:
    """A product of two quantized operands as whole numbers; infinite where the sum, in steps of ``unit`` (scalar, or
    [N] along axis 1 or the last), leaves int32."""
    bias = given.pop("bias", None)
    exact = function(Exact(), **given)
    last = function in (products.linear, products.matmul)
    shape = (-1,) if last else (1, -1, *(1,) * (exact.ndim - 2))
    whole = exact / unit.to(torch.float64).reshape(shape if unit.ndim else ())
    made = torch.where(whole.abs().round() >= 2.0**31, whole.sign() * torch.inf, exact)
    return made if bias is None else made + bias.to(torch.float64).reshape(shape)


class Exact(Accumulator):
    """Sums without rounding."""

    def _product(self, a: Tensor, b: Tensor, first: Tensor) -> Tensor:
        return torch.matmul(a.to(torch.float64), b.to(torch.float64)) + first
