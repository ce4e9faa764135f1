"""PyTorch's stored types, and the kinds of tensors in its pickles: views of storages, and more complex ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tlkit.errors import LoadError, one_line
from tlkit.formats.base.dtypes import PLAIN
from tlkit.formats.torch.pickle_machine import Call, Dict, Global, Persistent

STORAGES = {
    "FloatStorage": "F32",
    "DoubleStorage": "F64",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "ComplexFloatStorage": "C64",
    "ComplexDoubleStorage": "C128",
    "QInt8Storage": "I8",
    "QUInt8Storage": "U8",
    "QInt32Storage": "I32",
    "UntypedStorage": "U8",
}
DTYPES = {
    "float32": "F32",
    "float64": "F64",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "bool": "BOOL",
    "complex32": "C32",
    "complex64": "C64",
    "complex128": "C128",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
}
_RANK = 64
_LARGE = 1 << 28  # bytes
_QINTS = ("QInt8Storage", "QUInt8Storage", "QInt32Storage")
_PACKED = "float4_e2m1fn_x2"  # two values a byte, the first in the low bits


@dataclass(frozen=True, slots=True)
class View:
    """A tensor: which storage (of ``room`` bytes) it views, from which element, in what shape and strides.

    ``conj`` and ``neg`` are marks that PyTorch sets on a view instead of computing: its values are the conjugate, or
    the negative, of what is stored.
    """

    storage: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    room: int
    conj: bool = False
    neg: bool = False

    @property
    def span(self) -> int:
        """The number of elements from its first to its last, inclusive."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))

    @property
    def swells(self) -> bool:
        """Whether it is large and repeats the same bytes over a hundred times, as a stride of 0 does."""
        nbytes = math.prod(self.shape) * PLAIN[self.dtype]
        return nbytes > _LARGE and nbytes > 100 * self.room

    @property
    def contiguous(self) -> bool:
        """Whether its elements are contiguous in row-major order."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                # Of no elements, any order is in order.
                return 0 in self.shape
            expected *= size
        return True


@dataclass(frozen=True, slots=True)
class Quantized:
    """A quantized tensor with values ``(stored - zero) * scale``; zero and scale are numbers, or views along
    ``axis``."""

    view: View
    scale: Any
    zero: Any
    axis: int | None = None


@dataclass(frozen=True, slots=True)
class Array:
    """A numpy array whose bytes are in the pickle itself: ``data`` is bytes, or text that encodes them."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    big_endian: bool
    data: Any
    nbytes: int


@dataclass(frozen=True, slots=True)
class Unread:
    """A tensor that cannot be read, and why; ``holds`` are its parts. ``other``: it does not hold numbers. ``nbytes``
    are those that it has in the pickle itself."""

    reason: str
    holds: Any = None
    other: bool = False
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Absorbed:
    """A part of a readable tensor that is not itself a tensor of the model: a DTensor's device mesh."""

    holds: Any


Found = View | Quantized | Array | Unread
"""What a call in a pickle can turn out to be, if it makes a tensor."""


def storage_key(reference: Any) -> str | None:
    """Return the key of the storage that a persistent reference names; None for any other reference."""
    made = reference.id if isinstance(reference, Persistent) else None
    if not isinstance(made, tuple) or len(made) < 5 or made[0] != "storage":
        return None
    return str(made[2])


def whole_storage(reference: Persistent, where: str) -> View | Unread:
    """Return a storage that was saved by itself, as a vector."""
    return view_of((reference, 0, (reference.id[4],), (1,)), where)


def view_of(args: tuple[Any, ...], where: str, dtype: Any = None, marks: Any = None) -> View | Unread:
    """Return the view that ``(storage, offset, shape, strides, ...)`` describes; LoadError where it is malformed.

    ``dtype`` is the element type, for types newer than the storage classes; ``marks`` is PyTorch's further state of a
    view.
    """
    try:
        reference, offset, shape, strides = args[:4]
        _, kind, key, _, count, *more = reference.id
    except (ValueError, TypeError, AttributeError):
        raise LoadError(f"{where}: a tensor that refers to no storage", "the file is damaged") from None
    shape, strides = (tuple(_sizes(sizes)) for sizes in (shape, strides))
    numbers = (*shape, *strides, offset, count)
    # With 16 bytes each, more elements than that are more bytes than 63 bits count.
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers) or math.prod(shape) >= 1 << 59:
        raise LoadError(f"{where}: a shape, stride or offset that is not a size", "the file is damaged")
    if len(shape) != len(strides) or len(shape) > _RANK:
        raise LoadError(f"{where}: a tensor of an impossible rank", "the file is damaged")
    name = str(getattr(dtype if isinstance(dtype, Global) else kind, "name", ""))
    stored = DTYPES.get(name) if isinstance(dtype, Global) else STORAGES.get(name)
    if name == _PACKED and _dense(shape, strides):
        # PyTorch's shape counts bytes here, and each holds two values.
        shape, stored, offset = (*shape[:-1], 2 * shape[-1]), "F4", 2 * offset
        strides = row_major(shape)
    if stored is None:
        return Unread(f"its type, {one_line(name[:60]) or 'unnamed'}, is not one that tlkit reads", reference)
    offset, room = _window(offset, count, more)
    # The count is of the storage's own elements: bytes, where it is untyped.
    width = PLAIN[STORAGES.get(getattr(kind, "name", ""), "U8" if stored == "F4" else stored)]
    conj, neg = (_marked(marks, mark) for mark in ("conj", "neg"))
    return View(str(key), stored, offset, shape, strides, room * width, conj, neg)


