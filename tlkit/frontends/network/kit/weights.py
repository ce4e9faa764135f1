"""A network's weights as MIL constants: decoded when they are first used, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tlkit.errors import LoadError
from tlkit.formats.coreml import legacy
from tlkit.frontends.network.kit.blob import product
from tlkit.mil.program import Deferred, TensorType, Value
from tlkit.mil.types import DType

Array = np.ndarray[Any, Any]


class Decoded(Deferred):
    """A constant that ``make`` computes as f32; ``stored`` are the bytes that the file has of it."""

    __slots__ = ("_make", "_stored")

    def __init__(self, make: Callable[[], Array], stored: int) -> None:
        self._make, self._stored = make, stored

    @property
    def stored(self) -> int:
        """See :class:`~tlkit.mil.program.Deferred`."""
        return self._stored

    def pieces(self) -> Iterator[bytes | memoryview]:
        """See :class:`~tlkit.mil.program.Deferred`."""
        yield np.ascontiguousarray(self._make(), "<f4").reshape(-1).data.cast("B")


class Weights:
    """The constants of one model: those asked for again are the same, also when the program is made again."""

    def __init__(self) -> None:
        self._made: dict[Any, Value] = {}

    def tensor(self, params: Any, shape: Sequence[int], *, axis: int = 0, permuted: Sequence[int] = ()) -> Value:
        """Return a ``WeightParams`` message as an f32 constant; LoadError where it is not as large as ``shape``.

        Scales of quantized values go along ``axis``; ``permuted`` gives the axes in another order.
        """
        return self.joined([params], [shape], axis=axis, permuted=permuted)

    def joined(
        self,
        several: Sequence[Any],
        shapes: Sequence[Sequence[int]],
        *,
        axis: int = 0,
        permuted: Sequence[int] = (),
        plus: Sequence[float] = (),
    ) -> Value:
        """Return several tensors, one below the other, as one constant; ``plus`` is added to each."""
        key = (tuple(map(id, several)), tuple(map(tuple, shapes)), axis, tuple(permuted), tuple(plus))
        if key in self._made:
            return self._made[key]
        for params, shape in zip(several, shapes, strict=True):
            _check(params, tuple(shape))
        parts = [(params, tuple(shape)) for params, shape in zip(several, shapes, strict=True)]

        def make() -> Array:
            arrays = [decoded(params, shape, axis) for params, shape in parts]
            if plus:
                arrays = [array + np.float32(more) for array, more in zip(arrays, plus, strict=True)]
            whole = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
            return whole.transpose(permuted) if permuted else whole

        first = (sum(shape[0] for _, shape in parts), *parts[0][1][1:]) if len(parts) > 1 else parts[0][1]
        shape = tuple(first[place] for place in permuted) if permuted else first
        # Tells the loader's budget how large a constant the file warrants.
        stored = sum(params.ByteSize() for params in several)
        # The messages are kept: a key is their place in memory.
        self._made[key] = Value(TensorType(DType.FP32, shape), Decoded(make, stored))
        return self._made[key]

    def numbers(self, params: Any) -> Array:
        """Return a small ``WeightParams`` message's values, flat, as f32."""
        return np.asarray(legacy.values(params), np.float32)


def zeros(shape: Sequence[int]) -> Value:
    """Return an f32 constant of zeros."""
    count = product(tuple(shape)) or 0
    return Value(TensorType(DType.FP32, tuple(shape)), Decoded(lambda: np.zeros(count, np.float32), 0))


def array_value(array: Array) -> Value:
    """Return an array as an f32 constant."""
    return Value(TensorType(DType.FP32, array.shape), Decoded(lambda: array, array.nbytes))


def decoded(params: Any, shape: tuple[int, ...], axis: int) -> Array:
    """Return a ``WeightParams`` message as an f32 array of ``shape``, its scales along ``axis``."""
    return np.asarray(legacy.values(params, shape, axis), np.float32).reshape(shape)


def _check(params: Any, shape: tuple[int, ...]) -> None:
    count, there = product(shape), legacy.count(params)
    # Below 8 bits the last byte may end with elements that are only padding.
    packed = bool(params.rawValue) and params.quantization.numberOfBits < 8
    if count != there and not (packed and count is not None and count <= there < count + 8):
        raise LoadError(f"a weight of shape {shape} has {there} values", "the file is damaged")
