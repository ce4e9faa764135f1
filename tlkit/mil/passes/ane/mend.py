"""Other forms of operations that go wrong on the Neural Engine, equal in exact arithmetic.

Powers of two are taken out of an operand and put back into the result, so that a sum stays below the accumulator's
limit or its products above its step; softplus and log-sum-exp get the forms that do not overflow; a quantized product
is clipped, which keeps it from being fused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tlkit.mil.passes.ane.draft import Draft, argument, each, rewritten
from tlkit.mil.passes.base import Outcome, Pass
from tlkit.mil.passes.rewrite import text
from tlkit.mil.program import Block, Function, Operation, Program, Ref, TensorType, Value
from tlkit.mil.types import DType

_RANGE = 65504.0
SUMS = ("conv", "conv_transpose", "linear", "matmul")


@dataclass(frozen=True)
class MendRisks(Pass):
    """Rewrite the operations of ``function`` that ``plan`` names, each with the power of two by which its operand is
    multiplied (0 for operations that are no sums)."""

    function: str
    plan: Mapping[str, int]

    def run(self, program: Program) -> Outcome:
        """See :class:`~tlkit.mil.passes.base.Pass`."""

        def chosen(form: Callable[[Draft, Operation, int], bool]) -> Callable[[Draft, Operation], bool]:
            return lambda draft, item: item.name in self.plan and form(draft, item, self.plan[item.name])

        forms = {kind: chosen(_scaled) for kind in SUMS}
        forms |= {"softplus": chosen(_softplus), "reduce_log_sum_exp": chosen(_log_sum_exp), "mul": chosen(_clipped)}

        def change(block: Block, function: Function, taken: set[str]) -> tuple[Block, int]:
            return each(block, function, taken, forms)

        return rewritten(program, self.function, change, "{} operations in forms that the Neural Engine computes")


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
    """x times 2^power, and the result times 2^-power; a bias is scaled as well."""
    x, out = argument(operation, "x"), operation.outputs[0]
    bias = argument(operation, "bias")
    shape = draft.shape(x or "")
    if x is None or shape is None or not _half(draft, x) or not power or (bias and bias not in draft.constants):
        return False
    if not isinstance(out.type, TensorType) or out.type.dtype is not DType.FP16 or None in (out.type.shape or (None,)):
        return False
    up = _number(draft, f"{out.name}_up", 2.0**power)
    down = _number(draft, f"{out.name}_down", 2.0**-power)
    given = {"x": draft.add("mul", draft.name(f"{out.name}_x"), shape, x, x=x, y=up)}
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
    """max(x, 0) + softplus(-abs(x))."""
    x, out = argument(operation, "x"), operation.outputs[0].name
    shape = draft.shape(x or "")
    if x is None or shape is None or not _half(draft, x):
        return False
    size = draft.add("abs", draft.name(f"{out}_size"), shape, x, x=x)
    minus = _number(draft, f"{out}_minus", -1.0)
    negative = draft.add("mul", draft.name(f"{out}_negative"), shape, x, x=size, y=minus)
    rest = draft.name(f"{out}_rest")
    _under(draft, operation, rest, x=negative)
    positive = draft.add("relu", draft.name(f"{out}_positive"), shape, x, x=x)
    draft.add("add", out, shape, x, x=positive, y=rest)
    return True


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


def _clipped(draft: Draft, operation: Operation, power: int) -> bool:
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
