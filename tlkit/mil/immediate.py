"""Immediate tensor data in one canonical form, so that a program reads the same from protobuf and from text.

Core ML's protobuf allows a tensor's elements in any of seven fields, and writers differ (16-bit integers come as
``ints`` from one and as ``bytes`` from another). The form kept in a :class:`~tlkit.mil.program.Value` is:

* bool, string, int32, int64, fp32, fp64: a tuple of Python scalars; an fp32 is a Python float that fp32 can hold, and
  every NaN is ``math.nan`` itself (one object, so that tuples compare equal: its payload is not kept);
* every other type: little-endian bytes, sub-byte elements low bits first and the last byte filled with zeros. A
  floating-point NaN keeps its bits here.

``()`` is a constant without any value; one element may fill a whole shape.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, overload

from tlkit.errors import LoadError, reason
from tlkit.mil import floats
from tlkit.mil.program import BlobRef, DictType, TensorType, Type, Value
from tlkit.mil.types import DType

Data: TypeAlias = tuple[Any, ...] | bytes

_SCALARS = {DType.BOOL, DType.STRING, DType.INT32, DType.INT64, DType.FP32, DType.FP64}
_FORMATS = {8: "b", 16: "h", 32: "i", 64: "q"}
_FLOAT_FORMATS = {DType.FP16: "e", DType.FP32: "f", DType.FP64: "d"}


@overload
def canonical(kind: Type, data: Data) -> Data: ...
@overload
def canonical(kind: Type, data: Data | BlobRef) -> Data | BlobRef: ...
def canonical(kind: Type, data: Data | BlobRef) -> Data | BlobRef:
    """Return a constant's data in the form described above; LoadError where an element does not fit its type."""
    if isinstance(data, BlobRef) or data == ():
        return data
    _check_kind(kind, data)
    if not isinstance(kind, TensorType):
        return data
    dtype = kind.dtype
    if dtype in _SCALARS:
        if isinstance(data, bytes):
            data = tuple(elements(dtype, data))
        if dtype is DType.BOOL:
            return tuple(map(bool, data))
        if dtype.is_float and any(item != item for item in data):
            data = tuple(math.nan if item != item else item for item in data)
        return data
    if isinstance(data, tuple):
        try:
            return pack(dtype, _as_stored(dtype, data))
        except (struct.error, OverflowError, TypeError) as error:
            raise LoadError(f"an element of a {dtype.mil} constant does not fit its type ({reason(error)})") from None
    return _trimmed(data, dtype, kind.size) if dtype.bits < 8 else data


def is_packed(dtype: DType) -> bool:
    """Whether a Value holds elements of ``dtype`` as bytes."""
    return dtype not in _SCALARS


def _check_kind(kind: Type, data: Data) -> None:
    """Refuse data of another kind than the type says. A reader fills it from one field, so the first element
    decides."""
    wanted: type | tuple[type, ...] = Value
    if isinstance(kind, DictType):
        wanted = tuple
    elif isinstance(kind, TensorType):
        wanted = (int, float) if kind.dtype.is_float else str if kind.dtype is DType.STRING else int
    if isinstance(data, bytes):
        fits = isinstance(kind, TensorType) and kind.dtype is not DType.STRING
    else:
        fits = isinstance(data[0], wanted)
    if not fits:
        raise LoadError(f"a constant's data do not match its type ({_described(kind)})", "the file is damaged")


def _described(kind: Type) -> str:
    return kind.dtype.mil if isinstance(kind, TensorType) else type(kind).__name__.removesuffix("Type").lower()


