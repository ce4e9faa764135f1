"""Recognise the calls in a pickle that make tensors: PyTorch's rebuild functions, wrappers and numpy's arrays.

A call that resembles one of these but is unknown becomes an :class:`Unread`, never nothing.
"""

from __future__ import annotations

from typing import Any

from tlkit.errors import one_line
from tlkit.formats.base.dtypes import NUMPY_CODES
from tlkit.formats.torch.objects import (
    DTYPES,
    Absorbed,
    Array,
    Found,
    Unread,
    View,
    array_of,
    quantized_of,
    view_of,
    whole_storage,
)
from tlkit.formats.torch.pickle_machine import Call, Dict, Global, Persistent

_NESTED = 8  # a parameter of a subclass of a wrapper
_UTILS = "torch._utils."
_TYPED = ("torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type", "torch.tensor._rebuild_from_type")
_HOLDERS = ("torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer", "torch.autograd.variable.Variable")
_COPIES = ("device_tensor_from_cpu_tensor", "device_tensor_from_numpy", "xla_tensor")
_RECONSTRUCT = tuple(f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core"))
_FROM_BUFFER = tuple(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core"))
_MASKED = ("numpy.ma.core._mareconstruct", "numpy.ma._mareconstruct")
_UNFILLED = ("torch.nn.parameter.UninitializedParameter", "torch.nn.parameter.UninitializedBuffer")
_DTENSOR = (
    "torch.distributed.tensor.DTensor",
    "torch.distributed._tensor.api.DTensor",
    "torch.distributed._tensor.DTensor",
)
_SHARDED = "ShardedTensor"


def recognise(value: Any, where: str, depth: int = 0) -> tuple[Found | None, Any]:
    """Return the tensor that ``value`` stands for (None if it is not one), and its further state (a subclass's).

    LoadError where sizes or offsets are malformed.
    """
    if isinstance(value, Persistent):
        is_storage = isinstance(value.id, tuple) and len(value.id) >= 5 and value.id[0] == "storage"
        return (whole_storage(value, where) if is_storage else None), None
    if not isinstance(value, Call) or not isinstance(value.func, Global) or depth > _NESTED:
        return None, None
    name, args = str(value.func), value.args if isinstance(value.args, tuple) else ()
    if name in _TYPED and len(args) > 2:
        return _typed(args, where, depth)
    if name in _HOLDERS and args:
        return recognise(args[0], where, depth + 1)[0], value.state
    if name in _UNFILLED:
        return Unread("an uninitialized parameter: it has neither a shape nor values", args), None
    if name in _MASKED:
        return Unread("a masked array of numpy; store its .filled()", args, nbytes=_held(value.state)), None
    if name in _RECONSTRUCT or name in _FROM_BUFFER:
        return _numpy(name, args, value.state, where), None
    if name.endswith(_SHARDED):
        return Unread("a ShardedTensor: the parts of other ranks are in other files", value), None
    if not name.startswith(f"{_UTILS}_rebuild_"):
        return None, None
    return _rebuilt(name.removeprefix(f"{_UTILS}_rebuild_"), args, where, depth)


def _rebuilt(name: str, args: tuple[Any, ...], where: str, depth: int) -> tuple[Found | None, Any]:
    """Return what a function of ``torch._utils`` would rebuild."""
    if name in ("parameter", "parameter_with_state") and args:
        found, more = recognise(args[0], where, depth + 1)
        return found, [more, args[3]] if len(args) > 3 else more
    if name in _COPIES and len(args) > 1:
        found, more = recognise(args[0], where, depth + 1)
        goal = getattr(args[1], "name", "")
        same = isinstance(found, View | Array) and DTYPES.get(goal) == found.dtype
        return (found if same else Unread(f"stored as another type than its own, {goal}", args)), more
    if name in ("tensor", "tensor_v2"):
        return view_of(args, where, marks=args[6] if len(args) > 6 else None), None
    if name == "tensor_v3":
        # storage, offset, size, stride, requires_grad, hooks, dtype, metadata; tensor_v2 has no dtype.
        return view_of(args, where, args[6] if len(args) > 6 else None, args[7] if len(args) > 7 else None), None
    if name == "qtensor":
        return quantized_of(args, where, lambda part: recognise(part, where, depth + 1)[0]), None
    if name == "wrapper_subclass" and args:
        return _wrapper(args[0], args, None, where, depth)
    return Unread(
        _REASONS.get(name, f"made by torch's _rebuild_{one_line(name[:60])}, which tlkit does not read"), args
    ), None


_REASONS = {
    "meta_tensor_no_storage": "it is on the 'meta' device: it has a shape and no values",
    "sparse_tensor": "a sparse tensor; store it as .to_dense()",
    "sparse_csr_tensor": "a sparse tensor; store it as .to_dense()",
    "nested_tensor": "a nested tensor, of parts of several shapes; store them one by one",
}


def _typed(args: tuple[Any, ...], where: str, depth: int) -> tuple[Found | None, Any]:
    """Return a Tensor subclass: a plain tensor with a state, or a wrapper that consists only of its state."""
    func, kind, inner = args[:3]
    state = args[3] if len(args) > 3 else None
    if str(func) == f"{_UTILS}_rebuild_wrapper_subclass":
        return _wrapper(kind, inner, state, where, depth)
    found, more = recognise(Call(func, inner), where, depth + 1)
    return found, [more, state]


def _wrapper(kind: Any, args: Any, state: Any, where: str, depth: int) -> tuple[Found, Any]:
    """Return a wrapper's tensor: a complete DTensor is its local tensor; others only their libraries can decode."""
    name = one_line(str(kind)[:100])
    if name in _DTENSOR:
        held = _state(state)
        local, _ = recognise(held.get("_local_tensor"), where, depth + 1)
        shape = args[2] if isinstance(args, tuple) and len(args) > 2 else None
        if "Partial" in str(_placements(held)):
            return Unread("a DTensor of which each rank holds a summand", state), None
        if isinstance(local, View) and shape is not None and tuple(_plain(shape)) == local.shape:
            return local, Absorbed(state)
        if isinstance(local, View):
            return Unread(
                f"a DTensor of which this file has one rank's part, {local.shape} of {tuple(_plain(shape))}", state
            ), None
    return Unread(f"a {name}: only the library that wrote it knows its values from its parts", [args, state]), None


def _placements(held: dict[Any, Any]) -> list[str]:
    spec = held.get("_spec")
    found = _state(spec.state if isinstance(spec, Call) else None).get("placements")
    return [str(item.func) for item in found if isinstance(item, Call)] if isinstance(found, tuple | list) else []


def _plain(shape: Any) -> Any:
    if isinstance(shape, Call) and isinstance(shape.args, tuple) and shape.args:
        shape = shape.args[0]
    return shape if isinstance(shape, tuple | list) else ()


def _state(state: Any) -> dict[Any, Any]:
    """Return the attributes in an object's state: a dictionary, or a pair of them (the second for ``__slots__``)."""
    parts = state if isinstance(state, tuple | list) else (state,)
    return {key: value for part in parts if isinstance(part, Dict) for key, value in part.pairs if isinstance(key, str)}


def _numpy(name: str, args: tuple[Any, ...], state: Any, where: str) -> Array | Unread | None:
    """Return a numpy array; None for an array of objects, which is searched like a list."""
    if name in _FROM_BUFFER and len(args) == 4:
        return array_of(args[1], args[2], args[3] == "F", _bytes(args[0]), where, NUMPY_CODES)
    if isinstance(state, tuple) and len(state) == 5:
        # ndarray.__setstate__: version, shape, dtype, Fortran's order, data.
        _, shape, dtype, fortran, data = state
        if isinstance(data, list):
            return None
        return array_of(dtype, shape, fortran is True, _bytes(data), where, NUMPY_CODES)
    return Unread("a numpy array whose data are not in the pickle", args)


def _held(state: Any) -> int:
    """Return how many bytes an array's state holds."""
    held = map(_bytes, state) if isinstance(state, tuple) else ()
    return sum(len(item) for item in held if isinstance(item, bytes | str))


def _bytes(data: Any) -> Any:
    """Return bytes; protocols 0 to 2 write them as text and a call that encodes it."""
    if isinstance(data, Call) and str(data.func) == "_codecs.encode" and isinstance(data.args, tuple) and data.args:
        return data.args[0]
    if isinstance(data, Call) and isinstance(data.args, tuple):  # bytearray(b"..."), or bytes() for none
        return _bytes(data.args[0]) if data.args else b""
    return data
