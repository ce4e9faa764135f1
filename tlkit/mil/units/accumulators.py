"""How units sum products: the Neural Engine in fixed point, an M1's in lanes of four, the CPU in f16, the GPU in f32.

An accumulator multiplies batches of matrices: a [B, M, K] by b [B, K, N], beginning each sum with start [N]. It returns
sums that are not rounded to f16 yet, in f32 or f64, in the order in which the terms stand along K.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from tlkit.mil.ops.kit.registry import Tensor
from tlkit.mil.units.rounding import INF_READ, NAN_READ, away, half_away

STEP = 2.0**-16
"""The step of the Neural Engine's accumulator (row P4)."""
LIMIT = 32768.0
"""A sum that reaches this, at any moment, is infinite and stays so."""
_VANISH = -17  # the sum of two exponents from which down their product is lost
_UNIT = 2.0**16
_TILE = {"cpu": 1 << 15, "cuda": 1 << 26}
"""Products at a time: what a core's cache holds and torch gives to one thread, and what fills a GPU."""
_TIED = 32.0  # products below this have their last bit's step far enough below half a step of the accumulator
_SAMPLE = 256  # outputs by which it is decided whether bounds are worth while
_BOUNDED = 0.5  # of the outputs: with fewer settled by bounds, all are summed exactly at once


class Accumulator(ABC):
    """Sums of products, and a count of those made: ``sums``, and ``exact``, those summed product by product."""

    def __init__(self) -> None:
        self.sums = 0
        self.exact = 0

    def product(self, a: Tensor, b: Tensor, start: Tensor | None = None) -> Tensor:
        """Return a [B, M, K] times b [B, K, N], plus start [N], as the unit sums it: [B, M, N]."""
        made = self._product(a, b, start)
        self.sums += made.numel()
        return made

    @abstractmethod
    def _product(self, a: Tensor, b: Tensor, start: Tensor | None) -> Tensor: ...


class WideSums(Accumulator):
    """Sums in f32, as the executor's own."""

    def _product(self, a: Tensor, b: Tensor, start: Tensor | None) -> Tensor:
        made = torch.matmul(a, b)
        return made if start is None else made + start


class Halves(Accumulator):
    """Sums in f16, one fused product after another, ties to even (row P2)."""

    def _product(self, a: Tensor, b: Tensor, start: Tensor | None) -> Tensor:
        made = torch.empty(a.shape[0], a.shape[1], b.shape[2], dtype=torch.float32, device=a.device)
        first = torch.zeros(b.shape[2], device=a.device) if start is None else start
        self.exact += made.numel()

        def tile(batch: slice, rows: slice) -> None:
            left, right = a[batch, rows].to(torch.float64), b[batch].to(torch.float64)
            total = first.expand(*left.shape[:-1], -1).to(torch.float16)
            for k in range(a.shape[2]):
                total = (total.to(torch.float64) + left[..., k : k + 1] * right[:, k : k + 1]).to(torch.float16)
            made[batch, rows] = total.to(torch.float32)

        _spread(tile, list(_tiles(made, 1)), a)
        return made


class Lanes(Accumulator):
    """An M1's (row P6): four products summed one after another in f16, the groups below 32768; subnormals flushed."""

    def _product(self, a: Tensor, b: Tensor, start: Tensor | None) -> Tensor:
        a, b = _flushed(_finite(a)), _flushed(_finite(b))
        made = torch.empty(a.shape[0], a.shape[1], b.shape[2], dtype=torch.float32, device=a.device)
        first = torch.zeros(b.shape[2], device=a.device) if start is None else start
        self.exact += made.numel()

        def tile(batch: slice, rows: slice) -> None:
            left, right = a[batch, rows].to(torch.float64), b[batch].to(torch.float64)
            total = first.expand(*left.shape[:-1], -1).to(torch.float64)
            over = torch.zeros_like(total)
            for k in range(0, a.shape[2], 4):
                lane = torch.zeros_like(total, dtype=torch.float16)
                for i in range(k, min(k + 4, a.shape[2])):
                    product = _flushed(left[..., i : i + 1] * right[:, i : i + 1])
                    lane = (lane.to(torch.float64) + product).to(torch.float16)
                total = total + lane.to(torch.float64)
                over = torch.where((over == 0) & (total.abs() >= LIMIT), total.sign(), over)
            made[batch, rows] = torch.where(over != 0, over * torch.inf, total).to(torch.float32)

        _spread(tile, list(_tiles(made, 1)), a)
        return made


