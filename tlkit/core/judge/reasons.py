"""Why an operation's result strays: what its operands and its result have in common with known faults of f16."""

from __future__ import annotations

from collections.abc import Sequence

from tlkit.core.judge.inner import ConstantRange, InnerValue
from tlkit.core.judge.matching import canonical

LARGEST = 65504.0
SMALLEST = 2.0**-24
_NORMAL = 2.0**-14
_CANCELLED = 4.0  # how much smaller a difference that strays is than its operands where their roundings explain it
_EXP_LIMIT = 11.08  # exp of more leaves f16
_SUMS = ("linear", "conv", "reduce_sum", "reduce_mean", "cumsum", "reduce_sum_square", "avg_pool", "layer_norm")
_SUMS_ALSO = ("reduce_l2_norm", "reduce_l1_norm", "batch_norm", "instance_norm", "norm")
_EXPONENTIALS = ("exp", "exp2", "softmax", "log_softmax", "reduce_log_sum_exp", "logsumexp", "sinh", "cosh", "silu")
_CHOICES = ("topk", "argsort", "reduce_argmax", "reduce_argmin", "argmax", "argmin", "sort", "greater", "less", "equal")


def why(
    op: InnerValue,
    reference: InnerValue | None,
    operands: Sequence[InnerValue],
    given: Sequence[InnerValue],
    *,
    half: bool,
) -> str:
    """Return what makes ``op`` stray.

    ``reference`` is its value on the side that does not, ``operands`` its operands, ``given`` the reference's;
    ``half``: it computes in f16.
    """
    finite = reference is None or reference.finite
    if not op.finite and finite:
        return _not_finite(op, reference, operands, given, half)
    if op.kind != "f":
        return "it chooses otherwise: its operands are too close to tell apart" if operands else "its values differ"
    return _inexact(op, reference, operands, given, half)


def _not_finite(
    op: InnerValue,
    reference: InnerValue | None,
    operands: Sequence[InnerValue],
    given: Sequence[InnerValue],
    half: bool,
) -> str:
    kind = canonical(op.type)
    masks = [item for item in op.constants if item.infinite]
    sides = [*given, *([reference] if reference is not None else [])]
    # On one side only: what grows beyond f16 does so on both, a mask is minus a lot.
    wide = [item.low for item in sides if item.low < -LARGEST and item.high <= LARGEST / 8] if half else []
    if masks or wide:
        low = f" ({wide[0]:.3g})" if wide else ""
        what = "0 times it, or it minus itself, is NaN" if op.nan else "a row of only such values is NaN later"
        return f"a mask{low} that f16 does not hold is minus infinity: {what}; a mask of -1e4 hides as much"
    lost = [item for item in operands if not item.finite]
    if lost:
        return f"an operand ({lost[0].name}) has {_count(lost[0])}, and {_of_infinities(kind)} makes {_count(op)} of it"
    largest = reference.largest if reference is not None else 0.0
    if kind in _EXPONENTIALS and any(item.high > _EXP_LIMIT for item in operands):
        return f"the exponential of {max(item.high for item in operands):.4g}, over f16's {LARGEST:.0f}"
    if half and largest > LARGEST:
        terms = "a sum of many products" if kind in (*_SUMS, *_SUMS_ALSO) else f"'{op.type}'"
        return f"overflow: {terms} reaches {largest:.3g}, over f16's {LARGEST:.0f}"
    if kind in ("real_div", "inverse", "rsqrt", "log", "pow"):
        small = min((_smallest(item) for item in (*operands[-1:], *given[-1:])), default=0.0)
        return f"a division by (or a logarithm of) what is 0 in f16: its smallest number is 6e-8, this is {small:.3g}"
    if kind in (*_SUMS, *_SUMS_ALSO, "add", "mul", "sub", "exp", "pow", "square"):
        return "overflow: from finite operands, in between or in the end"
    return f"it makes {_count(op)} of finite operands"


def _of_infinities(kind: str) -> str:
    return {"sub": "a difference of infinities", "real_div": "a quotient of infinities", "mul": "a product with 0"}.get(
        kind, f"'{kind}'"
    )


def _smallest(item: InnerValue) -> float:
    return 0.0 if item.low <= 0 <= item.high else min(abs(item.low), abs(item.high))


def _count(item: InnerValue) -> str:
    return ", ".join(f"{count} {word}" for count, word in ((item.nan, "NaN"), (item.inf, "infinite")) if count)


def _inexact(
    op: InnerValue,
    reference: InnerValue | None,
    operands: Sequence[InnerValue],
    given: Sequence[InnerValue],
    half: bool,
) -> str:
    kind, best = canonical(op.type), reference or op
    largest = max((item.largest for item in given or operands), default=0.0)
    constants = max((max(abs(item.low), abs(item.high)) for item in op.constants), default=0.0)
    largest = max(largest, constants) if kind in ("add", "sub") else largest
    if not half:
        return "it computes something else on this side" if kind not in _CHOICES else "it chooses otherwise"
    if kind in ("sub", "add") and best.largest and largest / best.largest >= _CANCELLED:
        told = f"operands up to {largest:.3g} leave {best.largest:.3g}"
        return f"a subtraction of near-equals: {told}, and f16 rounds operands of that size by {largest / 2048:.2g}"
    if kind in _EXPONENTIALS and largest > 32:
        return f"an exponential of values up to {largest:.4g}, which f16 rounds by {largest / 2048:.2g}"
    if 0 < best.largest < _NORMAL or 0 < min((item.largest for item in given), default=1.0) < _NORMAL:
        least = min((best.largest, *(item.largest for item in given)))
        return f"underflow: values up to {least:.3g}, f16 loses digits below 6e-5"
    if kind == "log" and operands and all(item.low > 0.5 and item.high < 2 for item in operands):
        low, high = min(item.low for item in operands), max(item.high for item in operands)
        return f"a logarithm of values near 1 ({low:.5g} to {high:.5g}), which f16 rounds by 0.0005"
    tiny = _tiny(op.constants)
    if tiny is not None:
        return f"a constant of {tiny:.3g}, which is 0 in f16"
    if kind in (*_SUMS, *_SUMS_ALSO):
        return f"a sum of many: operands up to {largest:.3g}, the result up to {best.largest:.3g}"
    if kind in ("sin", "cos", "tan", "mod", "floor", "round", "ceil", "frac"):
        return f"'{kind}' of values up to {largest:.4g}, which f16 rounds by {largest / 2048:.2g}"
    return "the roundings before it add up"


def _tiny(constants: Sequence[ConstantRange]) -> float | None:
    found = [item.high for item in constants if 0 < item.high < SMALLEST and item.low == item.high]
    return found[0] if found else None
