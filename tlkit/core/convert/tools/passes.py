"""Passes of coremltools' pipeline that tlkit adds or replaces, through its public registry.

Importing this module does not import coremltools; :func:`pipeline` does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from tlkit.core.convert.tools.rank_rules import RULES
from tlkit.core.convert.tools.ranks import fold_axes

LARGEST = 65504.0
"""The largest f16 number."""
LIKE_INFINITY = 1e38
"""From here on coremltools takes a constant for an infinity; operations with large ones below it stay in f32."""
_TRANSPOSES = "common::reduce_transposes"
_INDEX_LIMIT = 32767  # int16's largest


def pipeline(precision: str) -> Any:
    """Return coremltools' default passes for ``precision``, with these of tlkit's."""
    made = plain_pipeline()
    names = list(made.passes)
    names = ["tlkit::divide_to_multiply" if name == "common::divide_to_multiply" else name for name in names]
    names.insert(names.index("common::noop_elimination"), "tlkit::floor_of_ones")
    names.insert(names.index("common::expand_high_rank_reshape_and_transpose") + 1, "tlkit::fold_large_ranks")
    if precision == "f16":
        names = ["tlkit::narrow_indices" if name == "common::add_int16_cast" else name for name in names]
        # Before the cast, which would make infinities of them.
        names.insert(names.index("common::add_fp16_cast"), "tlkit::clamp_constants")
    made.passes = names
    return made


def plain_pipeline() -> Any:
    """Return coremltools' default passes, each of which leaves what a program computes as it is."""
    import coremltools as ct

    made = ct.PassPipeline()
    _register()
    made.passes = ["tlkit::reduce_transposes" if name == _TRANSPOSES else name for name in made.passes]
    return made


@cache
def _register() -> None:
    from coremltools.converters.mil.mil.passes.defs.quantization import add_int16_cast
    from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
    from coremltools.converters.mil.mil.passes.pass_registry import register_pass

    @register_pass(namespace="tlkit")
    class narrow_indices(add_int16_cast):  # type: ignore[misc]  # the registry's own style
        """coremltools' cast of integers to 16 bits, restricted to values that certainly fit.

        coremltools also casts run-time values: data beyond 16 bits, and indices to whichever of int16 and uint16 it
        used last, so that -1 becomes 65535.
        """

        def should_cast_parameter(self, op: Any, param_name: str) -> bool:
            """Whether the parameter is a constant that fits, or indices along axes short enough."""
            value = op.inputs[param_name]
            if isinstance(value, list | tuple):
                return False
            if isinstance(value.val, str) or value.val is None:
                if not _fits(op, param_name):
                    return False
                self._target_dtype = "int16"
            return bool(super().should_cast_parameter(op, param_name))

    for name, why, apply in (
        ("fold_large_ranks", _FOLD, _in_functions(lambda block: fold_axes(block, RULES))),
        ("floor_of_ones", _ONES, _in_functions(_floor_ones)),
        ("divide_to_multiply", _DIVIDE, _in_functions(_multiply)),
        ("clamp_constants", _CLAMP, _in_functions(_clamp)),
        ("reduce_transposes", _APART, _reduce_transposes),
    ):
        made = type(name, (AbstractGraphPass,), {"__doc__": why, "apply": apply})
        register_pass(namespace="tlkit")(made)


_FOLD = "Hold tensors of more than five axes with axes folded, where coremltools did not find a way around them."
_ONES = "Make ``floor(x)`` of ``floor_div(x, 1)``, which coremltools takes for ``x``: ``x % 1`` became 0."
_DIVIDE = """coremltools' multiplication by 1 / y in place of a division, except where a step depends on the quotient.

49 * (1 / 49) is less than 1 in f32, of which ``floor`` makes 0.
"""
_CLAMP = """Convert ``torch.finfo(torch.float32).min`` in a mask to the most negative f16 number instead of -inf.

0 * -inf is NaN, and a row of only -inf has no softmax; infinities in the source itself stay.
"""

_APART = """coremltools' removal of transposes that cancel, which takes a value and its transpose for one value.

Where an operation takes both, as ``q @ q.T`` does, it would compute ``q @ q`` or stop: an identity keeps them apart.
"""


def _in_functions(rewrite: Callable[[Any], None]) -> Callable[[Any, Any], None]:
    """Return a pass's ``apply``, which rewrites every function of a program."""

    def apply(self: Any, program: Any) -> None:
        for function in program.functions.values():
            rewrite(function)

    return apply


