"""Encode values to stored bytes, the inverse of :mod:`tlkit.formats.base.arrays`, and count what is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.formats.base.arrays import NUMPY
from tlkit.formats.base.dtypes import PACKED, PLAIN, QUANTIZED
from tlkit.formats.gguf.quants import DEQUANTIZABLE, dequantize, quantize

_SCALE = 65504.0  # f16's largest number
_TINY = 2.0**-12  # what a scale in f16's smallest steps can still tell from zero, with 4,096 codes (Q6_K's)
_GROUPS = {"NVFP4": (16, 2.0**-7)}  # elements that have a scale of their own, and what that can tell from zero

FLOATS = frozenset(name for name in PLAIN | PACKED if name.startswith(("F", "BF")))
"""The stored types of real numbers, except block types."""


@dataclass
class Losses:
    """Counts of elements: finite values that became infinite, others that became zero, NaN or infinity in blocks.

    ``not_finite`` counts NaN and infinity in block types, which cannot hold them: the rest of such a block is
    meaningless, too. ``out_of_range`` counts integers that their new type cannot hold.
    """

    overflow: int = 0
    underflow: int = 0
    not_finite: int = 0
    out_of_range: int = 0

    def __bool__(self) -> bool:
        return bool(self.overflow or self.underflow or self.not_finite or self.out_of_range)


def is_float(dtype: str) -> bool:
    """Whether the stored type ``dtype`` holds real numbers."""
    return dtype in FLOATS or dtype in QUANTIZED


def encode(
    values: NDArray[Any], dtype: str, losses: Losses, importance: NDArray[np.float32] | None = None
) -> NDArray[Any]:
    """Return ``values``, flat, as the contiguous bytes (of any item size) of stored type ``dtype``; count the losses.

    ``dtype`` is one of numpy's (by SafeTensors' name), BF16, or a block type that can be written, for a whole number
    of blocks (``importance``: of rows, with a weight for each column).
    """
    with np.errstate(all="ignore"):
        if dtype in QUANTIZED:
            losses.not_finite += values.size - int(np.count_nonzero(np.isfinite(values)))
            narrow = _narrow(values, np.dtype(np.float32), losses)
            blocks = quantize(narrow, dtype, importance)
            _count_scales(narrow, blocks, dtype, losses)
            return blocks
        if dtype == "BF16":
            return _bf16(_narrow(values, np.dtype(np.float32), losses), losses)
        return _narrow(values, np.dtype(NUMPY[dtype]).newbyteorder("<"), losses)


def _count_scales(values: NDArray[np.float32], blocks: NDArray[np.uint8], dtype: str, losses: Losses) -> None:
    """Count values lost because their scale, an f16 or less, overflowed (infinite) or underflowed (all zero)."""
    elements = values.size // max(len(blocks), 1)
    each, tiny = _GROUPS.get(dtype, (elements, _TINY))
    rows = values.reshape(-1, max(each, 1))
    largest = np.abs(rows).max(-1, initial=0)
    # Only blocks with extreme values can lose their scale: decoding those few is cheap.
    odd = np.flatnonzero(np.isfinite(largest) & ((largest > _SCALE) | ((largest > 0) & (largest < tiny))))
    if odd.size and dtype in DEQUANTIZABLE:
        chosen, place = np.divmod(odd, elements // each)
        found = dequantize(memoryview(blocks[chosen].tobytes()), dtype, (odd.size, elements // each, each))
        found = found[np.arange(odd.size), place]
        losses.overflow += int(np.count_nonzero(~np.isfinite(found)))
        gone = ~found.any(-1)
        losses.underflow += int(np.count_nonzero(rows[odd[gone]]))


def _narrow(values: NDArray[Any], goal: np.dtype[Any], losses: Losses) -> NDArray[Any]:
    found = np.ascontiguousarray(values.astype(goal, copy=False))
    # Nothing can be lost, so nothing needs counting.
    if np.can_cast(values.dtype, goal, "safe"):
        return found
    if goal.kind == "f":
        _count(values, found, losses)
    else:
        losses.out_of_range += int(np.count_nonzero(found != values))
    return found


def _count(values: NDArray[Any], found: NDArray[Any], losses: Losses) -> None:
    infinite = int(np.count_nonzero(np.isinf(found)))
    if infinite:
        losses.overflow += infinite - int(np.count_nonzero(np.isinf(values)))
    losses.underflow += int(np.count_nonzero(values)) - int(np.count_nonzero(found))


def _bf16(values: NDArray[np.float32], losses: Losses) -> NDArray[np.uint16]:
    """Round to nearest, ties to even; a NaN stays one, made quiet."""
    bits = values.view(np.uint32)
    # Half a unit of the last bit kept, less one where that bit is 0: ties go to even.
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    nan = np.isnan(values)
    if nan.any():
        # A NaN whose payload is only in the lower half would become infinity; bit 6 makes it a quiet NaN.
        rounded[nan] = (bits[nan] >> np.uint32(16)) | np.uint32(0x40)
    found = rounded.astype("<u2")
    # 0x7F80 is infinity; 0x7FFF leaves out the sign.
    losses.overflow += int(np.count_nonzero((found & 0x7FFF) == 0x7F80)) - int(np.count_nonzero(np.isinf(values)))
    losses.underflow += int(np.count_nonzero(values)) - int(np.count_nonzero(found & 0x7FFF))
    return found
