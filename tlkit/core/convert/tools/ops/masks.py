"""Ones, differences and logic of booleans: what masks are made of."""

from __future__ import annotations

from typing import Any

from tlkit.core.convert.tools.kit.mends import mend
from tlkit.core.convert.tools.kit.reading import dtype_name, inputs_of


def _filled(size: Any, value: float) -> Any:
    """Return an f32 tensor of ``size``: numbers known only when the model runs come as a list of them."""
    from coremltools.converters.mil import Builder as mb

    if isinstance(size, list | tuple):
        size = mb.concat(values=size, axis=0)
    if size.shape == (0,):
        return mb.const(val=value)
    return mb.fill(shape=mb.cast(x=size, dtype="int32"), value=value)


@mend("new_ones", "masks of transformers begin with it")
def _new_ones(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    given = inputs_of(context, node, "self size dtype")
    ones = _filled(given["size"], 1.0)
    dtype = types.builtin_to_string(given["self"].dtype) if given["dtype"] is None else dtype_name(given["dtype"])
    context.add(mb.cast(x=ones, dtype=dtype, name=node.name))


@mend("diff", "causal masks of transformers find packed sequences with it")
def _diff(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    given = inputs_of(context, node, "self n dim prepend append")
    axis = -1 if given["dim"] is None else int(given["dim"].val)
    parts = [given["prepend"], given["self"], given["append"]]
    parts = [part for part in parts if part is not None]
    x = mb.concat(values=parts, axis=axis) if len(parts) > 1 else parts[0]
    for _ in range(1 if given["n"] is None else int(given["n"].val)):
        later, earlier = _sliced(x, axis, first=1), _sliced(x, axis, last=-1)
        boolean = types.is_bool(x.dtype)
        x = mb.logical_xor(x=later, y=earlier) if boolean else mb.sub(x=later, y=earlier)
    context.add(mb.identity(x=x, name=node.name))


def _sliced(x: Any, axis: int, first: int = 0, last: int = 0) -> Any:
    """Return ``x`` along ``axis`` from ``first`` to before ``last`` (0: to the end)."""
    from coremltools.converters.mil import Builder as mb

    axis %= x.rank
    begin, end = [0] * x.rank, [0] * x.rank
    begin[axis], end[axis] = first, last
    whole = [index != axis for index in range(x.rank)]
    return mb.slice_by_index(
        x=x,
        begin=begin,
        end=end,
        begin_mask=[flag or first == 0 for flag in whole],
        end_mask=[flag or last == 0 for flag in whole],
    )


@mend("alias", "torch.export leaves it where a tensor is handed on as it is")
def _alias(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb

    context.add(mb.identity(x=inputs_of(context, node, "self")["self"], name=node.name))


def _logical(context: Any, node: Any, name: str) -> None:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    x, y = inputs_of(context, node, "self other").values()
    if not (types.is_bool(x.dtype) and types.is_bool(y.dtype)):
        raise ValueError(f"'{node.kind}' of integers: Core ML has it only for booleans")
    context.add(getattr(mb, name)(x=x, y=y, name=node.name))


@mend("or", "`a | b`, as tracing records it")
@mend("bitwise_or", "`a | b`, as torch.export records it; coremltools only has its `and`")
def _or(context: Any, node: Any) -> None:
    _logical(context, node, "logical_or")


@mend("xor", "`a ^ b`, as tracing records it")
@mend("bitwise_xor", "`a ^ b`, as torch.export records it")
def _xor(context: Any, node: Any) -> None:
    _logical(context, node, "logical_xor")
