"""Ones, differences and logic of booleans: what masks are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlkit.core.convert.tools.kit.mends import composed, mend
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


_BITS = 31  # besides the sign


def _logical(context: Any, node: Any, name: str) -> None:
    """Have ``logical_{name}`` compute booleans, or integers bit by bit."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    x, y = (value if hasattr(value, "sym_type") else mb.const(val=value) for value in _pair(context, node))
    call = getattr(mb, f"logical_{name}")
    if types.is_bool(x.dtype) and types.is_bool(y.dtype):
        context.add(call(x=x, y=y, name=node.name))
        return
    x, y = (mb.cast(x=value, dtype="int32") if types.is_bool(value.dtype) else value for value in (x, y))
    context.add(mb.identity(x=_bitwise(x, y, call), name=node.name))


def _pair(context: Any, node: Any) -> list[Any]:
    return list(inputs_of(context, node, "self other").values())


def _bitwise(x: Any, y: Any, call: Any) -> Any:
    """Return what ``call`` makes of each bit of two integers; the sign is one more, as in two's complement."""
    import numpy as np
    from coremltools.converters.mil import Builder as mb

    if max(x.rank, y.rank) > 4:
        raise ValueError("bits of an integer tensor of rank 5: Core ML has no rank for them")
    powers = (1 << np.arange(_BITS)).astype(np.int32)

    def bits(value: Any) -> Any:
        column = mb.reshape(x=value, shape=[1]) if value.rank == 0 else mb.expand_dims(x=value, axes=[value.rank])
        return mb.cast(x=mb.mod(x=mb.floor_div(x=column, y=powers), y=np.int32(2)), dtype="bool")  # ... x 31

    kept = mb.cast(x=call(x=bits(x), y=bits(y)), dtype="int32")
    low = mb.reduce_sum(x=mb.mul(x=kept, y=powers), axes=[-1])
    negative = call(x=mb.less(x=x, y=np.int32(0)), y=mb.less(x=y, y=np.int32(0)))
    # Less 2^31, in two steps: int32 does not hold that number.
    return mb.sub(
        x=mb.sub(x=low, y=mb.mul(x=mb.cast(x=negative, dtype="int32"), y=np.int32(2**31 - 1))),
        y=mb.cast(x=negative, dtype="int32"),
    )


def _are_integers(given: Sequence[Any]) -> bool:
    from coremltools.converters.mil.mil import types

    return not all(hasattr(value, "sym_type") and types.is_bool(value.dtype) for value in given[:2])


@mend("or", "`a | b`, as tracing records it")
@mend("bitwise_or", "`a | b`, as torch.export records it; coremltools only has its `and`")
def _or(context: Any, node: Any) -> None:
    _logical(context, node, "or")


@mend("xor", "`a ^ b`, as tracing records it")
@mend("bitwise_xor", "`a ^ b`, as torch.export records it")
def _xor(context: Any, node: Any) -> None:
    _logical(context, node, "xor")


@mend("and", "of integers: bit by bit", replaces=True, applies=_are_integers)
@mend("bitwise_and", "of integers: bit by bit", replaces=True, applies=_are_integers)
def _and(context: Any, node: Any) -> None:
    _logical(context, node, "and")


def _shift(kind: str, *, left: bool) -> None:
    @mend(kind, "times or by a power of 2")
    def translate(context: Any, node: Any) -> None:
        import numpy as np
        from coremltools.converters.mil import Builder as mb

        x, by = _pair(context, node)
        places = getattr(by, "val", by)
        if places is None:
            raise ValueError("a shift by as many bits as the model computes")
        power = np.left_shift(1, np.asarray(places)).astype(np.int32)
        power = power if power.ndim else np.int32(power)
        context.add((mb.mul if left else mb.floor_div)(x=x, y=power, name=node.name))


for _kind in ("lshift", "bitwise_left_shift"):
    _shift(_kind, left=True)
for _kind in ("rshift", "bitwise_right_shift"):
    _shift(_kind, left=False)


@composed("__lshift__", "the same, as torch.export records it", replaces=True, traced=False)
def _left(x: Any, by: Any) -> Any:
    return x * 2**by if isinstance(by, int) else NotImplemented


@composed("__rshift__", "the same, as torch.export records it", replaces=True, traced=False)
def _right(x: Any, by: Any) -> Any:
    return x // 2**by if isinstance(by, int) else NotImplemented


def _by_where(kind: str) -> None:
    @mend(kind, "coremltools wants both of one type under export", replaces=True)
    def translate(context: Any, node: Any) -> None:
        from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

        _TORCH_OPS_REGISTRY.get_func("where")(context, node)


for _kind in ("where.scalar", "where.scalarself", "where.scalarother"):
    _by_where(_kind)
