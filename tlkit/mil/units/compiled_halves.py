"""The CPU's sums (row P2) by a loop that numba compiles: a product is added, and the sum rounded to f16, ties to even.

Rounding is done on f64's bits: torch's operations that round an f64 once take five times as long as its conversion,
which rounds twice.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch

from tlkit.mil.ops.kit.registry import Tensor
from tlkit.mil.units.compiled_rounding import bits64, compiled, number64

_CUT = np.int64((1 << 42) - 1)  # of f64's 52 bits f16 keeps 10
_HALF = np.int64((1 << 41) - 1)
_FINE = 1.5 * 2.0**28  # a number whose last bit in f64 is 2^-24, f16's least
_LEAST, _OVER = 2.0**-14, 65504.0


@compiled
def _even(x: Any) -> Any:
    """The nearest f16, ties to even."""
    word = bits64(x)
    large = number64((word + _HALF + (word >> 42 & 1)) & ~_CUT)
    small = np.copysign((x + _FINE) - _FINE, x)
    near = small if abs(x) < _LEAST else large
    near = np.copysign(np.inf, x) if abs(near) > _OVER else near
    return near if x == x else x


_CUBE = numba.float32[:, :, ::1]


@numba.njit(numba.void(*(_CUBE,) * 4, *(numba.int64,) * 4), nogil=True, cache=True, error_model="numpy")
def half_sums(
    a: Any, b: Any, first: Any, made: Any, batch_from: int, batch_to: int, row_from: int, row_to: int
) -> None:
    """Write rows of a [B, M, K] times b [B, K, N], begun with first [B, 1, N], to made [B, M, N]."""
    for batch in range(batch_from, batch_to):
        total = np.empty(b.shape[2], np.float64)
        for m in range(row_from, row_to):
            for n in range(total.shape[0]):
                total[n] = _even(np.float64(first[batch, 0, n]))
            for k in range(b.shape[1]):
                x, row = np.float64(a[batch, m, k]), b[batch, k]
                for n in range(total.shape[0]):
                    total[n] = _even(total[n] + x * np.float64(row[n]))
            for n in range(total.shape[0]):
                made[batch, m, n] = np.float32(total[n])


def arrays(*tensors: Tensor) -> list[Any]:
    """Tensors as :func:`half_sums` takes them."""
    return [item.to(torch.float32).contiguous().numpy() for item in tensors]
