"""IQ1_S and IQ1_M written: values of three sizes, shifted by an eighth up or down, that are rows of a grid.

The formulas are those of ``quantize_row_iq1_s_impl`` and ``quantize_row_iq1_m_impl`` in ggml-quants.c: of a group's
values in order, all ways to split them in three are tried. Equal values keep their order, as glibc's ``qsort`` has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from tlkit.formats.gguf.encoders.fits import Bytes, F, Floats, by_importance, grouped, nearest, total
from tlkit.formats.gguf.encoders.lattices import Lattice, by_columns, lattice

_UP, _DOWN = np.array([-0.875, 0.125, 1.125], np.float32), np.array([-1.125, -0.125, 0.875], np.float32)
"""What the three codes stand for, by the shift."""
_MOST = np.finfo(np.float32).max
_Way = tuple[int, int, tuple[bool, ...], Floats, Floats]
"""A way to split groups: where the second and the third part begin, which halves are shifted down, and the sums of
weights * x * codes and of weights * codes^2 of each group."""
_Splits = Callable[[Floats, Floats, NDArray[np.intp]], Iterator[_Way]]


def iq1_s(values: Floats, importance: Floats) -> Bytes:
    """Return blocks [count, 50] of values [count, 256]."""
    x, count = grouped(values, 32), len(values)
    weights = by_importance(values, importance, 32, 2)
    rows, scales, down, there = _found(x, weights, _whole_splits, F(1e-12))
    largest, codes = _scales(scales.reshape(count, 8))
    codes = np.where((largest == 0)[:, None], 0, codes | down[0].reshape(count, 8).astype(np.int32) << 3).astype(
        np.uint16
    )
    each = np.ascontiguousarray(np.where(there, rows, 0).view(np.uint16).T).reshape(count, 8, 4)
    high = np.bitwise_or.reduce((each >> 8) << np.arange(0, 12, 3, dtype=np.uint16), axis=2) | codes << 12
    half = (largest / F(15) * F(1.125)).astype(np.float16).view(np.uint8).reshape(count, 2)
    low = each.astype(np.uint8).reshape(count, 32)
    return np.concatenate([half, low, high.astype("<u2").view(np.uint8)], axis=1)


def iq1_m(values: Floats, importance: Floats | None = None) -> Bytes:
    """Return blocks [count, 56] of values [count, 256]."""
    x, count = grouped(values, 16), len(values)
    weights = x * x if importance is None else by_importance(values, importance, 16, 2)
    rows, scales, down, there = _found(x, weights, _half_splits, F(1e-7))
    rows = np.where(there, rows, 0)
    largest, codes = _scales(scales.reshape(count, 16))
    whole = _whole(x, weights, rows, down, codes, largest / F(15))
    empty = largest == 0
    half = np.where(empty, F(0), whole * F(1.1125)).astype(np.float16).view(np.uint16)
    codes, down = np.where(empty[:, None], 0, codes), down & ~np.repeat(empty, 16)
    each = np.ascontiguousarray(rows.view(np.uint16).T).reshape(count, 32)
    bits = (each >> 8).astype(np.uint8) | np.ascontiguousarray(down.T).reshape(count, 32).view(np.uint8) << 3
    threes = codes.reshape(count, 4, 4).astype(np.uint16) << np.arange(0, 12, 3, dtype=np.uint16)
    quarters = (half[:, None] >> np.arange(0, 16, 4, dtype=np.uint16) & 15) << 12
    words = (np.bitwise_or.reduce(threes, axis=2) | quarters).astype("<u2")
    return np.concatenate([each.astype(np.uint8), bits[:, 0::2] | bits[:, 1::2] << 4, words.view(np.uint8)], axis=1)


def _scales(scales: Floats) -> tuple[Floats, NDArray[np.int32]]:
    """Return each block's largest scale, and the codes of all from 0 to 7."""
    largest = scales.max(axis=1)
    inverse = F(1) / (largest / F(15))
    return largest, np.clip(nearest(F(0.5) * (inverse[:, None] * scales - F(1))), 0, 7)


