"""Rounding to f16 with ties away from zero in one pass that numba compiles, and what its other loops need."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.extending import intrinsic

from tlkit.mil.ops.kit.registry import Tensor


def _reinterpreted(given: Any, made: Any, kind: Any) -> Any:
    """A function for compiled loops: a number's bits as those of another type."""

    @intrinsic  # type: ignore[untyped-decorator, unused-ignore]
    def convert(typing: Any, x: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.bitcast(values[0], kind)

        return made(given), emit

    return convert


bits = _reinterpreted(numba.float32, numba.int32, ir.IntType(32))
number = _reinterpreted(numba.int32, numba.float32, ir.FloatType())
bits64 = _reinterpreted(numba.float64, numba.int64, ir.IntType(64))
number64 = _reinterpreted(numba.int64, numba.float64, ir.DoubleType())
compiled = numba.njit(nogil=True, cache=True, error_model="numpy")
"""Compiles a function of arrays: threads may run it side by side, and the code is kept beside this file."""


@compiled
def _nearest(wide: Any) -> Any:
    """An f64 value's nearest f16, ties away from zero, in f32."""
    half, unit, least, most = np.int64(1) << 41, 2.0**24, 2.0**-14, 65504.0
    # f16 keeps 10 of f64's 52 bits, and below 2^-14 steps of 2^-24.
    large = number64((bits64(wide) + half) & ~(2 * half - 1))
    small = np.copysign(np.floor(abs(wide) * unit + 0.5) / unit, wide)
    near = small if abs(wide) < least else large
    near = np.copysign(np.inf, wide) if abs(near) > most else near
    return np.float32(near if wide == wide else wide)


def _away(x: Any, made: Any) -> None:
    for i in range(x.shape[0]):
        made[i] = _nearest(np.float64(x[i]))


_FLAT = numba.float32[::1]


@numba.njit(numba.void(_FLAT, _FLAT, numba.float32, _FLAT), nogil=True, cache=True)
def _combined(x: Any, y: Any, sign: Any, made: Any) -> None:
    for i in range(x.shape[0]):
        made[i] = _nearest(np.float64(x[i]) + np.float64(sign) * np.float64(y[i]))


_f32 = numba.njit(numba.void(numba.float32[::1], numba.float32[::1]), nogil=True, cache=True)(_away)
_f64 = numba.njit(numba.void(numba.float64[::1], numba.float32[::1]), nogil=True, cache=True)(_away)


def combined(x: Tensor, y: Tensor, sign: float) -> Tensor | None:
    """Return x + sign * y (1 or -1) of f32 values on the CPU, rounded once to f16, ties away from zero, in f32; None
    for tensors that do not lie alike, side by side."""
    if not (x.shape == y.shape and x.is_contiguous() and y.is_contiguous() and x.dtype is y.dtype is torch.float32):
        return None
    made = torch.empty_like(x)
    _combined(x.flatten().numpy(), y.flatten().numpy(), sign, made.flatten().numpy())
    return made


def away(x: Tensor) -> Tensor | None:
    """Round f32 or f64 values on the CPU to f16, carried in f32; None for values that do not lie side by side."""
    made = torch.empty_like(x, dtype=torch.float32)
    if made.stride() != x.stride():
        return None
    given = [torch.as_strided(item, (item.numel(),), (1,)).numpy() for item in (x, made)]
    (_f64 if x.dtype is torch.float64 else _f32)(*given)
    return made