def _dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    return bool(shape) and strides == row_major(shape)


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides, in elements, of a row-major tensor."""
    found: list[int] = []
    step = 1
    for size in reversed(shape):
        found.insert(0, step)
        step *= max(size, 1)
    return tuple(found)


def _window(offset: int, count: int, more: list[Any]) -> tuple[int, int]:
    """Return the offset and elements in the root storage: in the oldest files a storage may be part of another."""
    window = more[0] if more else None
    if isinstance(window, tuple) and len(window) == 3 and all(type(n) is int and n >= 0 for n in window[1:]):
        return offset + window[1], min(count, window[1] + window[2])
    return offset, count


def _marked(marks: Any, mark: str) -> bool:
    return isinstance(marks, Dict) and any(key == mark and value is True for key, value in marks.pairs)


def quantized_of(args: tuple[Any, ...], where: str, tensor: Any) -> Quantized | Unread:
    """Return the tensor that ``_rebuild_qtensor`` would make; ``tensor`` reads per-channel scales."""
    scheme = args[4] if len(args) > 4 and isinstance(args[4], tuple) else ()
    name = str(getattr(scheme[0], "name", "")) if scheme else ""
    kind = str(getattr(getattr(args[0], "id", (0, 0))[1], "name", ""))
    view = view_of(args, where) if kind in _QINTS else None
    if isinstance(view, View) and name == "per_tensor_affine" and len(scheme) == 3:
        return Quantized(view, scheme[1], scheme[2])
    if isinstance(view, View) and name.startswith("per_channel_affine") and len(scheme) == 4:
        scale, zero = (value if isinstance(value, list) else tensor(value) for value in scheme[1:3])
        if isinstance(scale, View | list) and isinstance(zero, View | list) and scheme[3] in range(len(view.shape)):
            return Quantized(view, scale, zero, scheme[3])
    return Unread(f"quantized in a way that tlkit does not read ({kind or 'no storage'}, {name or 'no scheme'})", args)


def array_of(dtype: Any, shape: Any, fortran: bool, data: Any, where: str, types: Mapping[str, str]) -> Array | Unread:
    """Return a numpy array with the bytes ``data``; LoadError where their number is wrong."""
    code = dtype.args[0] if isinstance(dtype, Call) and isinstance(dtype.args, tuple) and dtype.args else ""
    stored = types.get(code) if isinstance(code, str) else None
    state = dtype.state if isinstance(dtype, Call) and isinstance(dtype.state, tuple) else ()
    # A dtype's state: version, order, subarray, names, fields. The last two are those of a record.
    if stored is None or (len(state) > 4 and (state[3] is not None or state[4] is not None)):
        name = one_line(str(code)[:40]) or "no type"
        size = len(data) if isinstance(data, bytes | str) else 0
        if name[0] in "fciuV":
            return Unread(f"an array of numpy's type {name}, which tlkit does not read", data, nbytes=size)
        return Unread(f"an array of {name}, not of numbers", data, other=True, nbytes=size)
    shape = tuple(_sizes(shape))
    if len(shape) > _RANK or not all(type(size) is int and 0 <= size < 1 << 63 for size in shape):
        raise LoadError(f"{where}: an array whose shape is not a size", "the file is damaged")
    nbytes = math.prod(shape) * PLAIN[stored]
    given = getattr(data, "length", None) or (len(data) if isinstance(data, bytes | bytearray | str) else 0)
    # text in UTF-8 takes up to two bytes for each of them
    if not nbytes <= given <= (2 * nbytes if isinstance(data, str) else nbytes):
        raise LoadError(f"{where}: an array that should have {nbytes:,} bytes and has {given:,}", "the file is damaged")
    strides = tuple(reversed(row_major(shape[::-1]))) if fortran and sum(size > 1 for size in shape) > 1 else ()
    return Array(stored, shape, strides, len(state) > 1 and state[1] == ">", data, nbytes)


def _sizes(value: Any) -> tuple[Any, ...]:
    """A size is a tuple, or ``torch.Size`` of one."""
    if isinstance(value, Call) and isinstance(value.args, tuple) and value.args:
        value = value.args[0]
    return tuple(value) if isinstance(value, tuple | list) else (None,)
