"""Other forms of operations that go wrong on the Neural Engine, equal in exact arithmetic.

Powers of two are taken out of an operand and put back into the result, so that a sum stays below the accumulator's
limit or its products above its step; softplus, log-sum-exp and the logarithm of a softmax get the forms that do not
overflow; a quantized product is clipped, which keeps it from being fused. Masks are filled with what stays finite,
remainders are computed in f32, and rounding is written so that ties go to even whichever way a unit rounds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tlkit.mil.passes.ane.draft import Draft, Shape, argument, each, rewritten
from tlkit.mil.passes.base import Outcome, Pass
from tlkit.mil.passes.rewrite import text
from tlkit.mil.program import Block, Function, NamedType, Operation, Program, Ref, TensorType, Value
from tlkit.mil.types import DType

_RANGE = 65504.0
SUMS = ("conv", "conv_transpose", "linear", "matmul")
ATTENTION = "scaled_dot_product_attention"
MASKED = ("add", "sub", "mul", "select")
LEAST = -6e4
"""What masks are filled with: a score of thousands can be added, and it stays finite."""


@dataclass(frozen=True)
class MendRisks(Pass):
    """Rewrite the operations of ``function`` that ``plan`` names, each with the power of two by which its operand is
    multiplied (0 for operations that are no sums); those in ``masks`` by another fill."""

    function: str
    plan: Mapping[str, int]
    masks: frozenset[str] = frozenset()

    def run(self, program: Program) -> Outcome:
        """See :class:`~tlkit.mil.passes.base.Pass`."""

        def chosen(form: Callable[[Draft, Operation, int], bool]) -> Callable[[Draft, Operation], bool]:
            return lambda draft, item: item.name in self.plan and form(draft, item, self.plan[item.name])

        forms = {kind: chosen(_scaled) for kind in (*SUMS, ATTENTION)}
        forms |= {"softplus": chosen(_softplus), "softplus_parametric": chosen(_softplus)}
        forms |= {"reduce_log_sum_exp": chosen(_log_sum_exp)}
        forms |= {"round": chosen(_to_even), "mod": chosen(_remainder)}
        forms |= {kind: chosen(self._masked) for kind in MASKED}

        def change(block: Block, function: Function, taken: set[str]) -> tuple[Block, int]:
            made = {item.outputs[0].name: item for item in block.operations if item.type == "softmax"}

            def log(draft: Draft, item: Operation, power: int) -> bool:
                return _log_softmax(draft, item, made.get(argument(item, "x") or ""))

            return each(block, function, taken, forms | {"log": chosen(log)})

        return rewritten(program, self.function, change, "{} operations in forms that the Neural Engine computes")

    def _masked(self, draft: Draft, operation: Operation, power: int) -> bool:
        return _filled(draft, operation) if operation.name in self.masks else _clipped(draft, operation)


def _number(draft: Draft, base: str, value: float) -> str:
    return draft.constant(base, Value(TensorType(DType.FP16), (value,)))


def _under(draft: Draft, operation: Operation, result: str, /, **inputs: str) -> None:
    """Emit an operation under another name, with some inputs replaced."""
    given = dict(operation.inputs) | {name: (Ref(value),) for name, value in inputs.items()}
    output = replace(operation.outputs[0], name=result)
    attributes = dict(operation.attributes) | ({"name": text(result)} if "name" in operation.attributes else {})
    draft.emit(replace(operation, inputs=given, outputs=(output,), attributes=attributes))


def _half(draft: Draft, *names: str | None) -> bool:
    return all(name is not None and draft.dtype(name) is DType.FP16 for name in names)


def _scaled(draft: Draft, operation: Operation, power: int) -> bool:
    """x (of an attention the values) times 2^power, and the result times 2^-power; a bias is scaled as well."""
    name, out = "value" if operation.type == ATTENTION else "x", operation.outputs[0]
    x = argument(operation, name)
    bias = argument(operation, "bias")
    shape = draft.shape(x or "")
    if x is None or shape is None or not _half(draft, x) or not power or (bias and bias not in draft.constants):
        return False
    if not isinstance(out.type, TensorType) or out.type.dtype is not DType.FP16 or None in (out.type.shape or (None,)):
        return False
    up = _number(draft, f"{out.name}_up", 2.0**power)
    down = _number(draft, f"{out.name}_down", 2.0**-power)
    given = {name: draft.add("mul", draft.name(f"{out.name}_x"), shape, x, x=x, y=up)}
    if bias is not None:
        given["bias"] = _bias(draft, bias, 2.0**power)
    scaled = draft.name(f"{out.name}_scaled")
    _under(draft, operation, scaled, **given)
    draft.add("mul", out.name, tuple(size or 0 for size in out.type.shape or ()), scaled, x=scaled, y=down)
    return True


def _bias(draft: Draft, bias: str, factor: float) -> str:
    """A scaled bias, a constant."""
    value = draft.constants[bias]
    scaled = (value.numpy().astype("float32") * factor).astype(value.numpy().dtype)
    return draft.constant(f"{bias}_scaled", Value(value.type, tuple(scaled.ravel().tolist())))


def _softplus(draft: Draft, operation: Operation, power: int) -> bool:
    """max(x, 0) + softplus(-abs(x)), of x times beta, and times alpha, where there are such."""
    x, out = argument(operation, "x"), operation.outputs[0].name
    shape = draft.shape(x or "")
    if x is None or shape is None or not _half(draft, x):
        return False
    parametric = operation.type == "softplus_parametric"
    alpha, beta = (_channels(draft, operation, name, len(shape)) if parametric else None for name in ("alpha", "beta"))
    if parametric and (alpha is None or beta is None):
        return False
    if beta is not None:
        x = draft.add("mul", draft.name(f"{out}_in"), shape, x, x=x, y=beta)
    made = out if alpha is None else draft.name(f"{out}_plain")
    size = draft.add("abs", draft.name(f"{out}_size"), shape, x, x=x)
    minus = _number(draft, f"{out}_minus", -1.0)
    negative = draft.add("mul", draft.name(f"{out}_negative"), shape, x, x=size, y=minus)
    rest = draft.add("softplus", draft.name(f"{out}_rest"), shape, x, x=negative)
    positive = draft.add("relu", draft.name(f"{out}_positive"), shape, x, x=x)
    draft.add("add", made, shape, x, x=positive, y=rest)
    if alpha is not None:
        draft.add("mul", out, shape, made, x=made, y=alpha)
    return True


def _channels(draft: Draft, operation: Operation, name: str, rank: int) -> str | None:
    """A constant of one value per channel, shaped for a tensor of ``rank`` axes; None where it is computed."""
    given = argument(operation, name)
    if given is None or given not in draft.constants:
        return None
    values = draft.constants[given].numpy()
    kind = TensorType(DType.FP16, (values.size, *(1,) * (rank - 2)))
    return draft.constant(f"{given}_{rank}", Value(kind, tuple(values.astype("float32").ravel().tolist())))


def _log_sum_exp(draft: Draft, operation: Operation, power: int) -> bool:
    """max + log_sum_exp(x - max)."""
    x, out = argument(operation, "x"), operation.outputs[0]
    shape = draft.shape(x or "")
    axes, keeps = draft.flag(operation, "axes"), bool(draft.flag(operation, "keep_dims", False))
    if x is None or shape is None or not _half(draft, x) or not isinstance(out.type, TensorType):
        return False
    over = sorted({axis % len(shape) for axis in (range(len(shape)) if axes is None else axes)})
    if not over:
        return False
    kept = tuple(1 if axis in over else size for axis, size in enumerate(shape))
    most = draft.add("reduce_max", draft.name(f"{out.name}_most"), kept, x, x=x, axes=over, keep_dims=True)
    below = draft.add("sub", draft.name(f"{out.name}_below"), shape, x, x=x, y=most)
    rest = draft.name(f"{out.name}_rest")
    _under(draft, operation, rest, x=below)
    final = tuple(size or 0 for size in out.type.shape or ())
    if not keeps:
        most = draft.add("squeeze", draft.name(f"{out.name}_max"), final, x, x=most, axes=over)
    draft.add("add", out.name, final, x, x=most, y=rest)
    return True


def _clipped(draft: Draft, operation: Operation) -> bool:
    """A product clipped to f16's range, which changes nothing but what it is fused with."""
    out = operation.outputs[0]
    if not isinstance(out.type, TensorType) or out.type.dtype is not DType.FP16 or None in (out.type.shape or (None,)):
        return False
    product = draft.name(f"{out.name}_product")
    _under(draft, operation, product)
    low, high = (_number(draft, f"{out.name}_{name}", size) for name, size in (("low", -_RANGE), ("high", _RANGE)))
    shape = tuple(size or 0 for size in out.type.shape or ())
    draft.add("clip", out.name, shape, product, x=product, alpha=low, beta=high)
    return True


