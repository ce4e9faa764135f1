"""The IQ types of 2 and 3 bits written: sizes that are rows of a grid, signs, and scales of 4 bits.

The formulas are those of ``quantize_row_iq2_xxs_impl`` to ``quantize_row_iq3_s_impl`` in ggml-quants.c: scales around
the one of the largest value are tried, each with the rows that are nearest under it, and what is best is fitted again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlkit.formats.gguf.encoders.fits import (
    LEAST,
    Bytes,
    F,
    Floats,
    by_importance,
    grouped,
    nearest,
    positive,
    total,
)
from tlkit.formats.gguf.encoders.lattices import Lattice, by_columns, lattice


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a type is fitted.

    ``times`` is the variance's share in weights, ``least`` the size below which a group counts as zeros, ``tries`` how
    many scales on either side are tried, ``delta`` apart. ``again`` says what is fitted to the scale found: ``strays``
    (parts that are no rows), ``groups`` (all parts of groups with a stray), ``all``. ``factor`` is ggml's, for the
    block's scale; ``paired`` signs are even in number, so that seven tell eight.
    """

    name: str
    group: int
    times: int
    least: np.float32
    tries: int
    delta: float
    again: str
    factor: float
    paired: bool


_IQ2_XXS = _Kind("IQ2_XXS", 32, 1, LEAST, 6, 0.1, "all", 1, True)
_IQ2_XS = _Kind("IQ2_XS", 16, 1, LEAST, 9, 0.1, "strays", 1, True)
_IQ2_S = _Kind("IQ2_S", 16, 2, F(1e-8), 9, 0.1, "strays", 0.9875, False)
_IQ3_XXS = _Kind("IQ3_XXS", 32, 2, F(1e-8), 15, 0.2, "strays", 1.0125, True)
_IQ3_S = _Kind("IQ3_S", 32, 2, np.nextafter(F(0), F(1)), 9, 0.2, "groups", 1.033, False)


@dataclass(frozen=True, slots=True)
class _Fitted:
    """Blocks as they are packed: each part's ``rows`` [count, parts] and each eight values' ``signs`` [count, 32], the
    ``scales`` of groups [count, groups] as codes, and the block's ``whole`` scale [count, 2] as bytes."""

    rows: NDArray[np.uint16]
    signs: NDArray[np.uint8]
    scales: NDArray[np.uint8]
    whole: Bytes


def iq2_xxs(values: Floats, importance: Floats) -> Bytes:
    """Return blocks [count, 66] of values [count, 256]."""
    fitted = _fitted(_IQ2_XXS, values, importance)
    codes = fitted.rows.astype(np.uint8).reshape(-1, 8, 4)
    both = np.concatenate([codes, _words(fitted).view(np.uint8).reshape(-1, 8, 4)], axis=2)
    return np.concatenate([fitted.whole, both.reshape(-1, 64)], axis=1)


def iq2_xs(values: Floats, importance: Floats) -> Bytes:
    """Return blocks [count, 74] of values [count, 256]."""
    fitted = _fitted(_IQ2_XS, values, importance)
    codes = (fitted.rows | fitted.signs.astype(np.uint16) << 9).astype("<u2")
    return np.concatenate([fitted.whole, codes.view(np.uint8), _pairs(fitted.scales)], axis=1)


def iq2_s(values: Floats, importance: Floats | None = None) -> Bytes:
    """Return blocks [count, 82] of values [count, 256]."""
    fitted = _fitted(_IQ2_S, values, importance)
    high = (fitted.rows >> 8).astype(np.uint8).reshape(-1, 8, 4) << np.arange(0, 8, 2, dtype=np.uint8)
    parts = [fitted.whole, fitted.rows.astype(np.uint8), fitted.signs, np.bitwise_or.reduce(high, axis=2)]
    return np.concatenate([*parts, _pairs(fitted.scales)], axis=1)


