"""Convert stored bytes to numpy arrays: plain types as views, float types that numpy lacks as float32.

Block types are decoded by their format's reader (:meth:`~tlkit.formats.base.tensors.TensorFile.decode`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tlkit.errors import LoadError, reason
from tlkit.formats.base.dtypes import BLOCKS
from tlkit.formats.base.tensors import TensorEntry, TensorFile
from tlkit.mil.small_floats import values

Array = NDArray[Any]
Order = Literal["<", ">"]
_HELD = 1 << 25  # bytes of mapped file that reading through it may keep resident

NUMPY = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "u2",
    "I16": "i2",
    "U32": "u4",
    "I32": "i4",
    "U64": "u8",
    "I64": "i8",
    "F16": "f2",
    "F32": "f4",
    "F64": "f8",
    "C64": "c8",
    "C128": "c16",
}


def decode(entry: TensorEntry, raw: memoryview) -> Array:
    """Return the values of ``entry`` stored in ``raw``; LoadError for block types, which only their reader decodes."""
    try:
        return _decoded(entry, raw)
    except KeyError:
        raise LoadError(f"{entry.file}: {entry.name}: no values can be read from {entry.dtype}") from None
    except ValueError as error:
        said = f"its bytes do not make up {entry.dtype} values of its shape ({reason(error)})"
        raise LoadError(f"{entry.file}: {entry.name}: {said}", "the file is damaged: fetch it again") from None


def _decoded(entry: TensorEntry, raw: memoryview) -> Array:
    order: Order = ">" if entry.big_endian else "<"
    if entry.dtype in NUMPY:
        flat = np.frombuffer(raw, np.dtype(NUMPY[entry.dtype]).newbyteorder(order))
        return _shaped(entry, flat.astype(flat.dtype.newbyteorder("="), copy=False))
    wide = widen(entry.dtype, np.frombuffer(raw, np.uint8), order)
    # The last byte of an odd number of F4 has one value more.
    return _shaped(entry, wide[: entry.elements] if entry.dtype == "F4" and not entry.strides else wide)


def widen(dtype: str, data: NDArray[np.uint8], order: Order = "<") -> Array:
    """Convert types that numpy lacks to float32 (C32: complex64), flat; KeyError for others."""
    if dtype == "BF16":
        # BF16 is the upper half of an f32.
        return (data.view(f"{order}u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "C32":
        return data.view(f"{order}f2").astype(np.float32).view(np.complex64)
    return _table(dtype)[_codes(dtype, data)]


def _codes(dtype: str, data: NDArray[np.uint8]) -> Array:
    """Unpack codes below a byte, lowest bits first."""
    if dtype == "F4":
        return np.stack([data & 15, data >> 4], axis=-1).ravel()
    if dtype.startswith("F6"):
        # Three bytes hold four codes.
        a, b, c = data.reshape(-1, 3).T
        return np.stack([a & 63, (a >> 6) | ((b & 15) << 2), (b >> 4) | ((c & 3) << 4), c >> 2], axis=-1).ravel()
    return data


@cache
def _table(dtype: str) -> NDArray[np.float32]:
    return np.array(values(dtype), np.float32)


def _shaped(entry: TensorEntry, flat: Array) -> Array:
    if not entry.strides:
        return flat.reshape(entry.shape)
    # numpy counts its strides in bytes.
    steps = tuple(stride * flat.itemsize for stride in entry.strides)
    return np.lib.stride_tricks.as_strided(flat, entry.shape, steps, writeable=False)


def chunks(source: TensorFile, entry: TensorEntry, elements: int = 1 << 16) -> Iterator[Array]:
    """Yield a tensor's values in order, flat, in pieces of about ``elements``; pages are released after reading.

    A tensor that is not contiguous, or is compressed as a whole, comes in one piece.
    """
    if entry.dtype not in BLOCKS or entry.strides or entry.offset is None:
        yield source.array(entry).reshape(-1)
        return
    block, size = BLOCKS[entry.dtype]
    # Whole blocks, so that each piece can be decoded by itself.
    step = max(elements // block, 1)
    raw = source.raw(entry)
    held = 0
    for start in range(0, len(raw), step * size):
        piece = raw[start : start + step * size]
        part = replace(entry, shape=(len(piece) // size * block,), nbytes=len(piece))
        yield source.decode(part, piece)
        held += len(piece)
        if held >= _HELD:
            source.release(entry, start + len(piece))
            held = 0
    source.release(entry, len(raw))
