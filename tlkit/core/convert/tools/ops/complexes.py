"""Complex numbers as pairs of reals: Core ML has none, and coremltools has little beyond their Fourier transforms.

Views, slices and sums apply to both parts; products are written out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from tlkit.core.convert.tools.kit.mends import REPLACED, Translate, mend
from tlkit.core.convert.tools.kit.reading import inputs_of
from tlkit.core.convert.tools.ops.elementwise import angle_of


def is_complex(value: Any) -> bool:
    """Whether a value of coremltools' is complex."""
    from coremltools.converters.mil.mil import types

    return hasattr(value, "dtype") and bool(types.is_complex(value.dtype))


def parts(value: Any) -> tuple[Any, Any]:
    """Return a complex value's real and imaginary parts; of a real one itself, and 0."""
    import numpy as np
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    if not is_complex(value):
        real = value if types.is_float(value.dtype) else mb.cast(x=value, dtype="fp32")
        return real, np.float32(0)
    # `expand` names its results by identities.
    while value.op is not None and value.op.op_type == "identity":
        value = value.op.x
    if value.val is not None:
        whole = np.asarray(value.val)
        return mb.const(val=whole.real.astype(np.float32)), mb.const(val=whole.imag.astype(np.float32))
    if value.op is not None and value.op.op_type == "complex":
        return value.op.real_data, value.op.imag_data
    return mb.complex_real(data=value), mb.complex_imag(data=value)


def add_complex(context: Any, node: Any, real: Any, imag: Any) -> None:
    """Give ``node`` the complex value of two parts of one shape."""
    from coremltools.converters.mil import Builder as mb

    if real.shape != imag.shape:  # the same length under two names: take the one for both
        imag = mb.reshape(x=imag, shape=mb.shape(x=real))
    context.add(mb.complex(real_data=real, imag_data=imag, name=node.name), torch_name=node.name)


