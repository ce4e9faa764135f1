"""The Neural Engine's accumulator from the M4 on, in fixed point (row P4).

Its sums are made product by product: by loops that numba compiles where that is installed (``compiled.py``), by a
Triton kernel on CUDA (``triton_sums.py``), else by torch, which looks first where single products cannot matter.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import torch

from tlkit.mil.ops.kit.registry import Ints, Tensor
from tlkit.mil.units.accumulators import LIMIT, TILE, Accumulator, finite, spread, tiles
from tlkit.mil.units.rounding import away, half_away, has_numba

STEP = 2.0**-16
"""The step of the accumulator."""
_VANISH = -17  # the sum of two exponents from which down their product is lost
_UNIT = 2.0**16
_TIED = 32.0  # products below this have their last bit's step far enough below half a step of the accumulator
_SAMPLE = 256  # outputs by which it is decided whether bounds are worth while
_BOUNDED = 0.5  # of the outputs: with fewer settled by bounds, all are summed exactly at once
_LOOKED = 64  # rows and columns by which it is decided whether all are asked if they are whole numbers of steps
_ORDERED = 1 << 20  # products at a time that are summed one after another
_UP = 1 + 1e-5  # for f32's own rounding of bounds
_NARROW = 256.0  # sums of fewer than 2^24 steps are exact in f32
_TURNED = 16  # columns of fewer than these are taken for rows, where there are more of those


class FixedPoint(Accumulator):
    """The Neural Engine's from the M4 on (row P4): products rounded to steps of 2^-16, ties away from zero, and lost
    where their exponents add to -17 or less; sums of 32768 and more infinite for good.

    Sums are rounded to f16, ties away from zero. ``screen`` looks first where single products cannot matter: where they
    are whole numbers of steps, and, where nothing quick sums them, where a wide sum with bounds around it rounds to one
    f16 value. Results are the same bits either way.
    """

    def __init__(self, screen: bool = True) -> None:
        super().__init__()
        self._screen = screen

    def convolve(
        self, x: Tensor, weight: Tensor, start: Tensor | None, strides: Ints, dilations: Ints, groups: int
    ) -> Tensor | None:
        """By compiled loops, where no sum can reach the limit."""
        if x.is_cuda or not has_numba() or not x.numel() or not weight.numel():
            return None
        first = _rounded(x.new_zeros(weight.shape[0]) if start is None else start)
        beyond = _largest(first) + (weight[0].numel() + 1) * STEP
        if not _largest(x) * _UP * _row(weight) + beyond < LIMIT:
            return None
        from tlkit.mil.units.compiled import convolved  # late: numba is an extra

        made = convolved(x, weight, first, strides, dilations, groups)
        self.sums += made.numel()
        self.exact += made.numel()
        return made

    def _product(self, a: Tensor, b: Tensor, first: Tensor) -> Tensor:
        first = _rounded(first)
        beyond = float(first.abs().amax()) + (a.shape[2] + 1) * STEP if first.numel() else 0.0
        # No partial sum is larger than the factors' lengths multiplied, each product rounded by at most half a step.
        bound = _longest(a, 2) * _longest(b, 1) * _UP + beyond
        if bound < LIMIT:
            return _once(self._unlimited(a, b, first, bound < _NARROW))
        a, b = finite(a), finite(b)
        most = torch.matmul(a.abs(), b.abs()) * _UP + beyond
        made = self._unlimited(a, b, first, bool((most < _NARROW).all()))
        risky = most >= LIMIT
        if bool(risky.any()):
            self._in_order(made, a, b, first, risky)
        return _once(made)

    def _unlimited(self, a: Tensor, b: Tensor, first: Tensor, narrow: bool) -> Tensor:
        """The sums without a look at the limit."""
        kernel = _kernel(a.device.type)
        made = self._in_whole_steps(a, b, first, narrow) if self._screen else None
        if made is None and self._screen and kernel is None:
            made = self._bounded(a, b, first)
        if made is None:
            made = kernel(a, b, first) if kernel is not None else self._whole(a, b, first, narrow)
            self.exact += made.numel()
        return made

    @staticmethod
    def _in_whole_steps(a: Tensor, b: Tensor, first: Tensor, narrow: bool) -> Tensor | None:
        """The sums where every product is a whole number of steps: nothing is rounded, and nothing vanishes."""
        some = (slice(1), slice(_LOOKED), slice(_LOOKED))
        if _last_bit(a[some]) * _last_bit(b[some]) < STEP or _last_bit(a) * _last_bit(b) < STEP:
            return None
        kind = torch.float32 if narrow else torch.float64
        return torch.matmul(a.to(kind), b.to(kind)).to(torch.float64) + first.to(torch.float64)

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
            deep = max(1, TILE[a.device.type] // max(1, total.numel()))
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

        spread(tile, list(tiles(made, min(a.shape[2], 16))), a)
        return made + first.to(torch.float64)

    @staticmethod
    def _in_order(made: Tensor, a: Tensor, b: Tensor, first: Tensor, risky: Tensor) -> None:
        """Sum again, term by term, where the limit may be reached on the way."""
        places = risky.nonzero()
        most = max(1, _ORDERED // max(1, a.shape[2]))
        for i in range(0, len(places), most):
            batch, row, column = places[i : i + most].unbind(1)
            begin = first[batch, 0, column].to(torch.float64).unsqueeze(1)
            terms = _terms(a[batch, row], b[batch, :, column])
            sums = torch.cat([begin, terms.cumsum(1) + begin], 1)
            reached = sums.abs() >= LIMIT
            at = reached.to(torch.int8).argmax(1, keepdim=True)
            endless = sums.gather(1, at).squeeze(1).sign() * torch.inf
            made[batch, row, column] = torch.where(reached.any(1), endless, away(sums[:, -1])).to(made.dtype)

    def _bounded(self, a: Tensor, b: Tensor, first: Tensor) -> Tensor | None:
        """Sums that need no look at single products, for bounds round to one value; None where too few are so."""
        lossy = bool((_exponent(a).min() * _exponent(b).min() <= 2.0**_VANISH).item())
        # A product is off by half a step, or, where it vanishes, by less than 2^-15.
        around = a.shape[2] * (2.0**-15 if lossy else STEP / 2)
        columns = slice(0, max(1, _SAMPLE // max(1, min(a.shape[1], 16))))
        tried = _settled(a[:1, :16], b[:1, :, columns], first[:1, :, columns], around)[1]
        if float(tried.to(torch.float32).mean()) < _BOUNDED:
            return None
        made, settled = _settled(a, b, first, around)
        places = (~settled).nonzero()
        most = max(1, TILE[a.device.type] // max(1, a.shape[2]))
        self.exact += len(places)
        for i in range(0, len(places), most):
            batch, row, column = places[i : i + most].unbind(1)
            summed = _terms(a[batch, row], b[batch, :, column]).sum(1)
            made[batch, row, column] = summed + first[batch, 0, column].to(torch.float64)
        return made


_HALF = torch.tensor(0.5)
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Makes the sums of a [B, M, K] by b [B, K, N], begun with [B, 1, N], without a look at the limit."""


