"""How units sum products: the Neural Engine in fixed point, an M1's in lanes of four, the CPU in f16, the GPU in f32.

An accumulator multiplies batches of matrices: a [B, M, K] by b [B, K, N], beginning each sum with start, [N] or [B, N].
It adds in the order in which the terms stand along K, and returns sums in f32 or f64 that round, by its unit's rule, to
the f16 values that the unit makes of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from tlkit.mil.ops.kit.registry import Ints, Tensor
from tlkit.mil.units.rounding import INF_READ, NAN_READ, even, has_numba
from tlkit.mil.units.threads import share_out, threads

LIMIT = 32768.0
"""A sum of the Neural Engine's that reaches this, at any moment, is infinite and stays so (row P4)."""
TILE = {"cpu": 1 << 15, "cuda": 1 << 26}
"""Products at a time: what a core's cache holds and torch gives to one thread, and what fills a GPU."""


class Accumulator(ABC):
    """Sums of products, and a count of those made: ``sums``, and ``exact``, those summed product by product."""

    def __init__(self) -> None:
        self.sums = 0
        self.exact = 0

    def product(self, a: Tensor, b: Tensor, start: Tensor | None = None) -> Tensor:
        """Return a [B, M, K] times b [B, K, N], plus start [N] or [B, N], as the unit sums it: [B, M, N]."""
        first = torch.zeros(b.shape[2], device=a.device) if start is None else start
        made = self._product(a, b, first.reshape(-1, 1, b.shape[2]).expand(a.shape[0], 1, -1))
        self.sums += made.numel()
        return made

    def convolve(
        self, x: Tensor, weight: Tensor, start: Tensor | None, strides: Ints, dilations: Ints, groups: int
    ) -> Tensor | None:
        """Return a convolution without padding, where the unit's sums are made without writing out the windows; else
        None: the caller then asks for their product."""
        return None

    @abstractmethod
    def _product(self, a: Tensor, b: Tensor, first: Tensor) -> Tensor:
        """The sums, begun with ``first`` [B, 1, N]."""


class WideSums(Accumulator):
    """Sums in f32, as the executor's own."""

    def _product(self, a: Tensor, b: Tensor, first: Tensor) -> Tensor:
        return torch.matmul(a, b) + first


class Halves(Accumulator):
    """Sums in f16, one fused product after another, ties to even (row P2)."""

    def _product(self, a: Tensor, b: Tensor, first: Tensor) -> Tensor:
        made = torch.empty(a.shape[0], a.shape[1], b.shape[2], dtype=torch.float32, device=a.device)
        self.exact += made.numel()
        tile = self._compiled(a, b, first, made) if has_numba() and not a.is_cuda else None
        spread(tile or self._by_torch(a, b, first, made), list(tiles(made, a.shape[2] if tile else 1)), a)
        return made

    @staticmethod
    def _compiled(a: Tensor, b: Tensor, first: Tensor, made: Tensor) -> Callable[[slice, slice], None]:
        from tlkit.mil.units.compiled_halves import arrays, half_sums  # late: numba is an extra

        run: Any = half_sums
        given = [*arrays(a, b, first), made.numpy()]
        batches, rows = made.shape[:2]
        return lambda batch, row: run(*given, batch.start, min(batch.stop, batches), row.start, min(row.stop, rows))

    @staticmethod
    def _by_torch(a: Tensor, b: Tensor, first: Tensor, made: Tensor) -> Callable[[slice, slice], None]:
        def tile(batch: slice, rows: slice) -> None:
            left, right = a[batch, rows].to(torch.float64), b[batch].to(torch.float64)
            total = first[batch].expand(*left.shape[:-1], -1).to(torch.float16)
            for k in range(a.shape[2]):
                total = even(total.to(torch.float64) + left[..., k : k + 1] * right[:, k : k + 1])
            made[batch, rows] = total.to(torch.float32)

        return tile


class Lanes(Accumulator):
    """An M1's (row P6): four products summed one after another in f16, the groups below 32768; subnormals flushed."""

    def _product(self, a: Tensor, b: Tensor, first: Tensor) -> Tensor:
        a, b = _flushed(finite(a)), _flushed(finite(b))
        made = torch.empty(a.shape[0], a.shape[1], b.shape[2], dtype=torch.float32, device=a.device)
        self.exact += made.numel()

        def tile(batch: slice, rows: slice) -> None:
            left, right = a[batch, rows].to(torch.float64), b[batch].to(torch.float64)
            total = first[batch].expand(*left.shape[:-1], -1).to(torch.float64)
            over = torch.zeros_like(total)
            for k in range(0, a.shape[2], 4):
                lane = torch.zeros_like(total, dtype=torch.float16)
                for i in range(k, min(k + 4, a.shape[2])):
                    product = _flushed(left[..., i : i + 1] * right[:, i : i + 1])
                    lane = even(lane.to(torch.float64) + product)
                total = total + lane.to(torch.float64)
                over = torch.where((over == 0) & (total.abs() >= LIMIT), total.sign(), over)
            made[batch, rows] = torch.where(over != 0, over * torch.inf, total).to(torch.float32)

        spread(tile, list(tiles(made, 1)), a)
        return made


def spread(run: Callable[..., None], tiles: Sequence[tuple[slice, ...]], like: Tensor) -> None:
    """Run tiles side by side, each on one thread: they are too small for torch to share out."""
    share_out(run, tiles, 1 if like.is_cuda else min(threads(), len(tiles)))


def finite(x: Tensor) -> Tensor:
    """Infinities and NaNs as the accumulator reads them (row P5)."""
    return torch.nan_to_num(x.to(torch.float32), nan=NAN_READ, posinf=INF_READ, neginf=-INF_READ)


def _flushed(x: Tensor) -> Tensor:
    """Zero for what f16 holds as a subnormal."""
    return torch.where(x.abs() < 2.0**-14, 0.0, x)


def tiles(made: Tensor, depth: int) -> Iterator[tuple[slice, slice]]:
    """Slices of batches and rows in which ``depth`` products for each sum are a tile."""
    batches, rows, columns = made.shape
    most = max(1, TILE[made.device.type] // max(1, depth * columns))
    height = min(rows, most)
    several = max(1, most // max(1, height)) if height == rows else 1
    for i in range(0, batches, several):
        for j in range(0, rows, max(1, height)):
            yield slice(i, i + several), slice(j, j + max(1, height))