def _shape(out: NamedType) -> Shape | None:
    kind = out.type
    fixed = isinstance(kind, TensorType) and kind.shape is not None and None not in kind.shape
    return tuple(size or 0 for size in kind.shape or ()) if fixed and isinstance(kind, TensorType) else None


def _log_softmax(draft: Draft, operation: Operation, softmax: Operation | None) -> bool:
    """x - max - log(sum(exp(x - max)))."""
    x, out = argument(softmax, "x") if softmax is not None else None, operation.outputs[0]
    shape = draft.shape(x or "")
    if softmax is None or x is None or not shape or not _half(draft, x):
        return False
    axis = int(draft.flag(softmax, "axis", -1)) % len(shape)
    kept = tuple(1 if index == axis else size for index, size in enumerate(shape))
    how: dict[str, Any] = {"axes": [axis], "keep_dims": True}
    most = draft.add("reduce_max", draft.name(f"{out.name}_most"), kept, x, x=x, **how)
    below = draft.add("sub", draft.name(f"{out.name}_below"), shape, x, x=x, y=most)
    powers = draft.add("exp", draft.name(f"{out.name}_powers"), shape, x, x=below)
    total = draft.add("reduce_sum", draft.name(f"{out.name}_total"), kept, x, x=powers, **how)
    epsilon = draft.constant(f"{out.name}_epsilon", Value(TensorType(DType.FP16), (0.0,)))
    rest = draft.add("log", draft.name(f"{out.name}_rest"), kept, x, x=total, epsilon=epsilon)
    draft.add("sub", out.name, shape, x, x=below, y=rest)
    return True


