"""Values that a PyTorch file does not store plainly: quantized tensors, conjugate and negative views, numpy arrays.

Importing this module imports numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.formats.torch.objects import Array, Quantized, View
from tlkit.formats.torch.pickle_machine import LongBytes, LongText

Values = Callable[[View], NDArray[Any]]
"""Gives the stored values of a view."""


def array_bytes(array: Array, pickle: memoryview) -> memoryview:
    """Return a numpy array's bytes; ``pickle`` is what it was read from."""
    data = array.data
    if isinstance(data, LongBytes | LongText):
        run = pickle[data.start : data.start + data.length]
        encoded = isinstance(data, LongText) and data.encoded
        # Each character is a byte (latin-1), written in UTF-8.
        found = memoryview(str(run, "utf-8").encode("latin-1")) if encoded else run
    else:
        found = memoryview(data.encode("latin-1") if isinstance(data, str) else bytes(data))
    if found.nbytes != array.nbytes:
        raise ValueError(f"an array should have {array.nbytes:,} bytes and has {found.nbytes:,}")
    return found


def marked(view: View, stored: NDArray[Any]) -> NDArray[Any]:
    """Return the values of a view marked as conjugate or negative."""
    found = np.conj(stored) if view.conj else stored
    return np.negative(found) if view.neg else found


def dequantize(tensor: Quantized, values: Values) -> NDArray[np.float32]:
    """Return a quantized tensor's values as PyTorch's ``dequantize()`` computes them, in f32."""
    stored = values(tensor.view)
    scale, zero = (_numbers(part, tensor, values) for part in (tensor.scale, tensor.zero))
    if zero.dtype.kind == "f":  # per_channel_affine_float_qparams: the zero is not a whole number
        return (stored.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)
    if tensor.axis is not None:  # by channel PyTorch multiplies in f64 and rounds once
        return ((stored.astype(np.int64) - zero.astype(np.int64)) * scale.astype(np.float64)).astype(np.float32)
    return ((stored.astype(np.int64) - zero.astype(np.int64)).astype(np.float32) * scale.astype(np.float32)).astype(
        np.float32
    )


def _numbers(part: Any, tensor: Quantized, values: Values) -> NDArray[Any]:
    """Return one number, or one per channel, aligned with the channels' axis."""
    found = np.asarray(values(part) if isinstance(part, View) else part)
    if tensor.axis is None:
        return found
    shape = [1] * len(tensor.view.shape)
    shape[tensor.axis] = -1
    return found.reshape(shape)
