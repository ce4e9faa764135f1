"""MIL's types: the one table of element types with their names, widths and numbers, and the types built from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from tlkit.errors import LoadError


class DType(Enum):
    """An element type: MIL's name, its width in bits and the numpy type that holds it (None: no such type).

    ``number`` is the type's number in MIL.proto's ``DataType``, ``array_number`` in FeatureTypes.proto's
    ``ArrayDataType`` (a model's ports), ``blob_number`` in a weight file's records; 0 where the type does not occur
    there.
    """

    # Array numbers are 0x10000 for floats or 0x20000 for integers, plus the width: 65552 is 0x10010.
    BOOL = ("bool", 8, "bool", 1)
    STRING = ("string", 0, None, 2)
    FP16 = ("fp16", 16, "float16", 10, 65552, 1)
    FP32 = ("fp32", 32, "float32", 11, 65568, 2)
    FP64 = ("fp64", 64, "float64", 12, 65600)
    BF16 = ("bf16", 16, None, 13, 0, 5)
    FP8E4M3FN = ("fp8e4m3fn", 8, None, 40, 0, 16)
    FP8E5M2 = ("fp8e5m2", 8, None, 41, 0, 17)
    INT4 = ("int4", 4, "int8", 25, 0, 8)
    INT8 = ("int8", 8, "int8", 21, 131080, 4)
    INT16 = ("int16", 16, "int16", 22, 0, 6)
    INT32 = ("int32", 32, "int32", 23, 131104, 14)
    INT64 = ("int64", 64, "int64", 24)
    # Numbered in the order in which MIL.proto got them, not by width.
    UINT1 = ("uint1", 1, "uint8", 37, 0, 9)
    UINT2 = ("uint2", 2, "uint8", 36, 0, 10)
    UINT3 = ("uint3", 3, "uint8", 39, 0, 12)
    UINT4 = ("uint4", 4, "uint8", 35, 0, 11)
    UINT6 = ("uint6", 6, "uint8", 38, 0, 13)
    UINT8 = ("uint8", 8, "uint8", 31, 0, 3)
    UINT16 = ("uint16", 16, "uint16", 32, 0, 7)
    UINT32 = ("uint32", 32, "uint32", 33, 0, 15)
    UINT64 = ("uint64", 64, "uint64", 34)

    def __init__(
        self, mil: str, bits: int, numpy_name: str | None, number: int, array_number: int = 0, blob_number: int = 0
    ) -> None:
        self.mil = mil
        self.bits = bits
        self.numpy_name = numpy_name
        self.number = number
        self.array_number = array_number
        self.blob_number = blob_number
        self.is_float = mil.startswith(("fp", "bf"))
        """Whether it is a floating-point type."""

    __hash__ = object.__hash__  # Enum's own is Python's, and types are looked up all the time

    @property
    def carrier(self) -> str:
        """The type, by the name that numpy and PyTorch share, in which values are computed: fp16 values in float32."""
        if self.is_float:
            return "float64" if self is DType.FP64 else "float32"
        # PyTorch has the three wider unsigned types too, but few of the operations on them.
        return {"uint16": "int32", "uint32": "int64", "uint64": "int64"}.get(self.mil, self.numpy_name or "")

    @property
    def numpy_like(self) -> str:
        """The name that ports and numpy use: ``float16`` for ``fp16``; MIL's own where numpy has no such type."""
        return self.numpy_name if self.numpy_name and self.bits >= 8 else self.mil

    @classmethod
    def named(cls, mil: str) -> DType:
        """Return the type that MIL calls ``mil`` (``"fp16"``; ``"float16"`` is understood too)."""
        found = _BY_NAME.get(mil)
        if found is None:
            raise LoadError(f"unknown MIL element type '{mil}'")
        return found


_BY_NAME = {t.mil: t for t in DType} | {t.name.lower(): t for t in DType}
_BY_NAME |= {"float16": DType.FP16, "float32": DType.FP32, "float64": DType.FP64, "double": DType.FP64}
BY_NUMBER: Mapping[int, DType] = {dtype.number: dtype for dtype in DType}
"""The element types by their number in MIL.proto."""

BY_ARRAY_NUMBER: Mapping[int, DType] = {dtype.array_number: dtype for dtype in DType if dtype.array_number}
"""The element types that ports have, by their number in FeatureTypes.proto."""

BY_BLOB_NUMBER: Mapping[int, DType] = {dtype.blob_number: dtype for dtype in DType if dtype.blob_number}
"""The element types that a weight file's records have, by their number there (``BlobDataType``)."""

SMALL: Mapping[DType, str] = {DType.FP8E4M3FN: "F8_E4M3", DType.FP8E5M2: "F8_E5M2"}
"""The floats of 8 bits and fewer, by their name in :mod:`tlkit.mil.small_floats`."""

Dim: TypeAlias = int | None


@dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor: element type and shape; rank 0 is a scalar, and ``None`` as the shape means unknown rank.

    ``attributes`` are pairs of a name and a :class:`~tlkit.mil.program.Value`; no known writer uses them. ``variadic``
    lists the open axes that stand for any number of dimensions; no known writer uses them either.
    """

    dtype: DType
    shape: tuple[Dim, ...] | None = ()
    attributes: tuple[tuple[str, Any], ...] = ()
    variadic: tuple[int, ...] = ()

    @property
    def size(self) -> int | None:
        """The number of elements, or None where a dimension is open."""
        if self.shape is None:
            return None
        known = [d for d in self.shape if d is not None]
        return math.prod(known) if len(known) == len(self.shape) else None


@dataclass(frozen=True, slots=True)
class ListType:
    """A list of tensors of one type; ``length`` is None where it grows, and may be ``variadic`` then."""

    element: Type
    length: Dim = None
    variadic: bool = False


@dataclass(frozen=True, slots=True)
class TupleType:
    """A tuple, with one type per element."""

    elements: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class DictType:
    """A dictionary (a classifier's probabilities)."""

    key: Type
    value: Type


@dataclass(frozen=True, slots=True)
class StateType:
    """A state (iOS18): a tensor that outlives the call."""

    wrapped: TensorType


Type: TypeAlias = TensorType | ListType | TupleType | DictType | StateType