def elements(dtype: DType, data: Data, count: int | None = None) -> Sequence[Any]:
    """Return the elements of immediate data as Python scalars; small floats (8 and 16 bits) as their bits.

    ``count`` matters only for sub-byte types, whose last byte may be partly filled.
    """
    if isinstance(data, tuple):
        return data
    if dtype.bits == 0:
        raise LoadError("a string constant cannot be given as bytes")
    if dtype.bits < 8:
        found = _unpack_bits(data, dtype)
        return found[:count] if count is not None else found
    width = dtype.bits // 8
    return struct.unpack(f"<{len(data) // width}{_format(dtype)}", data[: len(data) // width * width])


def pack(dtype: DType, items: Iterable[Any]) -> Data:
    """Return elements (as :func:`elements` gives them) in the form a Value holds for ``dtype``."""
    if dtype in _SCALARS:
        return tuple(items)
    if dtype.bits < 8:
        return _pack_bits(list(items), dtype)
    values = list(items)
    return struct.pack(f"<{len(values)}{_format(dtype)}", *values)


def writer(dtype: DType) -> Callable[[Any], str]:
    """Return the function that formats one element (as :func:`elements` gives it) as MIL text; not for strings."""
    if dtype is DType.BOOL:
        return lambda item: "true" if item else "false"
    if dtype in (DType.FP32, DType.FP64):
        return floats.hex_float
    if dtype.is_float:
        return lambda bits: floats.spell_bits(bits, dtype)
    return str


def reader(dtype: DType) -> Callable[[str], Any]:
    """Return the function that parses one element of MIL text, the inverse of :func:`writer`; it raises ValueError."""
    if dtype is DType.BOOL:
        return _read_bool
    if dtype in (DType.FP32, DType.FP64):
        return lambda token: floats.round_float(floats.read_float(token), dtype)
    if dtype.is_float:
        return lambda token: floats.read_bits(token, dtype)
    low, high = limits(dtype)
    return lambda token: _read_int(token, low, high, dtype)


def limits(dtype: DType) -> tuple[int, int]:
    """Return the lowest and highest value of an integer type."""
    if dtype.mil.startswith("u"):
        return 0, (1 << dtype.bits) - 1
    return -(1 << dtype.bits - 1), (1 << dtype.bits - 1) - 1


def _as_stored(dtype: DType, data: tuple[Any, ...]) -> tuple[Any, ...]:
    """Convert elements that protobuf gave as floats, or as signed integers for unsigned ones, to what :func:`pack`
    takes."""
    if dtype.is_float:
        return tuple(floats.clamped_bits(float(item), dtype) for item in data)
    if dtype.mil.startswith("u"):
        wrap = 1 << dtype.bits
        return tuple(item + wrap if -wrap <= item < 0 else item for item in data)
    return data


def _format(dtype: DType) -> str:
    if dtype in (DType.FP32, DType.FP64):
        return _FLOAT_FORMATS[dtype]
    if dtype is DType.BOOL:
        return "?"
    code = _FORMATS[dtype.bits]
    # Floats of 16 and 8 bits are handled as their bits, which are unsigned.
    return code.upper() if dtype.is_float or dtype.mil.startswith("u") else code


def _unpack_bits(data: bytes, dtype: DType) -> list[int]:
    bits, mask, half = dtype.bits, (1 << dtype.bits) - 1, 1 << dtype.bits - 1
    offset = half if dtype is DType.INT4 else 0
    found: list[int] = []
    for start in range(0, len(data), bits):  # eight elements fill exactly `bits` bytes
        group = data[start : start + bits]
        word = int.from_bytes(group, "little")
        # (x ^ half) - half extends the sign of a two's complement; with offset 0 it changes nothing.
        found += [((word >> shift & mask) ^ offset) - offset for shift in range(0, len(group) * 8 - bits + 1, bits)]
    return found


def _pack_bits(values: list[Any], dtype: DType) -> bytes:
    low, high = limits(dtype)
    bits, mask = dtype.bits, (1 << dtype.bits) - 1
    packed = bytearray()
    for start in range(0, len(values), 8):
        word = 0
        group = values[start : start + 8]
        for index, value in enumerate(group):
            if not low <= value <= high:
                raise OverflowError(f"{value} is not within {low} to {high}")
            # The mask makes two's complement of negative values.
            word |= (value & mask) << index * bits
        packed += word.to_bytes(-(-len(group) * bits // 8), "little")
    return bytes(packed)


def _trimmed(data: bytes, dtype: DType, count: int | None) -> bytes:
    used = len(data) * 8 if count is None else count * dtype.bits
    # Too short for its type: left as it is, and refused when it is decoded.
    if used > len(data) * 8:
        return data
    data, spare = data[: -(-used // 8)], -used % 8
    return data[:-1] + bytes([data[-1] & 0xFF >> spare]) if spare else data


def _read_bool(token: str) -> bool:
    if token not in ("true", "false"):
        raise ValueError("expected true or false")
    return token == "true"


def _read_int(token: str, low: int, high: int, dtype: DType) -> int:
    try:
        value = int(token, 16 if "x" in token else 10)
    except ValueError:
        raise ValueError(f"expected a whole number for {dtype.mil}") from None
    if not low <= value <= high:
        raise ValueError(f"the number does not fit in {dtype.mil}")
    return value
