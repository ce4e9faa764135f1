"""Elementwise arithmetic, and arithmetic of lengths: scaled sums, remainders, functions of integers, integer
quotients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tlkit.core.convert.tools.kit.mends import REPLACED, composed, mend
from tlkit.core.convert.tools.kit.reading import inputs_of, is_float

if TYPE_CHECKING:
    from torch import Tensor


def _scaled(given: Sequence[Any]) -> bool:
    return len(given) > 2 and getattr(given[2], "val", 1) != 1


@composed(
    "add", "coremltools leaves out `alpha` under export, and refuses it in a trace", replaces=True, applies=_scaled
)
def _add(x: Tensor, y: Any, alpha: float = 1) -> Any:
    return NotImplemented if alpha == 1 else x + y * alpha


@composed(
    "sub", "coremltools leaves out `alpha` under export, and refuses it in a trace", replaces=True, applies=_scaled
)
def _sub(x: Tensor, y: Any, alpha: float = 1) -> Any:
    return NotImplemented if alpha == 1 else x - y * alpha


@composed("rsub", "coremltools leaves out `alpha`", replaces=True, applies=_scaled)
def _rsub(x: Tensor, y: Any, alpha: float = 1) -> Any:
    return NotImplemented if alpha == 1 else -(x * alpha) + y  # `y - x` is what this is


@composed("fmod", "C's remainder, with the sign of the dividend; MIL has only Python's")
def _fmod(x: Tensor, y: Any) -> Any:
    import torch

    rest = torch.remainder(x.abs(), abs(y))
    return torch.where(x < 0, -rest, rest)


@composed("trunc", "rounding towards zero")
@composed("fix", "another name of trunc")
def _trunc(x: Tensor) -> Any:
    # Integers stay what they are, but an op has to give a new value.
    return x.sign() * x.abs().floor() if x.is_floating_point() else x * 1


@composed("lerp", "torch computes it in two ways, chosen by the weight; Core ML needs one of them only")
def _lerp(start: Tensor, end: Tensor, weight: Any) -> Any:
    return start + weight * (end - start)


@composed("outer", "coremltools multiplies matrices, which have to be of one type", replaces=True)
def _outer(x: Tensor, y: Tensor) -> Any:
    return x[:, None] * y[None]


@composed("hypot", "the length of a vector of two")
def _hypot(x: Tensor, y: Tensor) -> Any:
    return (x * x + y * y).sqrt()


@mend("atan2", "coremltools gives 0 for (0, -1), which lies at pi, and nothing finite for (0, 0)", replaces=True)
@mend("arctan2", "another name of atan2", replaces=True)
def _atan2(context: Any, node: Any) -> None:
    given = inputs_of(context, node, "self other")
    context.add(angle_of(given["self"], given["other"], node.name))


def angle_of(y: Any, x: Any, name: str) -> Any:
    """Return the angle of the points (x, y), from -pi to pi; the sign of a y of 0 is taken for positive."""
    import numpy as np
    from coremltools.converters.mil import Builder as mb

    y, x = (value if is_float(value) else mb.cast(x=value, dtype="fp32") for value in (y, x))
    up, across = mb.abs(x=y), mb.abs(x=x)
    longer = mb.maximum(x=up, y=across)
    longer = mb.select(cond=mb.equal(x=longer, y=np.float32(0)), a=np.float32(1), b=longer)
    # The quotient of the shorter by the longer is at most 1, which f16 holds well.
    angle = mb.atan(x=mb.real_div(x=mb.minimum(x=up, y=across), y=longer))
    angle = mb.select(cond=mb.greater(x=up, y=across), a=mb.sub(x=np.float32(np.pi / 2), y=angle), b=angle)
    # 0 times an angle has the shape of both: a condition does not spread.
    spread = mb.mul(x=angle, y=np.float32(0))
    left, below = (mb.less(x=mb.add(x=value, y=spread), y=np.float32(0)) for value in (x, y))
    angle = mb.select(cond=left, a=mb.sub(x=np.float32(np.pi), y=angle), b=angle)
    return mb.select(cond=below, a=mb.mul(x=angle, y=np.float32(-1)), b=angle, name=name)


@composed("copysign", "the sign of 0 is taken for positive, as MIL cannot see it")
def _copysign(x: Tensor, y: Any) -> Any:
    import torch

    return torch.where(y < 0, -x.abs(), x.abs()) if hasattr(y, "dim") else x.abs() * (-1.0 if y < 0 else 1.0)


@composed("xlogy", "0 where the factor is")
def _xlogy(x: Any, y: Any) -> Any:
    import torch

    if not hasattr(x, "dim"):
        return y.log() * x if x else torch.zeros_like(y)
    # The inner where keeps log away from 0: 0 times minus infinity is NaN.
    return torch.where(x == 0, 0.0, x * torch.where(x == 0, 1.0, y).log())


@composed("ldexp", "times a power of 2")
def _ldexp(x: Tensor, y: Tensor) -> Any:
    return x * 2.0 ** y.float()


@composed("signbit", "the sign of 0 is taken for positive, as MIL cannot see it")
def _signbit(x: Tensor) -> Any:
    return x < 0


@composed("erfc", "what erf lacks to 1")
def _erfc(x: Tensor) -> Any:
    return 1 - x.erf()


@composed("fmax", "the larger of two, or what is a number")
def _fmax(x: Tensor, y: Tensor) -> Tensor:
    import torch

    return torch.where(x != x, y, torch.where(y != y, x, torch.maximum(x, y)))  # NaN is not itself


@composed("fmin", "the smaller of two, or what is a number")
def _fmin(x: Tensor, y: Tensor) -> Tensor:
    import torch

    return torch.where(x != x, y, torch.where(y != y, x, torch.minimum(x, y)))


@composed("isfinite", "by comparing, which infinities and NaN fail")
def _isfinite(x: Tensor) -> Any:
    import torch

    return x.abs() < float("inf") if x.is_floating_point() else torch.ones_like(x, dtype=torch.bool)


@composed("isinf", "by comparing")
def _isinf(x: Tensor) -> Any:
    import torch

    return x.abs() == float("inf") if x.is_floating_point() else torch.zeros_like(x, dtype=torch.bool)


@mend("reciprocal", "coremltools' one adds 1e-4 to what it divides by, and refuses integers", replaces=True)
def _reciprocal(context: Any, node: Any) -> None:
    import numpy as np
    from coremltools.converters.mil import Builder as mb

    x = inputs_of(context, node, "self")["self"]
    x = x if is_float(x) else mb.cast(x=x, dtype="fp32")
    context.add(mb.real_div(x=np.float32(1), y=x, name=node.name))


@composed("log_sigmoid", "as torch computes it, so that exp never leaves the range")
def _log_sigmoid(x: Tensor) -> Any:
    return x.clamp(max=0) - (-x.abs()).exp().log1p()


_OF_REALS = [
    "sqrt",
    "rsqrt",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "erf",
    "sigmoid",
]


def _of_reals(name: str) -> None:
    """Have the function ``name`` take integers, as torch's does: their values as f32."""

    @composed(name, "coremltools refuses integers", replaces=True, applies=lambda given: not is_float(given[0]))
    def compute(x: Tensor) -> Any:
        import torch

        if x.is_floating_point() or x.is_complex():
            return NotImplemented
        return getattr(torch, name)(x.to(torch.float32))


