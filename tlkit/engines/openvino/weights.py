"""Constants of a graph: dense ones, and blocks as codes, scales and minima, which products decompress."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.engines.openvino.arena import Arena
from tlkit.engines.openvino.library import openvino, ov
from tlkit.mil.blob import BlobRef, Deferred
from tlkit.mil.program import TensorType, Value
from tlkit.mil.types import DType

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TYPES = {
    DType.INT8: openvino.Type.i8,
    DType.UINT8: openvino.Type.u8,
    DType.INT4: openvino.Type.i4,
    DType.UINT4: openvino.Type.u4,
    DType.FP16: openvino.Type.f16,
    DType.FP32: openvino.Type.f32,
}


class GraphWeights:
    """Makes constants, and holds their memory: OpenVINO refers to it and does not own it."""

    def __init__(self) -> None:
        self._held: list[NDArray[Any]] = []
        self._arena = Arena()

    def release(self) -> None:
        """Give the memory of large constants back to the system, which reads them again if they are asked for."""
        self._arena.release()

    def dense(self, value: Value) -> Any:
        """Return a constant with its values as they are."""
        if not isinstance(value.data, Deferred):
            values: NDArray[Any] = value.numpy()
            # OpenVINO before 2026 makes no tensor of an array without axes.
            large = values.dtype == np.float32 and values.ndim
            return self._wrapped(self._moved(values)) if large else ov.constant(values)
        return self._wrapped(self._filled(value), _TYPES[_kind(value).dtype], _shape(value))

    def widened(self, value: Value) -> Any:
        """Return an f16 constant as f32; OpenVINO keeps it as f16 where it multiplies with it."""
        made = ov.convert(self._wrapped(self._filled(value), openvino.Type.f16, _shape(value)), openvino.Type.f32)
        made.get_rt_info()["decompression_0"] = ""
        return made

    def blocks(self, codes: Value, scales: Value, minima: Value | None) -> Any:
        """Return scale * code, or scale * code - minimum, as OpenVINO knows it: (code - minimum / scale) * scale.

        The quotient is rounded to f32, which is 1e-7 of a block's largest weight; codes and scales are exact.
        """
        shape = _shape(codes)
        narrow = _shape(scales)
        size = shape[-1] // narrow[-1]
        apart, thin = [*shape[:-1], narrow[-1], size], [*narrow, 1]
        memory, scale = self._filled(codes), self._array(scales)
        zero = None if minima is None else _quotient(memory, scale, self._array(minima))
        made = ov.convert(self._wrapped(memory, _TYPES[_kind(codes).dtype], apart), openvino.Type.f32)
        made = made if zero is None else ov.subtract(made, self._wrapped(self._moved(zero.reshape(thin))))
        made = ov.multiply(made, self._wrapped(self._moved(scale.reshape(thin))))
        return ov.reshape(made, ov.constant(np.array(shape, np.int64)), False)

    def _array(self, value: Value) -> NDArray[np.float32]:
        return np.array(value.numpy(), np.float32)

    def _filled(self, value: Value) -> NDArray[np.uint8]:
        """Return a large constant's bytes."""
        kind = _kind(value)
        count = math.prod(_shape(value)) * kind.dtype.bits // 8
        memory = self._arena.room(count)
        start = 0
        for piece in _pieces(value):
            part = np.frombuffer(piece, np.uint8)
            memory[start : start + len(part)] = part
            start += len(part)
        # What was written is in the file; the more of it stays in memory, the higher the peak.
        self._arena.release()
        return memory

    def _moved(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return values in memory of the arena."""
        found = self._arena.room(values.nbytes).view(np.float32).reshape(values.shape)
        found[...] = values
        return found

    def _wrapped(
        self, memory: NDArray[Any], kind: openvino.Type = openvino.Type.f32, shape: list[int] | None = None
    ) -> Any:
        self._held.append(memory)
        return ov.constant(openvino.Tensor(memory, shape or list(memory.shape), kind), shared_memory=True)


def _quotient(codes: NDArray[np.uint8], scale: NDArray[Any], least: NDArray[Any]) -> NDArray[np.float32]:
    """Return minimum / scale; blocks without a scale, which are their minimum, are written as (0 - 1) * minimum."""
    with np.errstate(all="ignore"):
        zero: NDArray[np.float32] = np.asarray(least / scale, np.float32)
    flat = ~np.isfinite(zero)
    codes.reshape(scale.size, -1)[flat.reshape(-1)] = 0
    zero[flat], scale[flat] = 1, least[flat]
    return zero


def _pieces(value: Value) -> Iterable[bytes | memoryview]:
    """Return a constant's bytes, packed as in a file."""
    if isinstance(value.data, Deferred):
        return value.data.pieces()
    if isinstance(value.data, BlobRef) and value.data.file is not None:
        return value.data.file.pieces(value.data.file.record(value.data.offset))
    if isinstance(value.data, bytes):
        return [value.data]
    whole = value.numpy().reshape(-1)
    return [(whole[0::2] & 15 | whole[1::2] << 4).tobytes() if _kind(value).dtype.bits == 4 else whole.tobytes()]


def _shape(value: Value) -> list[int]:
    return [length or 0 for length in _kind(value).shape or ()]


def _kind(value: Value) -> TensorType:
    assert isinstance(value.type, TensorType)  # a weight is a tensor
    return value.type