@functools.cache
def _kernel(device: str) -> Kernel | None:
    """What sums product by product in one pass on this device, where it is installed."""
    if device == "cpu" and has_numba():
        from tlkit.mil.units.compiled import by_numba  # late: numba is an extra

        return by_numba
    if device == "cuda" and importlib.util.find_spec("triton") is not None:
        from tlkit.mil.units.triton_sums import by_triton  # late: triton is there only with CUDA

        return by_triton
    return None


def _once(sums: Tensor) -> Tensor:
    """Sums rounded to f16; those of a kernel are."""
    return away(sums) if sums.dtype is torch.float64 else sums


def _row(weight: Tensor) -> float:
    """Return the largest sum of a row's magnitudes, [O, ...]; what was found of a constant is kept with it."""
    if weight.is_inference():  # made as the function runs
        return float(weight.abs().flatten(1).sum(1, dtype=torch.float64).max())
    known = getattr(weight, "largest_row", None)
    if known is None or known[0] != weight._version:
        known = (weight._version, float(weight.abs().flatten(1).sum(1, dtype=torch.float64).max()))
        weight.largest_row = known  # type: ignore[attr-defined]
    return float(known[1])


def _largest(x: Tensor) -> float:
    """The largest magnitude, or NaN where there is one."""
    low, high = torch.aminmax(x)  # both NaN, where there is one
    return max(-float(low), float(high))


def _longest(x: Tensor, dim: int) -> float:
    """The largest length of the vectors along an axis."""
    return float(torch.linalg.vector_norm(x, dim=dim).max()) if x.numel() else 0.0


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
    return (half_away(finite(start).to(torch.float64) * _UNIT) * STEP).to(torch.float32)


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