for _name in _OF_REALS:
    _of_reals(_name)


@mend("floordiv", "the same, of lengths under torch.export", replaces=True)
@mend("floor_divide", "coremltools makes floating point of integers, which then cannot be indices", replaces=True)
def _floor_divide(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb

    x, y = (_value(value) for value in inputs_of(context, node, "self other").values())
    if is_float(x) or is_float(y):
        REPLACED["floor_divide"](context, node)
    else:
        context.add(mb.floor_div(x=_whole(x), y=_whole(y), name=node.name))


def _are_whole(given: Sequence[Any]) -> bool:
    return all(isinstance(value, int) or (hasattr(value, "sym_type") and not is_float(value)) for value in given[:2])


@mend("div", "coremltools rounds quotients of integers in floating point", replaces=True, applies=_are_whole)
def _div(context: Any, node: Any) -> Any:
    """Divide integers with ``rounding_mode``: down, or towards zero by the quotient of their sizes."""
    from coremltools.converters.mil import Builder as mb

    given = inputs_of(context, node, "self other rounding_mode")
    mode = getattr(given["rounding_mode"], "val", given["rounding_mode"])
    if node.kwinputs and "rounding_mode" in node.kwinputs:  # a node called "floor" would be taken for the word
        mode = node.kwinputs["rounding_mode"][0]
    if mode not in ("floor", "trunc"):
        return NotImplemented
    x, y = _whole(_value(given["self"])), _whole(_value(given["other"]))
    if mode == "floor":
        context.add(mb.floor_div(x=x, y=y, name=node.name))
        return None
    size = mb.floor_div(x=mb.abs(x=x), y=mb.abs(x=y))
    sign = mb.mul(x=mb.sign(x=x), y=mb.sign(x=y))
    context.add(mb.mul(x=size, y=sign, name=node.name))
    return None


def _value(value: Any) -> Any:
    from coremltools.converters.mil import Builder as mb

    return value if hasattr(value, "sym_type") else mb.const(val=value)


def _whole(value: Any) -> Any:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    return mb.cast(x=value, dtype="int32") if types.is_bool(value.dtype) else value


def _of_two(kind: str, operation: str) -> None:
    @mend(kind, "of lengths under torch.export")
    def translate(context: Any, node: Any) -> None:
        from coremltools.converters.mil import Builder as mb

        x, y = (_value(value) for value in inputs_of(context, node, "self other").values())
        context.add(getattr(mb, operation)(x=x, y=y, name=node.name))


for _kind, _operation in (("mod", "mod"), ("sym_max", "maximum"), ("sym_min", "minimum")):
    _of_two(_kind, _operation)


@mend("sym_float", "of a length under torch.export")
def _sym_float(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb

    context.add(mb.cast(x=_value(inputs_of(context, node, "self")["self"]), dtype="fp32", name=node.name))
