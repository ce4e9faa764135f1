"""The grids of GGUF's types of 1 to 3 bits as lattices: which of a grid's rows are near codes that are none of them.

The neighbours are those of ``iq2xs_init_impl`` and ``iq3xs_init_impl`` in ggml-quants.c, the choice among them that of
``iq2_find_best_neighbour`` and its kin: the first of those whose weighted squared error is least.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.formats.gguf.encoders.fits import Floats

_REACH = {"IQ3_XXS": 2, "IQ3_S": 3, "IQ2_XXS": 2, "IQ2_XS": 2, "IQ2_S": 1, "IQ1_S": 3}
"""How many of the least distances count as near."""
_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class _Near:
    """The rows near one key. Their errors are sums of terms, one for each column and code that occurs in it: ``terms``
    [terms, 2]; ``at`` [columns, rows] says which."""

    rows: NDArray[np.int16]
    terms: NDArray[np.intp]
    at: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Lattice:
    """A grid's ``rows`` [count, width] of codes from 0 to ``levels`` - 1; ``places`` [keys] has the row of each key
    (see :meth:`keys`), -1 where codes are no row."""

    rows: NDArray[np.uint8]
    levels: int
    reach: int
    places: NDArray[np.int16]
    known: dict[int, _Near] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """How many values a row stands for."""
        return int(self.rows.shape[1])

    def keys(self, codes: NDArray[Any]) -> NDArray[np.uint16]:
        """Return one number for codes [parts, width, ...]: [parts, ...]."""
        shifts = self._shifts().reshape(-1, *[1] * (codes.ndim - 2))
        return np.asarray(np.bitwise_or.reduce(codes.astype(np.uint16) << shifts, axis=1))

    def _shifts(self) -> NDArray[np.uint16]:
        return np.arange(self.width, dtype=np.uint16) * np.uint16(3 if self.levels > 4 else 2)

    def nearest(
        self,
        keys: NDArray[np.uint16],
        places: NDArray[np.intp],
        columns: tuple[Floats, Floats],
        scales: Floats,
        stand: Floats,
    ) -> NDArray[np.int16]:
        """Return the rows of those near ``keys`` whose values times a scale are nearest to x.

        ``columns`` are x and weights [width, columns]; ``places`` says which of them each key belongs to, ``scales``
        under which scale; ``stand`` has what each code stands for.
        """
        order = np.argsort(keys, kind="stable")
        ordered, places, scales = keys[order], places[order], scales[order]
        made = np.empty(keys.shape, np.int16)
        edges = [0, *(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist(), len(ordered)]
        for start, end in pairwise(edges if len(ordered) else ()):
            near = self._near(int(ordered[start]))
            step = max(_AT_ONCE // len(near.rows), 1)
            for first in range(start, end, step):
                part = slice(first, min(first + step, end))
                made[part] = near.rows[_least(near, places[part], columns, scales[part], stand)]
        found = np.empty(keys.shape, np.int16)
        found[order] = made
        return found

    def _near(self, key: int) -> _Near:
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = self._looked_for(key)
        return found

    def _looked_for(self, key: int) -> _Near:
        codes = key >> self._shifts().astype(np.intp) & (7 if self.levels > 4 else 3)
        distances = np.square(self.rows.astype(np.int16) - codes.astype(np.int16)).sum(axis=1)
        limit = np.flatnonzero(np.bincount(distances))[: self.reach][-1]
        rows = np.flatnonzero(distances <= limit)
        rows = rows[np.argsort(distances[rows], kind="stable")]
        each = self.rows[rows].astype(np.intp) + np.arange(self.width) * 8  # column and code in one number
        terms, at = np.unique(each, return_inverse=True)
        columns = np.ascontiguousarray(at.reshape(each.shape).T)
        return _Near(rows.astype(np.int16), np.stack([terms // 8, terms % 8], axis=1), columns)


def _least(
    near: _Near, places: NDArray[np.intp], both: tuple[Floats, Floats], scales: Floats, stand: Floats
) -> NDArray[np.intp]:
    if len(near.rows) == 1:
        return np.zeros(places.shape, np.intp)
    (x, weights), (columns, codes) = both, near.terms.T
    apart = stand[codes][:, None] * scales - x.take(places, axis=1).take(columns, axis=0)
    terms = weights.take(places, axis=1).take(columns, axis=0) * apart * apart
    errors = terms.take(near.at[0], axis=0)
    for each in near.at[1:]:
        errors += terms.take(each, axis=0)
    return np.asarray(errors.argmin(axis=0))


@cache
def grid(name: str) -> Floats:
    """Return the table of the type ``name``: (rows, 4 or 8); the gguf package has it."""
    from gguf import GGMLQuantizationType, quants

    kind: Any = quants._type_traits[GGMLQuantizationType[name]]
    kind.init_grid()
    found: Floats = kind.grid
    return np.ascontiguousarray(found.reshape(found.shape[-2:]))


def by_columns(values: Floats, width: int) -> Floats:
    """Return values [members, groups] part by part: [width, parts * groups]."""
    return np.ascontiguousarray(values.reshape(-1, width, values.shape[1]).transpose(1, 0, 2)).reshape(width, -1)


@cache
def lattice(name: str) -> Lattice:
    """Return the lattice of the block type ``name`` (IQ1_M's is IQ1_S's)."""
    steps, rows = np.unique(grid(name), return_inverse=True)
    codes = rows.reshape(grid(name).shape).astype(np.uint8)
    made = Lattice(codes, len(steps), _REACH[name], np.full(1 << 16, -1, np.int16))
    made.places[made.keys(codes)] = np.arange(len(codes), dtype=np.int16)
    return made
