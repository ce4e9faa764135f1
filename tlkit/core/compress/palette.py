"""The palette of a weight: one-dimensional k-means over its distinct values, each weighted by how often it occurs.

coremltools leaves this to the package kmeans1d, and without it to scikit-learn's general k-means, which takes minutes
for an embedding and, for small weights, one random start. In one dimension a cluster is a run of sorted values, so that
a step of Lloyd's algorithm over prefix sums costs the clusters, not the elements (Wang and Song, 2011, solve it exactly
by dynamic programming; a good start comes within a percent of that).
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_STEPS, _STILL = 100, 1e-4


def palette(values: NDArray[Any], bits: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Return a palette of ``2**bits`` entries of the type of ``values``, and each value's index into it, flat.

    Of fewer distinct values each gets an entry, and the entries left over are 0.
    """
    distinct, inverse, counts = _distinct(values.reshape(-1))
    found = np.zeros(1 << bits, np.float64)
    if len(distinct) <= len(found):
        found[: len(distinct)] = distinct
        return found.astype(values.dtype), inverse.astype(np.uint8)
    centres = _clustered(distinct.astype(np.float64), counts.astype(np.float64), len(found))
    found[: len(centres)] = centres
    # To the nearest of the entries as they are stored.
    stored = np.unique(found.astype(values.dtype)).astype(np.float64)
    found[:] = 0.0
    found[: len(stored)] = stored
    nearest = np.searchsorted((stored[1:] + stored[:-1]) / 2, distinct)
    return found.astype(values.dtype), nearest.astype(np.uint8)[inverse]


def palette_of_left(values: NDArray[Any], bits: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Return what :func:`palette` does of a pruned weight: its zeros are kept in a mask and need no entry."""
    flat = values.reshape(-1)
    left = flat != 0
    if not left.any():
        return palette(flat, bits)
    found, places = palette(flat[left], bits)
    indices = np.zeros(len(flat), np.uint8)
    indices[left] = places
    return found, indices


def _distinct(flat: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the sorted distinct values, each value's place among them, and how many of each there are."""
    if flat.dtype != np.float16 or len(flat) < 1 << 14:
        return np.unique(flat, return_inverse=True, return_counts=True)
    bins = np.bincount(flat.view(np.uint16), minlength=1 << 16)  # sorting millions would take seconds
    codes = np.flatnonzero(bins).astype(np.uint16)
    codes = codes[np.argsort(codes.view(np.float16), kind="stable")]
    places = np.zeros(1 << 16, np.uint16)
    places[codes] = np.arange(len(codes))
    return codes.view(np.float16), places[flat.view(np.uint16)], bins[codes]


def _clustered(values: Floats, counts: Floats, most: int) -> Floats:
    """Return up to ``most`` sorted centres for sorted ``values``: the best that a few starts lead to."""
    sums = tuple(np.concatenate(([0.0], np.cumsum(item))) for item in (counts, counts * values, counts * values**2))
    results = [_settled(values, sums, start) for start in _starts(values, sums, most)]
    return min(results, key=lambda pair: pair[0])[1]


def _starts(values: Floats, sums: tuple[Floats, ...], most: int) -> list[Floats]:
    """Return centres to begin with: as dense as the cube root of the values' density, which is best for many centres
    (Panter and Dite, 1951), and what splitting the cluster of most error, again and again, leads to."""
    mass = sums[0] / sums[0][-1]
    levels = np.sin(np.linspace(0, np.pi / 2, 4 * most + 1)) ** 2  # finer towards the tails
    ends = np.unique(np.searchsorted(mass, levels[1:-1]).clip(1, len(values) - 1))
    edges = np.concatenate((values[:1], values[ends], values[-1:]))
    weight = np.diff(np.concatenate(([0.0], mass[ends], [1.0])))
    share = np.concatenate(([0.0], np.cumsum((weight * np.diff(edges) ** 2) ** (1 / 3))))
    dense = np.interp((np.arange(most) + 0.5) / most * share[-1], share, edges)
    return [dense, _split(values, sums, most)]


def _split(values: Floats, sums: tuple[Floats, ...], most: int) -> Floats:
    """Return centres found by halving, at its mean, the cluster with the largest error, until there are ``most``."""

    def cluster(low: int, high: int) -> tuple[float, int, int, float]:
        count, first, second = (float(item[high] - item[low]) for item in sums)
        return (first * first / count - second, low, high, first / count)

    heap = [cluster(0, len(values))]
    while len(heap) < most:
        error, low, high, mean = heappop(heap)
        middle = min(max(int(np.searchsorted(values, mean)), low + 1), high - 1)
        if error >= 0 or middle <= low:  # equal values
            heappush(heap, (0.0, low, high, mean))
            break
        heappush(heap, cluster(low, middle))
        heappush(heap, cluster(middle, high))
    return np.sort([item[3] for item in heap])


def _settled(values: Floats, sums: tuple[Floats, ...], centres: Floats) -> tuple[float, Floats]:
    """Return the squared error that Lloyd's steps come down to from ``centres``, and the centres there."""
    before = 1e300
    for _ in range(_STEPS):
        ends = np.concatenate(([0], np.searchsorted(values, (centres[1:] + centres[:-1]) / 2), [len(values)]))
        counts, firsts, seconds = (item[ends[1:]] - item[ends[:-1]] for item in sums)
        full = counts > 0
        errors = np.zeros(len(centres))
        errors[full] = seconds[full] - firsts[full] ** 2 / counts[full]
        centres = np.where(full, firsts / np.where(full, counts, 1.0), centres)
        # A cluster that nothing is nearest to splits the one with the most error.
        for empty in np.flatnonzero(~full):
            worst = int(errors.argmax())
            run = values[ends[worst] : ends[worst + 1]]
            centres[empty], errors[worst] = (run[0] if len(run) else centres[worst]), 0.0
        centres.sort()
        error = float(errors.sum())
        if full.all() and before - error <= _STILL * before:
            break
        before = error if full.all() else 1e300
    return error, centres