def _found(
    x: Floats, weights: Floats, splits: _Splits, least: np.float32
) -> tuple[NDArray[np.int16], Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return rows [eights, groups] of groups x [members, groups], their scales, which eights are shifted down, and
    which groups are no zeros. ``splits`` yields the ways to split groups."""
    table = lattice("IQ1_S")
    order = np.argsort(x, axis=0, kind="stable")
    eights = len(x) // 8
    best, scale = np.full(x.shape[1], -_MOST, np.float32), np.zeros(x.shape[1], np.float32)
    chosen = np.full(x.shape[1], -1, np.int32)
    made: list[tuple[int, int, tuple[bool, ...]]] = []
    for first, second, halves, one, two in splits(x, weights, order):
        better = (two > 0) & (one * one > best * two)
        if better.any():
            scale = np.where(better, one / two, scale)
            best = np.where(better, scale * one, best)
            chosen = np.where(better, len(made), chosen)
        made.append((first, second, halves))
    there = (np.abs(x).max(axis=0) >= least) & (chosen >= 0)
    bounds = np.array([split[:2] for split in made])[chosen]
    down = np.array([split[2] for split in made])[chosen].T
    ranks = np.arange(len(x))[:, None]
    codes = np.empty(x.shape, np.uint8)
    np.put_along_axis(codes, order, ((ranks >= bounds[:, 0]).view(np.uint8) + (ranks >= bounds[:, 1])), axis=0)
    minus = scale < 0
    codes, scale, down = np.where(minus, 2 - codes, codes), np.abs(scale), down ^ minus
    down = np.repeat(down & there, eights // len(down), axis=0)
    rows, stray = _settled(table, codes, x, weights, scale, down)
    levels = _levels(table, rows, down)
    one, two = total(weights * levels * x), total(weights * levels * levels)
    scale = np.where(stray & (one > 0) & (two > 0), one / two, scale)
    return rows, np.where(there, scale, F(0)), down, there


def _settled(
    table: Lattice, codes: NDArray[np.uint8], x: Floats, weights: Floats, scale: Floats, down: NDArray[np.bool_]
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Return the rows [eights, groups] nearest to x where ``codes`` are none, and which groups have such."""
    keys = table.keys(codes.reshape(-1, 8, x.shape[1]))
    rows = table.places[keys]
    strays = rows < 0
    columns = by_columns(x, 8), by_columns(weights, 8)
    for stand, shifted in ((_UP, ~down), (_DOWN, down)):
        places = np.flatnonzero(strays & shifted)
        each = scale[places % x.shape[1]]
        rows.reshape(-1)[places] = table.nearest(keys.reshape(-1)[places], places, columns, each, stand)
    return rows, np.asarray(strays.any(axis=0))


def _levels(table: Lattice, rows: NDArray[np.int16], down: NDArray[np.bool_]) -> Floats:
    """Return what rows [eights, groups] stand for: [members, groups]."""
    codes = np.ascontiguousarray(table.rows[rows].transpose(0, 2, 1))
    return np.where(down[:, None], _DOWN[codes], _UP[codes]).reshape(-1, rows.shape[1])


def _whole(
    x: Floats,
    weights: Floats,
    rows: NDArray[np.int16],
    down: NDArray[np.bool_],
    codes: NDArray[np.int32],
    first: Floats,
) -> Floats:
    """Return each block's scale, fitted to what its groups have become; ``first`` where nothing weighs."""
    levels = _levels(lattice("IQ1_S"), rows, down) * (2 * codes + 1).reshape(-1).astype(np.float32)
    one, two = (
        total(grouped(np.ascontiguousarray(part.T).reshape(len(first), 256), 256))
        for part in (weights * levels * x, weights * levels * levels)
    )
    return np.where(two > 0, one / two, first)


def _running(terms: Floats, order: NDArray[np.intp]) -> Floats:
    """Return the sums of no term, the first, the first two, and so on, in an order: [members + 1, groups]."""
    sums = np.zeros((len(terms) + 1, terms.shape[1]), np.float32)
    np.cumsum(np.take_along_axis(terms, order, axis=0), axis=0, out=sums[1:])
    return sums


def _whole_splits(x: Floats, weights: Floats, order: NDArray[np.intp]) -> Iterator[_Way]:
    """Split groups of which all values have one shift."""
    mixed, squares = _running(weights * x, order), _running(weights, order)
    ends = [
        (mixed * low, (mixed[-1] - mixed) * high, squares * low * low, (squares[-1] - squares) * high * high)
        for low, _, high in (_UP, _DOWN)
    ]
    for first in range(len(mixed)):
        for second in range(first, len(mixed)):
            between, weight = mixed[second] - mixed[first], squares[second] - squares[first]
            for down, (one, three, one_squared, three_squared) in enumerate(ends):
                middle = _DOWN[1] if down else _UP[1]
                product = one[first] + between * middle + three[second]
                square = one_squared[first] + weight * middle * middle + three_squared[second]
                yield first, second, (bool(down),), product, square


def _half_splits(x: Floats, weights: Floats, order: NDArray[np.intp]) -> Iterator[_Way]:
    """Split groups whose halves have shifts of their own."""
    ahead = (np.arange(len(x)) < len(x) // 2)[:, None]
    halves = []
    for members in (ahead, ~ahead):
        mixed, squares = (_running(np.where(members, part, F(0)), order) for part in (weights * x, weights))
        shifts = []
        for low, middle, high in (_UP, _DOWN):
            outer, inner = low * low - middle * middle, middle * middle - high * high
            shifts.append((mixed[-1] * high, squares[-1] * high * high, squares * outer, squares * inner))
        halves.append((mixed, shifts))
    for first in range(len(x) + 1):
        for second in range(first, len(x) + 1):
            products, sums = [], []
            for mixed, shifts in halves:
                less = mixed[first] + mixed[second]
                products.append([most - less for most, _, _, _ in shifts])
                sums.append([whole + outer[first] + inner[second] for _, whole, outer, inner in shifts])
            for one in (0, 1):
                for two in (0, 1):
                    both = (products[0][one] + products[1][two], sums[0][one] + sums[1][two])
                    yield first, second, (bool(one), bool(two)), *both