class FixedPoint(Accumulator):
    """The Neural Engine's from the M4 on (row P4): products rounded to steps of 2^-16, ties away from zero, and lost
    where their exponents add to -17 or less; sums of 32768 and more infinite for good.

    ``screen`` looks first where that cannot matter: where products need no rounding, and where a wide sum with bounds
    around it rounds to one f16 value. Results are the same bits either way.
    """

    def __init__(self, screen: bool = True) -> None:
        super().__init__()
        self._screen = screen

    def _product(self, a: Tensor, b: Tensor, start: Tensor | None) -> Tensor:
        a, b = _finite(a), _finite(b)
        first = _rounded(start) if start is not None else torch.zeros(b.shape[2], device=a.device)
        # No partial sum is larger than the sum of the magnitudes, each rounded up by at most half a step.
        most = torch.matmul(a.abs(), b.abs()) * (1 + 1e-5) + (first.abs() + (a.shape[2] + 1) * STEP)
        narrow = bool((most < 256).all())  # sums of fewer than 2^24 steps are exact in f32
        made = self._screened(a, b, first, narrow) if self._screen else None
        if made is None:
            made = self._whole(a, b, first, narrow)
            self.exact += made.numel()
        risky = most >= LIMIT
        if bool(risky.any()):
            self._in_order(made, a, b, first, risky)
        return made

    def _whole(self, a: Tensor, b: Tensor, first: Tensor, narrow: bool) -> Tensor:
        """Every sum product by product, without a look at the limit."""
        made = torch.empty(a.shape[0], a.shape[1], b.shape[2], dtype=torch.float64, device=a.device)
        if not made.numel() or not a.shape[2]:
            return made.zero_() + first.to(torch.float64)
        scaled, near = a * _UNIT, float(a.abs().max()) * float(b.abs().max()) < _TIED
        # Moved away from 0 by f32's last bit: then ties, and they only, are rounded away from zero.
        right = torch.where(b == 0, b, torch.nextafter(b, b.sign() * torch.inf)) if near else b
        sizes = _exponent(a), _exponent(b)
        powers = sizes if float(sizes[0].min()) * float(sizes[1].min()) <= 2.0**_VANISH else None
        kind = torch.float32 if narrow else torch.float64

        def tile(batch: slice, rows: slice) -> None:
            total = torch.zeros(*made[batch, rows].shape, dtype=kind, device=a.device)
            deep = max(1, _TILE[_place(a)] // max(1, total.numel()))
            left = scaled[batch, rows].mT.contiguous().unsqueeze(-1)
            mine = powers[0][batch, rows].mT.contiguous().unsqueeze(-1) if powers else None
            for k in range(0, a.shape[2], deep):
                part = slice(k, k + deep)
                terms = left[:, part] * right[batch, part].unsqueeze(-2)
                if near:
                    terms.round_()
                else:
                    terms.add_(torch.copysign(_HALF.to(a.device), terms)).trunc_()
                if powers is not None and mine is not None:
                    power = mine[:, part] * powers[1][batch, part].unsqueeze(-2)
                    terms.mul_(torch.gt(power, 2.0**_VANISH, out=power))
                total += terms.sum(-3, dtype=kind)
            made[batch, rows] = total.to(torch.float64) * STEP

        _spread(tile, list(_tiles(made, min(a.shape[2], 16))), a)
        return made + first.to(torch.float64)

    def _in_order(self, made: Tensor, a: Tensor, b: Tensor, first: Tensor, risky: Tensor) -> None:
        """Sum again, term by term, where the limit may be reached on the way."""
        places = risky.nonzero()
        most = max(1, _TILE[_place(a)] // max(1, a.shape[2]))
        for i in range(0, len(places), most):
            batch, row, column = places[i : i + most].unbind(1)
            terms = _terms(a[batch, row], b[batch, :, column])
            sums = terms.cumsum(1) + first[column].to(torch.float64).unsqueeze(1)
            sums = torch.cat([first[column].to(torch.float64).unsqueeze(1), sums], 1)
            reached = sums.abs() >= LIMIT
            at = reached.to(torch.int8).argmax(1, keepdim=True)
            endless = sums.gather(1, at).squeeze(1).sign() * torch.inf
            made[batch, row, column] = torch.where(reached.any(1), endless, sums[:, -1])

    def _screened(self, a: Tensor, b: Tensor, first: Tensor, narrow: bool) -> Tensor | None:
        """Sums that need no look at single products; None where too few are so."""
        kind = torch.float32 if narrow else torch.float64
        if _last_bit(a) * _last_bit(b) >= STEP:
            # Every product is a whole number of steps: nothing is rounded, and nothing vanishes.
            return torch.matmul(a.to(kind), b.to(kind)).to(torch.float64) + first.to(torch.float64)
        lossy = bool((_exponent(a).min() * _exponent(b).min() <= 2.0**_VANISH).item())
        # A product is off by half a step, or, where it vanishes, by less than 2^-15.
        around = a.shape[2] * (2.0**-15 if lossy else STEP / 2)
        columns = slice(0, max(1, _SAMPLE // max(1, min(a.shape[1], 16))))
        tried = _settled(a[:1, :16], b[:1, :, columns], first[columns], around)[1]
        if float(tried.to(torch.float32).mean()) < _BOUNDED:
            return None
        made, settled = _settled(a, b, first, around)
        places = (~settled).nonzero()
        most = max(1, _TILE[_place(a)] // max(1, a.shape[2]))
        self.exact += len(places)
        for i in range(0, len(places), most):
            batch, row, column = places[i : i + most].unbind(1)
            summed = _terms(a[batch, row], b[batch, :, column]).sum(1)
            made[batch, row, column] = summed + first[column].to(torch.float64)
        return made


_HALF = torch.tensor(0.5)


def _spread(run: Callable[[slice, slice], None], tiles: Sequence[tuple[slice, slice]], like: Tensor) -> None:
    """Run tiles side by side, each on one thread: they are too small for torch to share out."""
    threads = min(torch.get_num_threads(), len(tiles))
    if like.is_cuda or threads < 2:
        for item in tiles:
            run(*item)
        return
    inference = torch.is_inference_mode_enabled()

    def one(item: tuple[slice, slice]) -> None:
        with torch.inference_mode(inference):  # a thread's own setting
            run(*item)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, tiles))  # which raises what a tile raised


def _settled(a: Tensor, b: Tensor, first: Tensor, around: float) -> tuple[Tensor, Tensor]:
    """WideSums sums, and which of them round to the same f16 wherever within ``around`` the true one is."""
    wide = torch.matmul(a.to(torch.float64), b.to(torch.float64)) + first.to(torch.float64)
    low, high = away(wide - around), away(wide + around)
    # Moved to the value that all of them round to: the sums themselves are not known.
    return torch.where(low == high, low.to(torch.float64), wide), low == high


def _terms(a: Tensor, b: Tensor) -> Tensor:
    """The products along the last axis as the Neural Engine rounds them, in f64."""
    terms = half_away(a.to(torch.float64) * b.to(torch.float64) * _UNIT) * STEP
    return torch.where(_exponent(a) * _exponent(b) <= 2.0**_VANISH, 0.0, terms)


def _rounded(start: Tensor) -> Tensor:
    """A bias in the accumulator's steps."""
    return (half_away(_finite(start).to(torch.float64) * _UNIT) * STEP).to(torch.float32)


def _finite(x: Tensor) -> Tensor:
    """Infinities and NaNs as the accumulator reads them (row P5)."""
    return torch.nan_to_num(x.to(torch.float32), nan=NAN_READ, posinf=INF_READ, neginf=-INF_READ)


def _exponent(x: Tensor) -> Tensor:
    """The power of two of each f16 value, that of a subnormal or 0 being 2^-14."""
    return (x.contiguous().view(torch.int32) & 0x7F800000).view(torch.float32).clamp(min=2.0**-14)


def _last_bit(x: Tensor) -> float:
    """The least power of two of which all values are multiples, down to f16's least."""
    if not x.numel():
        return 1.0
    # A whole number of steps of 2^-24, whose lowest set bit is the value's.
    whole = (x.to(torch.float64) * 2.0**24).to(torch.int64)
    lowest = torch.where(whole == 0, 1 << 40, whole & -whole)
    return float(lowest.min()) / 2.0**24


def _flushed(x: Tensor) -> Tensor:
    """Zero for what f16 holds as a subnormal."""
    return torch.where(x.abs() < 2.0**-14, 0.0, x)


def _place(x: Tensor) -> str:
    return "cuda" if x.is_cuda else "cpu"


def _tiles(made: Tensor, depth: int) -> Iterator[tuple[slice, slice]]:
    """Slices of batches and rows in which ``depth`` products for each sum are a tile."""
    batches, rows, columns = made.shape
    most = max(1, _TILE[_place(made)] // max(1, depth * columns))
    height = min(rows, most)
    several = max(1, most // max(1, height)) if height == rows else 1
    for i in range(0, batches, several):
        for j in range(0, rows, max(1, height)):
            yield slice(i, i + several), slice(j, j + max(1, height))