def iq3_xxs(values: Floats, importance: Floats | None = None) -> Bytes:
    """Return blocks [count, 98] of values [count, 256]."""
    fitted = _fitted(_IQ3_XXS, values, importance)
    return np.concatenate([fitted.whole, fitted.rows.astype(np.uint8), _words(fitted).view(np.uint8)], axis=1)


def iq3_s(values: Floats, importance: Floats | None = None) -> Bytes:
    """Return blocks [count, 110] of values [count, 256].

    After a group of zeros in a block that has others, ggml's code (0.25.3) writes the codes and signs of the groups
    that follow one place too early, so that they are read as other values. Here they are in their places.
    """
    fitted = _fitted(_IQ3_S, values, importance)
    ninth = np.packbits((fitted.rows >> 8).astype(np.uint8), axis=1, bitorder="little")
    parts = [fitted.whole, fitted.rows.astype(np.uint8), ninth, fitted.signs, _pairs(fitted.scales)]
    return np.concatenate(parts, axis=1)


def _fitted(kind: _Kind, values: Floats, importance: Floats | None) -> _Fitted:
    x, table, count = grouped(values, kind.group), lattice(kind.name), len(values)
    if importance is not None:
        weights = by_importance(values, importance, kind.group, kind.times)
    elif kind is _IQ2_S:
        squares = np.ascontiguousarray(values.T)
        variance = F(0.25) * (F(2) * total(squares * squares) / F(256))
        weights = np.repeat(variance, 256 // kind.group) + x * x
    else:
        weights = x * x
    sizes, signs = _sizes(x, weights, kind.paired)
    largest = sizes.max(axis=0)
    there = largest >= kind.least
    start = largest / F(2 * table.levels - 1)
    if kind.again == "all":
        start = positive(sizes, table.levels + 1, weights)[0]
        largest = start * F(table.levels)
        there &= largest > 0
    rows, scales = np.zeros((kind.group // table.width, x.shape[1]), np.int16), np.zeros(x.shape[1], np.float32)
    some = [np.ascontiguousarray(part[..., there]) for part in (sizes, weights, largest, start)]
    rows[:, there], scales[there] = _searched(kind, table, *some)
    signs = np.where(scales < 0, ~signs, signs) & np.uint8(127 if kind.paired else 255)
    signs[:, ~there] = 0
    each = np.abs(scales).reshape(count, -1)
    top = each.max(axis=1)
    whole = top / F(31)
    codes = np.clip(nearest(F(0.5) * (F(1) / whole[:, None] * each - F(1))), 0, 15)
    in_blocks = np.ascontiguousarray(rows.view(np.uint16).T).reshape(count, -1)
    signs = np.ascontiguousarray(signs.T).reshape(count, -1)
    if kind.paired:  # of the others, codes stay where scales are 0
        in_blocks[top == 0], signs[top == 0] = 0, 0
    codes[top == 0] = 0
    half = (whole * F(kind.factor)).astype(np.float16)[:, None].view(np.uint8)
    return _Fitted(in_blocks, signs, codes.astype(np.uint8), half)


def _searched(
    kind: _Kind, table: Lattice, x: Floats, weights: Floats, largest: Floats, scale: Floats
) -> tuple[NDArray[np.int16], Floats]:
    """Return the rows [parts, groups] and scales of groups x [members, groups]; ``scale`` is where nothing is found."""
    parts, groups = len(x) // table.width, x.shape[1]
    columns = by_columns(x, table.width), by_columns(np.sqrt(weights), table.width)
    stand = np.arange(1, 2 * table.levels, 2, dtype=np.float32)
    steps = np.arange(-kind.tries, kind.tries + 1, dtype=np.float32)
    inverse = (F(2 * table.levels - 1) + steps * F(kind.delta))[:, None] / largest
    keys = np.stack([_keys(table, x, each) for each in inverse])
    tried = table.places[keys]
    _settle(table, tried, keys, columns, F(1) / inverse, stand)
    times = weights * x
    rows, best = np.zeros((parts, groups), np.int16), np.zeros(groups, np.float32)
    on_grid = np.full((parts, groups), kind.again == "strays")
    for each, key in zip(tried, keys, strict=True):
        one, two = _sums(table, each, times, weights, stand)
        better = (two > 0) & (one * one > best * two)
        scale = np.where(better, one / two, scale)
        best = np.where(better, scale * one, best)
        rows = np.where(better, each, rows)
        if kind.again != "all":
            on_grid = np.where(better, table.places[key] >= 0, on_grid)
    again = ~on_grid if kind.again == "strays" else np.broadcast_to((~on_grid).any(axis=0), on_grid.shape)
    again = again & (scale > 0)
    keys = _keys(table, x, F(1) / scale)
    fresh = table.places[keys]
    _settle(table, fresh[None], keys[None], columns, scale[None], stand, again[None])
    rows = np.where(again, fresh, rows)
    one, two = _sums(table, rows, times, weights, stand)
    return rows, np.where(again.any(axis=0) & (two > 0), one / two, scale)


def _keys(table: Lattice, x: Floats, inverse: Floats) -> NDArray[np.uint16]:
    codes = np.clip(nearest(F(0.5) * (inverse * x - F(1))), 0, table.levels - 1)
    return table.keys(codes.reshape(-1, table.width, x.shape[1]))


def _settle(
    table: Lattice,
    rows: NDArray[np.int16],
    keys: NDArray[np.uint16],
    columns: tuple[Floats, Floats],
    scales: Floats,
    stand: Floats,
    wanted: NDArray[np.bool_] | None = None,
) -> None:
    """Give the strays among rows [steps, parts, groups] the rows nearest to them under scales [steps, groups]."""
    strays = np.flatnonzero(rows < 0 if wanted is None else (rows < 0) & wanted)
    step, places = np.divmod(strays, rows[0].size)
    each = scales[step, places % rows.shape[2]]
    rows.reshape(-1)[strays] = table.nearest(keys.reshape(-1)[strays], places, columns, each, stand)


def _sums(
    table: Lattice, rows: NDArray[np.int16], times: Floats, weights: Floats, stand: Floats
) -> tuple[Floats, Floats]:
    """Return the sums of weights * x * codes and of weights * codes^2 of each group; ``times`` are weights * x."""
    codes = np.empty((len(rows), table.width, rows.shape[1]), np.float32)
    for column in range(table.width):
        codes[:, column] = stand[table.rows[:, column]][rows]
    flat = codes.reshape(times.shape)
    return total(times * flat), total(weights * flat * flat)


def _sizes(x: Floats, weights: Floats, paired: bool) -> tuple[Floats, NDArray[np.uint8]]:
    """Return the sizes of groups x [members, groups] and the signs of each eight as a byte [members / 8, groups].

    Where signs are paired and their number is odd, the value that matters least gets the other one.
    """
    eights = x.reshape(-1, 8, x.shape[1])
    minus = eights < 0
    sizes = np.where(minus, -eights, eights)
    if paired:
        odd = np.logical_xor.reduce(minus, axis=1)
        matter = weights.reshape(eights.shape) * eights * eights
        flip = (np.arange(8)[:, None] == matter.argmin(axis=1)[:, None]) & odd[:, None]
        sizes, minus = np.where(flip, -sizes, sizes), minus ^ flip
    return sizes.reshape(x.shape), np.packbits(minus, axis=1, bitorder="little")[:, 0]


def _words(fitted: _Fitted) -> NDArray[np.uint32]:
    """Return four times seven signs and a scale of four bits in a word: [count, 8]."""
    sevens = fitted.signs.reshape(-1, 8, 4).astype(np.uint32) << np.arange(0, 28, 7, dtype=np.uint32)
    words = np.bitwise_or.reduce(sevens, axis=2) | fitted.scales.astype(np.uint32) << 28
    return np.asarray(words.astype("<u4"))


def _pairs(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return codes of four bits two to a byte."""
    return np.asarray(np.bitwise_or(codes[:, 0::2], codes[:, 1::2] << 4, dtype=np.uint8))
