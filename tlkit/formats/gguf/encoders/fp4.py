"""NVFP4 written: 4-bit floats in groups of 16, each under an unsigned 8-bit float (E4M3).

The formulas are those of ``quantize_row_nvfp4_ref`` and ``ggml_fp32_to_ue4m3`` in ggml.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from tlkit.formats.gguf.encoders.fits import Bytes, F, Floats
from tlkit.mil.small_floats import SMALL_FLOATS, values

FP4 = np.array([2 * value + 0.0 for value in values("F4")], np.float32)
"""What codes of 4 bits stand for, doubled; ggml's has no -0."""


@cache
def e4m3_halves() -> Floats:
    """Return half the value of each unsigned E4M3 byte; as ggml does, the sign bit is ignored and 0x7F is 0."""
    kind = SMALL_FLOATS["F8_E4M3"]
    return np.array([0 if code == 0x7F else kind.number(code & 0x7F) / 2 for code in range(256)], np.float32)


def nvfp4(given: Floats) -> Bytes:
    """Return blocks [count, 36] of values [count, 64]."""
    groups = given.reshape(-1, 16)
    size = np.abs(groups)
    scales = _e4m3(size.max(axis=1) / F(6))
    step = np.take(e4m3_halves(), scales)[:, None]
    codes, best = np.zeros(groups.shape, np.uint8), size
    for code in range(1, 8):  # of two that are as near, the first
        apart = np.abs(FP4[code] * step - size)
        better = apart < best
        codes, best = np.where(better, np.uint8(code), codes), np.where(better, apart, best)
    codes |= ((groups < 0) & (codes > 0)).view(np.uint8) << 3
    packed = codes[:, :8] | codes[:, 8:] << 4
    return np.concatenate([scales.reshape(-1, 4), packed.reshape(-1, 32)], axis=1)


def _e4m3(numbers: Floats) -> NDArray[np.uint8]:
    """Return the bytes of numbers that are not negative: halves are rounded up, and from 256 on all are the largest."""
    bits = np.minimum(numbers, F(448)).view(np.uint32).astype(np.int32)
    power = (bits >> 23) - 120
    # A mantissa that is rounded up beyond its three bits counts the power up.
    normal = (power << 3 | bits >> 20 & 7) + (bits >> 19 & 1)
    small = np.minimum(np.minimum(numbers, F(1)) * F(512) + F(0.5), F(7)).astype(np.int32)
    return np.where(power <= 0, small, np.where(normal >= 0x78, 0x7E, normal)).astype(np.uint8)