def _fits(op: Any, param_name: str) -> bool:
    """Whether what ``op`` takes (or numbers) as ``param_name`` lies in int16 since its axis is no longer than that."""
    if op.op_type in ("gather", "gather_along_axis") and param_name == "indices":
        axes = [op.x.shape[op.axis.val]]
    elif op.op_type == "gather_nd" and param_name == "indices":
        axes = list(op.x.shape)
    elif op.op_type == "topk" and param_name == "output_indices_dtype":
        axes = [op.x.shape[op.axis.val]]
    else:
        return False
    return all(str(size).isdigit() and int(size) <= _INDEX_LIMIT for size in axes)


def _floor_ones(block: Any) -> None:
    import numpy as np
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    for op in list(block.operations):
        for inner in op.blocks:
            _floor_ones(inner)
        if op.op_type != "floor_div" or not types.is_float(op.x.dtype) or op.y.val is None:
            continue
        if np.all(op.y.val == 1) and op.x.sym_type == op.outputs[0].sym_type:
            with block:
                new = mb.floor(x=op.x, before_op=op, name=op.name)
            _replaced(block, op, new)


def _multiply(block: Any) -> None:
    import numpy as np
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    for op in list(block.operations):
        for inner in op.blocks:
            _multiply(inner)
        if op.op_type != "real_div" or op.y.val is None or not types.is_float(op.x.dtype):
            continue
        with np.errstate(divide="ignore", over="ignore"):
            inverse = np.array(1.0, dtype=op.y.val.dtype) / op.y.val
        # Of a power of two the inverse is exact.
        if not np.isfinite(inverse).all() or (_decides(op) and (np.frexp(op.y.val)[0] != 0.5).any()):
            continue
        with block:
            new = mb.mul(x=op.x, y=inverse, name=f"_inversed_{op.name}", before_op=op)
        _replaced(block, op, new)


def _replaced(block: Any, op: Any, new: Any) -> None:
    block.replace_uses_of_var_after_op(anchor_op=op, old_var=op.outputs[0], new_var=new)
    block.remove_ops([op])


def _reduce_transposes(self: Any, program: Any) -> None:
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    apart = [value for function in program.functions.values() for value in _apart(function)]
    PASS_REGISTRY[_TRANSPOSES].apply(program)
    for value in apart:
        block = value.op.enclosing_block
        block.replace_uses_of_var_after_op(anchor_op=value.op, old_var=value, new_var=value.op.x)
        block.remove_ops([value.op])


def _apart(block: Any) -> list[Any]:
    """Put an identity between a value and each operation that takes its transpose as well; return the identities."""
    from coremltools.converters.mil import Builder as mb

    made = []
    for op in [op for op in block.operations if op.op_type == "transpose"]:
        both = [user for user in op.outputs[0].child_ops if user in op.x.child_ops and user.enclosing_block is block]
        for user in both:
            with block:
                same = mb.identity(x=op.x, before_op=user)
            block.replace_uses_of_var_after_op(anchor_op=same.op, end_op=user, old_var=op.x, new_var=same)
            made.append(same)
    return made


_STEPS = frozenset(
    {"floor", "ceil", "round", "floor_div", "mod", "greater", "greater_equal", "less", "less_equal", "equal"}
)
_PLACEWISE = frozenset({"add", "sub", "mul", "real_div", "abs", "clip", "minimum", "maximum", "square", "sqrt"})
_MOVES = frozenset(
    {"reshape", "transpose", "expand_dims", "squeeze", "slice_by_index", "slice_by_size", "split", "concat", "stack"}
)


def _decides(op: Any) -> bool:
    """Whether a step is taken by the result of ``op``, through operations that keep each number in its place."""
    seen, waiting = set(), [op]
    while waiting:
        for value in waiting.pop().outputs:
            for after in value.child_ops:
                if after.op_type in _STEPS or (after.op_type == "cast" and str(after.dtype.val).startswith("int")):
                    return True
                if after.op_type in _PLACEWISE | _MOVES and after not in seen:
                    seen.add(after)
                    waiting.append(after)
    return False


def _clamp(block: Any) -> None:
    import numpy as np
    from coremltools.converters.mil import Builder as mb

    for op in list(block.operations):
        for inner in op.blocks:
            _clamp(inner)
        if op.op_type != "const" or op.outputs[0].val is None or not op.outputs[0].is_tensor_or_scalar_of(dtype="fp32"):
            continue
        value = np.asarray(op.outputs[0].val, np.float32)
        large = np.isfinite(value) & (np.abs(value) >= LIKE_INFINITY)
        if not large.any():
            continue
        clamped = np.where(large, np.copysign(np.float32(LARGEST), value), value).astype(np.float32)
        with block:
            new = mb.const(val=clamped if value.ndim else np.float32(clamped), before_op=op, name=f"{op.name}_clamped")
        block.replace_uses_of_var_after_op(anchor_op=op, old_var=op.outputs[0], new_var=new, force_replace=True)
        block.remove_ops([op])
