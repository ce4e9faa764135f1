"""Decode a constant's bytes to a numpy array: the one place that knows how MIL packs each element type."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tlkit.errors import LoadError
from tlkit.host import budget
from tlkit.mil.blob import BlobRef, Deferred
from tlkit.mil.small_floats import values
from tlkit.mil.types import SMALL, DType, TensorType, Type

_STORED: dict[DType, np.dtype[Any]] = {
    DType.BF16: np.dtype("<u2"),
    DType.FP8E4M3FN: np.dtype("u1"),
    DType.FP8E5M2: np.dtype("u1"),
}


def array(kind: Type, data: Any) -> np.ndarray[Any, Any]:
    """Return a tensor constant as an array of its declared shape (see ``Value.numpy``); LoadError where it is
    damaged."""
    if not isinstance(kind, TensorType) or kind.shape is None or None in kind.shape:
        raise LoadError(f"a constant of type {kind} has no array")
    shape = tuple(int(d or 0) for d in kind.shape)
    count = math.prod(shape)
    if isinstance(data, BlobRef):
        flat = _from_blob(data, kind.dtype, count)
    elif isinstance(data, Deferred):
        flat = unpack(data.whole(), kind.dtype, count)
    elif isinstance(data, bytes):
        flat = unpack(data, kind.dtype, count)
    elif kind.dtype is DType.STRING:
        flat = np.array(data, dtype=object)
    else:
        flat = np.array(data, dtype=_numpy(kind.dtype))
    # Only immediate values are filled: a record of a weight file holds every element.
    if flat.size == 1 and count != 1 and not isinstance(data, BlobRef):
        # A few bytes in a damaged file can declare terabytes.
        said = budget.over(count)
        if said:
            raise LoadError(f"a constant of equal elements has {said[0]}", said[1])
        flat = np.broadcast_to(flat, (count,))  # an immediate value of one element fills its shape
    if flat.size != count:
        raise LoadError(f"a constant declares {count} elements and holds {flat.size}", "the model file is damaged")
    return flat.reshape(shape)


def unpack(data: bytes | memoryview, dtype: DType, count: int) -> np.ndarray[Any, Any]:
    """Return ``count`` elements of ``dtype`` packed little-endian in ``data``; sub-byte elements start at the low
    bits."""
    if dtype.bits < 8:
        return _unpack_bits(data, dtype, count)
    stored = _stored(dtype)
    # A last element that is cut off is dropped here; array() then finds one too few.
    flat: np.ndarray[Any, Any] = np.frombuffer(data, stored, len(data) // stored.itemsize)
    if dtype is DType.BF16:
        # A bf16 is the upper half of an f32.
        return (flat.astype("<u4") << 16).view("<f4")
    if dtype in SMALL:
        return np.take(np.array(values(SMALL[dtype]), "<f4"), flat)
    return flat


def _from_blob(ref: BlobRef, dtype: DType, count: int) -> np.ndarray[Any, Any]:
    if ref.file is None:
        raise LoadError(f"the weight file '{ref.file_name}' that the program names is missing")
    record = ref.file.record(ref.offset)
    # Weight files have no bool: booleans are stored as uint8.
    if record.dtype is not dtype and {record.dtype, dtype} != {DType.UINT8, DType.BOOL}:
        raise LoadError(f"{ref.file.path}: the record at offset {ref.offset} is {record.dtype.mil}, not {dtype.mil}")
    return unpack(ref.file.data(record), dtype, count)


def _unpack_bits(data: bytes | memoryview, dtype: DType, count: int) -> np.ndarray[Any, Any]:
    if len(data) * 8 < count * dtype.bits:
        raise LoadError(f"{count} elements of {dtype.mil} need more than the {len(data)} bytes there are")
    used = -(-count * dtype.bits // 8)
    bits = np.unpackbits(np.frombuffer(data, np.uint8, used), bitorder="little")[: count * dtype.bits]
    # count x bits becomes count x 8: each element's bits, then zeros, in a byte of its own.
    wide = np.zeros((count, 8), np.uint8)
    wide[:, : dtype.bits] = bits.reshape(count, dtype.bits)
    flat = np.packbits(wide, axis=1, bitorder="little").reshape(count)
    if dtype is DType.INT4:
        # Sign extension: flipping bit 3 and subtracting 8 maps 0..15 to 0..7, -8..-1.
        return ((flat ^ 8).astype(np.int8) - 8).astype(np.int8)
    return flat


def _numpy(dtype: DType) -> np.dtype[Any]:
    # numpy has no bf16 and no 8-bit floats: their values are held as float32.
    return np.dtype(dtype.numpy_name or "float32").newbyteorder("<")


def _stored(dtype: DType) -> np.dtype[Any]:
    stored: np.dtype[Any] = _STORED.get(dtype) or _numpy(dtype)
    return stored
