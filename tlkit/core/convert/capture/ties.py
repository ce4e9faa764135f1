"""Find inputs at which a model's steps are about to be taken: there a rounding shows. Importing this imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tlkit.core.convert.capture.examples import Values, draw
from tlkit.core.convert.capture.study import Study, observed
from tlkit.core.convert.capture.trace import Recorder
from tlkit.types import TensorSpec

Array = NDArray[Any]
_HALVINGS = 14
"""After so many the two sides of a step are nearer than f16 can tell, and much wider apart than f32's roundings."""
_DIGITS = 6


@dataclass
class _Search:
    """The source and what it is run on: only the ports ``moving`` change, in ``places`` parts each."""

    recorder: Recorder
    found: Study
    moving: tuple[int, ...]
    places: int = 1

    def levels(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the results of all steps on ``arrays``, flat; empty where the source does not run."""
        run = observed(self.recorder, self.found.ports, list(arrays), keep=True)
        if run.error is not None:
            return []
        return [np.nan_to_num(step.double().numpy().ravel()) for step in run.flow.levels or ()]

    def apart(self, one: Sequence[Array], other: Sequence[Array]) -> NDArray[np.bool_]:
        """Return at which of the places which step differs, steps x places."""
        differs = np.zeros((max(len(one), 1), self.places), bool)
        for row, a, b in zip(differs, one, other, strict=False):
            if a.size % self.places == 0:
                row[:] = (a != b).reshape(self.places, -1).any(1)
        return differs

    def chosen(self, first: NDArray[np.bool_], one: Sequence[Array], other: Sequence[Array]) -> list[Array]:
        """Return ``one`` at the places that are ``first``, else ``other``; ports that do not move as they were."""
        arrays = list(self.found.arrays)
        for index in self.moving:
            array = arrays[index]
            if array.size % self.places == 0:
                a, b = (values[index].reshape(self.places, -1) for values in (one, other))
                arrays[index] = np.where(first[:, None], a, b).reshape(array.shape).astype(array.dtype)
        return arrays


def near_steps(module: nn.Module, found: Study, seed: int) -> Mapping[str, tuple[Array, ...]]:
    """Return inputs near the steps of ``module``, by what they are: the values of ``found.ports``, in their order.

    Each place of the inputs is moved to a step of what is computed from it, by halving the way between two draws on
    which the step is not the same: once to either side of it, nearer than f16 can tell; once to the number of
    fewest decimals there, where a step often lies exactly. Empty where nothing jumps.
    """
    moving = tuple(index for index, port in enumerate(found.ports) if _moves(port, found.values.get(port.name)))
    if not found.jumps or not moving:
        return {}
    search = _Search(Recorder(module, found.ports), found, moving)
    other = _other(found, moving, seed)
    one, levels = list(found.arrays), search.levels(found.arrays)
    after = search.levels(other)
    if not levels or [step.size for step in levels] != [step.size for step in after]:
        return {}
    largest = max(found.arrays[index].size for index in moving)
    for places in dict.fromkeys((max(math.gcd(largest, step.size) for step in levels), 1)):
        search.places = places
        if sides := _halved(search, one, other, levels):
            return _told(search, found.jumps, *sides)
    return {}


def _moves(port: TensorSpec, values: Values | None) -> bool:
    return port.image is None and values is not None and values.kind in ("normal", "positive", "whole")


def _other(found: Study, moving: Sequence[int], seed: int) -> list[Array]:
    drawn = draw(found.ports, found.values, seed)
    return [drawn[index] if index in moving else array for index, array in enumerate(found.arrays)]


def _halved(
    search: _Search, one: Sequence[Array], other: Sequence[Array], levels: Sequence[Array]
) -> tuple[list[Array], list[Array]] | None:
    """Return inputs on both sides of the steps; None where no place has a step of its own between the two."""
    shape, places = [step.size for step in levels], np.arange(search.places)
    watched = _watched(search.apart(levels, search.levels(other)))
    for _ in range(_HALVINGS):
        middle = [_middle(a, b) for a, b in zip(one, other, strict=True)]
        middle = search.chosen(np.ones(search.places, bool), middle, middle)
        between = search.levels(middle)
        if [step.size for step in between] != shape:
            return None
        moved = ~search.apart(levels, between)[watched, places]  # the step lies behind the middle
        one = search.chosen(moved, middle, one)
        other = search.chosen(moved, other, middle)
        levels = [_mixed(moved, a, b) for a, b in zip(between, levels, strict=True)]
    sides = [search.levels(search.chosen(_alternating(search.places, step), one, other)) for step in (0, 1)]
    if any([step.size for step in side] != shape for side in sides) or not search.apart(*sides).any():
        return None
    return list(one), list(other)


def _watched(differs: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return whose step to go for at each place: the steps take turns, as far as one ``differs`` there."""
    steps, places = differs.shape
    turn = (np.arange(places)[:, None] + np.arange(steps)) % steps  # places x steps, the one whose turn it is first
    first = np.take_along_axis(differs.T, turn, 1).argmax(1)
    return np.asarray(turn[np.arange(places), first])


def _middle(one: Array, other: Array) -> Array:
    if one.dtype.kind == "f":
        return np.asarray((one + other) / 2, one.dtype)
    return np.asarray((one.astype(np.int64) + other) // 2, one.dtype)


def _mixed(first: NDArray[np.bool_], one: Array, other: Array) -> Array:
    if one.size % first.size:
        return other
    return np.where(first[:, None], one.reshape(first.size, -1), other.reshape(first.size, -1)).ravel()


def _alternating(places: int, step: int) -> NDArray[np.bool_]:
    return np.asarray(np.arange(places) % 2 == step)


def _told(search: _Search, jumps: Sequence[str], one: list[Array], other: list[Array]) -> dict[str, tuple[Array, ...]]:
    what = f"near where '{jumps[0]}' jumps"
    near = search.chosen(_alternating(search.places, 0), one, other)
    simple = list(near)
    for index in search.moving:
        simple[index] = _simplest(one[index], other[index])
    return {what: tuple(near), f"{what}, rounded": tuple(simple)}


def _simplest(one: Array, other: Array) -> Array:
    """Return the numbers of fewest decimals from ``one`` to ``other``, place by place; integers as in ``one``."""
    if one.dtype.kind != "f":
        return one
    low, high = np.minimum(one, other), np.maximum(one, other)
    result = one.copy()
    for digits in reversed(range(_DIGITS)):
        rounded = np.round((low.astype(np.float64) + high) / 2, digits).astype(one.dtype)
        result = np.where((rounded >= low) & (rounded <= high), rounded, result)
    return np.asarray(result, one.dtype)
