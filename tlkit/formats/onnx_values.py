"""Values of ONNX tensors that are not stored as plain bytes: numbers in typed fields, and several values per byte.

Importing this module imports numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.errors import LoadError
from tlkit.formats.base.dtypes import PLAIN
from tlkit.formats.base.tensors import TensorEntry
from tlkit.formats.files.wire import Field, varints

_FLOATS = (4, 10)  # float_data and double_data, which complex numbers share
_MASK = (1 << 64) - 1


def packed(data: memoryview, entry: TensorEntry, fields: Iterable[Field], bits: int | None) -> memoryview:
    """Return the bytes of a tensor whose numbers are in int32_data and the like (or one by one in float_data).

    Each number holds an element in its low bits; for types below a byte, it holds a byte of elements.
    """
    width = 1 if bits else PLAIN.get(entry.dtype, 0)
    fields = list(fields)
    if all(number in _FLOATS for number, *_ in fields):  # of f32 or f64, packed or a field for each
        found = b"".join(bytes(data[begin:stop]) for _, _, begin, stop in fields)
    else:
        numbers = np.fromiter((number & _MASK for number in _numbers(data, fields)), np.uint64)
        found = numbers.astype(f"<u{width}").tobytes() if width in (1, 2, 4, 8) else b""
    if len(found) != entry.nbytes:
        raise LoadError(f"{entry.file}: {entry.name}: {len(found):,} bytes of values for {entry.nbytes:,}")
    return memoryview(found)


def _numbers(data: memoryview, fields: Iterable[Field]) -> Iterator[int]:
    for _, wire, begin, stop in fields:
        if wire == 0:
            yield begin
        else:
            yield from varints(data, begin, stop)


def unpacked(raw: memoryview, entry: TensorEntry, bits: int) -> NDArray[Any]:
    """Expand integers of ``bits`` bits, packed with the first in a byte's lowest bits, to one byte each."""
    codes = np.frombuffer(raw, np.uint8)
    parts = [(codes >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    flat = np.stack(parts, axis=-1).reshape(-1)[: entry.elements].reshape(entry.shape)
    if entry.dtype.startswith("U"):
        return flat
    # Two's complement in few bits: turn the sign's bit round, then take off what it stands for.
    return ((flat.astype(np.int8) ^ (1 << (bits - 1))) - (1 << (bits - 1))).astype(np.int8)