def _to_even(draft: Draft, operation: Operation, power: int) -> bool:
    """The whole number below, and one more where the rest is over a half, or a half and that number odd.

    ``ceil(rest - 0.5)`` is 0 for a half, ``1 - ceil(0.5 - rest)`` is 1 for it, and both are right for every other
    rest: both differences are exact where they matter.
    """
    x, out = argument(operation, "x"), operation.outputs[0]
    shape = draft.shape(x or "")
    if x is None or shape is None or not _half(draft, x):
        return False

    def step(kind: str, word: str, **inputs: str) -> str:
        return draft.add(kind, draft.name(f"{out.name}_{word}"), shape, x, **inputs)

    half, one, two = (_number(draft, f"{out.name}_{word}", size) for word, size in _NUMBERS.items())
    below = step("floor", "below", x=x)
    rest = step("sub", "rest", x=x, y=below)
    down = step("ceil", "down", x=step("sub", "over", x=rest, y=half))
    up = step("sub", "up", x=one, y=step("ceil", "short", x=step("sub", "under", x=half, y=rest)))
    halves = step("floor", "halves", x=step("mul", "halved", x=below, y=half))
    odd = step("sub", "odd", x=below, y=step("mul", "even", x=halves, y=two))
    more = step("mul", "tie", x=odd, y=step("sub", "between", x=up, y=down))
    draft.add("add", out.name, shape, x, x=step("add", "rounded", x=below, y=down), y=more)
    return True


_NUMBERS = {"half": 0.5, "one": 1.0, "two": 2.0}


def _remainder(draft: Draft, operation: Operation, power: int) -> bool:
    """x - y * floor(x / y), in f32."""
    names, out = [argument(operation, name) for name in ("x", "y")], operation.outputs[0]
    shape, given = _shape(out), [name for name in names if name is not None]
    if shape is None or len(given) != 2 or not _half(draft, *given):
        return False
    x, y = (
        _cast(draft, name, draft.name(f"{out.name}_{side}"), "fp32") for name, side in zip(given, "xy", strict=True)
    )
    like = x if draft.shape(x) == shape else y
    quotient = draft.add("real_div", draft.name(f"{out.name}_quotient"), shape, like, x=x, y=y)
    whole = draft.add("floor", draft.name(f"{out.name}_whole"), shape, like, x=quotient)
    back = draft.add("mul", draft.name(f"{out.name}_back"), shape, like, x=whole, y=y)
    rest = draft.add("sub", draft.name(f"{out.name}_wide"), shape, like, x=x, y=back)
    _cast(draft, rest, out.name, "fp16")
    return True


def _cast(draft: Draft, name: str, result: str, kind: str) -> str:
    dtype = draft.constant(f"{result}_dtype", text(kind))
    made = NamedType(result, TensorType(DType.named(kind), draft.shape(name)))
    draft.emit(Operation("cast", {"x": (Ref(name),), "dtype": (Ref(dtype),)}, (made,), {"name": text(result)}))
    return result


def _filled(draft: Draft, operation: Operation) -> bool:
    """The same operation with constants that end at -6e4."""
    changed: dict[str, str] = {}
    for name, items in operation.inputs.items():
        value = items[0] if len(items) == 1 and isinstance(items[0], Value) else None
        value = value or draft.constants.get(argument(operation, name) or "")
        if value is None or not isinstance(value.type, TensorType) or value.type.dtype is not DType.FP16:
            continue
        array = value.numpy()
        if (array < LEAST).any():
            data = tuple(np.maximum(array, np.float16(LEAST)).ravel().tolist())
            changed[name] = draft.constant(f"{operation.outputs[0].name}_{name}_filled", Value(value.type, data))
    if not changed:
        return False
    draft.emit(replace(operation, inputs=dict(operation.inputs) | {n: (Ref(v),) for n, v in changed.items()}))
    return True
