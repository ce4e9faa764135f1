"""The Neural Engine's sums (row P4) by a Triton kernel, on CUDA.

As in ``compiled.py``: adding a product to a number whose last bit is one step rounds it, bits are added as whole
numbers, and one factor is moved away from 0 by f32's last bit so that ties go away from zero. Products of 32 and more
are whole numbers of steps.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tlkit.mil.ops.kit.registry import Tensor
from tlkit.mil.units.accumulators import finite

_ROWS, _COLUMNS = 32, 64
_STEPS = 65536.0
_QUICK = 32.0  # products below this are rounded by adding them to 192


# Triton reads annotations as its own: those of Python's typing would be globals to it.
@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _exponent(x):  # type: ignore[no-untyped-def]
    """The power of two of an f16 value, that of a subnormal or 0 being 2^-14."""
    return tl.maximum((x.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True), 6.103515625e-05)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _sums(  # type: ignore[no-untyped-def]
    a, b, steps, rows, columns, depth, a_batch, a_row, a_deep, b_batch, b_deep, b_column,
    large: tl.constexpr, high: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """Add a tile's products, high x wide, to ``steps`` [B, M, N]."""
    batch = tl.program_id(2).to(tl.int64)
    row, column = tl.program_id(0) * high + tl.arange(0, high), tl.program_id(1) * wide + tl.arange(0, wide)
    left = a + batch * a_batch + row.to(tl.int64) * a_row
    right = b + batch * b_batch + column.to(tl.int64) * b_column
    total = tl.zeros((high, wide), dtype=tl.int32)
    for _ in range(depth):
        x = tl.load(left, mask=row < rows, other=0.0)
        y = tl.load(right, mask=column < columns, other=0.0)
        moved = tl.where(y == 0.0, y, (y.to(tl.int32, bitcast=True) + 1).to(tl.float32, bitcast=True))
        near = x[:, None] * moved[None, :] + 192.0
        whole = near.to(tl.int32, bitcast=True) - 0x43400000
        if large:
            product = x[:, None] * y[None, :]
            far = (product * 65536.0).to(tl.int64).to(tl.int32)
            whole = tl.where(tl.abs(product) < 32.0, whole, far)
        kept = _exponent(x)[:, None] * _exponent(y)[None, :] > 7.62939453125e-06
        total += tl.where(kept, whole, 0)
        left += a_deep
        right += b_deep
    place = steps + (batch * rows + row[:, None]) * columns + column[None, :]
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    tl.store(place, tl.load(place, mask=inside, other=0) + total, mask=inside)


def by_triton(a: Tensor, b: Tensor, first: Tensor) -> Tensor:
    """Return a [B, M, K] times b [B, K, N], begun with first [B, 1, N] (multiples of 2^-16), in f64."""
    a, b = finite(a), finite(b)
    (batches, rows, depth), columns = a.shape, b.shape[2]
    steps = (first.to(torch.float64) * _STEPS).to(torch.int64).to(torch.int32).expand(batches, rows, columns)
    steps = steps.clone(memory_format=torch.contiguous_format)
    if steps.numel() and depth:
        large = float(a.abs().amax()) * float(b.abs().amax()) >= _QUICK
        grid = (triton.cdiv(rows, _ROWS), triton.cdiv(columns, _COLUMNS), batches)
        _sums[grid](a, b, steps, rows, columns, depth, *a.stride(), *b.stride(), large, _ROWS, _COLUMNS)
    return steps.to(torch.float64) / _STEPS