def call_of(context: Any, node: Any, kind: str, inputs: Sequence[Any], name: str) -> Any:
    """Have the translation of ``kind`` compute ``inputs`` (values, or what a graph passes); return its value."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    inner = copy(node)
    inner.kind, inner.name, inner.outputs = kind, name, [name]
    inner.inputs = [_bound(context, value, f"{name}_{index}") for index, value in enumerate(inputs)]
    # coremltools' own translation: a mend that stands before it would end up here again.
    (REPLACED.get(kind) or _TORCH_OPS_REGISTRY.get_func(kind))(context, inner)
    return context[name]


def _bound(context: Any, value: Any, name: str) -> Any:
    if isinstance(value, list | tuple) and any(hasattr(item, "sym_type") for item in value):
        context.add(list(value), torch_name=name)
        return name
    if hasattr(value, "sym_type"):
        context.add(value, torch_name=name)
        return name
    return value


def given_of(context: Any, node: Any) -> list[Any]:
    """Return what ``node`` was given: values, and what stands in the graph itself."""
    return [context[name] if isinstance(name, str) and name in context else name for name in node.inputs]


def has_complex(given: Sequence[Any]) -> bool:
    """Whether any value is complex, in a list too."""
    return any(has_complex(item) if isinstance(item, list | tuple) else is_complex(item) for item in given)


# What treats both parts alike.
_MOVED = [
    "view",
    "reshape",
    "flatten",
    "unflatten",
    "permute",
    "transpose",
    "t",
    "mt",
    "slice",
    "select",
    "narrow",
    "unsqueeze",
    "squeeze",
    "squeeze.dim",
    "squeeze.dims",
    "expand",
    "repeat",
    "index_select",
    "cat",
    "stack",
    "flip",
    "roll",
    "sum",
    "sum.dim_intlist",
    "mean",
    "mean.dim",
    "neg",
    "clone",
    "contiguous",
    "detach",
    "alias",
    "constant_pad_nd",
    "movedim",
    "reshape_as",
    "expand_as",
    "view_as",
]


def _moved(kind: str) -> None:
    @mend(kind, "of complex numbers: each part by itself", replaces=True, applies=has_complex)
    def translate(context: Any, node: Any) -> None:
        given = given_of(context, node)
        halves = []
        for half in (0, 1):
            inputs = [_half(value, half) for value in given]
            halves.append(call_of(context, node, kind, inputs, f"{node.name}_{'imag' if half else 'real'}"))
        add_complex(context, node, *halves)


def _half(value: Any, half: int) -> Any:
    if isinstance(value, list | tuple):
        return [_half(item, half) for item in value]
    return parts(value)[half] if is_complex(value) else value


for _kind in _MOVED:
    _moved(_kind)


def _of_two(kind: str) -> Callable[[Translate], Translate]:
    return mend(kind, "of complex numbers: written out", replaces=True, applies=has_complex)


@_of_two("add")
def _add(context: Any, node: Any) -> None:
    _summed(context, node, "add")


@_of_two("sub")
def _sub(context: Any, node: Any) -> None:
    _summed(context, node, "sub")


def _summed(context: Any, node: Any, name: str) -> None:
    from coremltools.converters.mil import Builder as mb

    x, y = (parts(value) for value in _values(context, node))
    real, imag = (getattr(mb, name)(x=a, y=b) for a, b in zip(x, y, strict=True))
    add_complex(context, node, real, _like(imag, real))


def _like(imag: Any, real: Any) -> Any:
    """Return ``imag`` spread to the shape of ``real``: of a real number and a complex one only one has it."""
    from coremltools.converters.mil import Builder as mb

    return imag if imag.shape == real.shape else mb.add(x=imag, y=mb.mul(x=real, y=0.0))


def _values(context: Any, node: Any) -> list[Any]:
    from coremltools.converters.mil import Builder as mb

    given = list(inputs_of(context, node, "self other").values())
    return [value if hasattr(value, "sym_type") else mb.const(val=value) for value in given]


@_of_two("mul")
def _mul(context: Any, node: Any) -> None:
    add_complex(context, node, *product_of(context, node, "mul", *_values(context, node)))


@_of_two("matmul")
def _matmul(context: Any, node: Any) -> None:
    add_complex(context, node, *product_of(context, node, "matmul", *_values(context, node)))


@_of_two("bmm")
def _bmm(context: Any, node: Any) -> None:
    add_complex(context, node, *product_of(context, node, "matmul", *_values(context, node)))


def product_of(context: Any, node: Any, kind: str, x: Any, y: Any, prefix: Sequence[Any] = ()) -> tuple[Any, Any]:
    """Return the parts of x * y by whatever product ``kind`` is; of a real factor both are scaled."""
    from coremltools.converters.mil import Builder as mb

    def times(index: int, a: Any, b: Any) -> Any:
        name = f"{node.name}_product_{index}"
        if kind == "mul":
            return mb.mul(x=a, y=b)
        return call_of(context, node, kind, [*prefix, *_pair(prefix, a, b)], name)

    (a, b), (c, d) = parts(x), parts(y)
    if not is_complex(y):
        return times(0, a, c), times(1, b, c)
    if not is_complex(x):
        return times(0, a, c), times(1, a, d)
    # (a + bi)(c + di) = ac - bd + (ad + bc)i
    real = mb.sub(x=times(0, a, c), y=times(1, b, d))
    return real, mb.add(x=times(2, a, d), y=times(3, b, c))


def _pair(prefix: Sequence[Any], a: Any, b: Any) -> list[Any]:
    return [[a, b]] if prefix else [a, b]


def einsum(context: Any, node: Any, equation: str, operands: Sequence[Any]) -> None:
    """Translate an einsum of two operands of which one is complex."""
    if len(operands) != 2:
        raise ValueError("einsum of complex numbers with more than two operands")
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.frontend import _utils

    def times(a: Any, b: Any) -> Any:
        return _utils.build_einsum_mil([a, b], equation, None)

    (a, b), (c, d) = (parts(operand) for operand in operands)
    if not is_complex(operands[1]):
        add_complex(context, node, times(a, c), times(b, c))
    elif not is_complex(operands[0]):
        add_complex(context, node, times(a, c), times(a, d))
    else:
        real = mb.sub(x=times(a, c), y=times(b, d))
        add_complex(context, node, real, mb.add(x=times(a, d), y=times(b, c)))


@_of_two("div")
def _div(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb

    x, y = _values(context, node)
    if not is_complex(y):
        (a, b), (c, _) = parts(x), parts(y)
        add_complex(context, node, mb.real_div(x=a, y=c), mb.real_div(x=b, y=c))
        return
    (a, b), (c, d) = parts(x), parts(y)
    # (a + bi) / (c + di) = (ac + bd + (bc - ad)i) / (c^2 + d^2)
    length = mb.add(x=mb.mul(x=c, y=c), y=mb.mul(x=d, y=d))
    real = mb.add(x=mb.mul(x=a, y=c), y=mb.mul(x=b, y=d))
    imag = mb.sub(x=mb.mul(x=b, y=c), y=mb.mul(x=a, y=d))
    add_complex(context, node, mb.real_div(x=real, y=length), mb.real_div(x=imag, y=length))


@mend("size", "of complex numbers: that of their real parts", replaces=True, applies=has_complex)
def _size(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb

    given = inputs_of(context, node, "self dim")
    shape = mb.shape(x=parts(given["self"])[0])
    if given["dim"] is None:
        context.add(mb.identity(x=shape, name=node.name))
        return
    axis = int(getattr(given["dim"], "val", given["dim"])) % given["self"].rank
    context.add(mb.gather(x=shape, indices=axis, axis=0, name=node.name))


@mend("view_as_complex", "a pair of reals, which it was before")
def _view_as_complex(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb

    x = inputs_of(context, node, "self")["self"]
    real, imag = (mb.gather(x=x, indices=part, axis=x.rank - 1) for part in (0, 1))
    add_complex(context, node, real, imag)


@mend("complex", "coremltools refuses two parts of one length that it knows under two names", replaces=True)
def _complex(context: Any, node: Any) -> None:
    given = inputs_of(context, node, "real imag")
    add_complex(context, node, given["real"], given["imag"])


@mend("polar", "by its length and angle")
def _polar(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb

    given = inputs_of(context, node, "abs angle")
    length, angle = given["abs"], given["angle"]
    real, imag = mb.mul(x=length, y=mb.cos(x=angle)), mb.mul(x=length, y=mb.sin(x=angle))
    add_complex(context, node, real, imag)


@mend("conj", "the imaginary part with the other sign")
@mend("_conj", "the same, as traces record it")
@mend("conj_physical", "the same, at once")
@mend("_conj_physical", "the same, at once")
def _conj(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb

    x = inputs_of(context, node, "self")["self"]
    if not is_complex(x):
        context.add(mb.identity(x=x, name=node.name))
        return
    real, imag = parts(x)
    add_complex(context, node, real, mb.mul(x=imag, y=-1.0))


@mend("resolve_conj", "nothing is left to resolve")
@mend("resolve_neg", "nothing is left to resolve")
def _resolve(context: Any, node: Any) -> None:
    context.add(inputs_of(context, node, "self")["self"], torch_name=node.name)


@mend("angle", "the angle in the plane; of a real number 0 or pi")
def _angle(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb

    real, imag = parts(inputs_of(context, node, "self")["self"])
    imag = imag if hasattr(imag, "sym_type") else mb.mul(x=real, y=0.0)
    context.add(angle_of(imag, real, node.name))
