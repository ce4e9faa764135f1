"""Which weight gets what within a budget: the lower convex hull of each weight's (bytes, error), taken step by step.

Errors of weights that are rounded independently add up nearly as their energies do, so the best set for a budget takes,
of all steps to fewer bytes, those with the least added error per byte saved (Everett, 1963: the Lagrangian of a
separable problem; on convex hulls the greedy order is exact up to one step). Where weights are few, the budgets between
two steps are filled by dynamic programming.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True, slots=True)
class Option:
    """One way to store one weight: what it is called, its bytes, and the error (noise over signal) by itself."""

    choice: str
    nbytes: int
    error: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A choice for each weight, with the bytes of all of them and the error predicted as the sum of theirs."""

    choices: Mapping[str, str]
    nbytes: int
    error: float


def hull(options: Sequence[Option]) -> list[Option]:
    """Return the options on the lower convex hull of error over bytes, from the most bytes to the fewest.

    Options whose error is not finite are left out; so is what costs as many bytes and more error.
    """
    cheapest: dict[int, Option] = {}
    for option in options:
        if math.isfinite(option.error):
            known = cheapest.get(option.nbytes)
            cheapest[option.nbytes] = option if known is None or option.error < known.error else known
    found: list[Option] = []
    for option in sorted(cheapest.values(), key=lambda item: -item.nbytes):
        # What has no less error than something smaller is no option.
        while found and found[-1].error >= option.error:
            found.pop()
        while len(found) > 1 and _slope(found[-2], found[-1]) >= _slope(found[-1], option):
            found.pop()
        found.append(option)
    return found


def _slope(larger: Option, smaller: Option) -> float:
    return (smaller.error - larger.error) / (larger.nbytes - smaller.nbytes)


def frontier(options: Mapping[str, Sequence[Option]]) -> list[Candidate]:
    """Return the candidates from the least error to the fewest bytes, each with less of one and more of the other.

    They are the steps along the hulls, and the best ones for a few hundred budgets (:func:`best_within`). ``options``
    has for each weight at least one with a finite error.
    """
    steps = _steps(options)
    low, high = steps[-1].nbytes, steps[0].nbytes
    budgets = [low + (high - low) * place // _BUDGETS for place in range(_BUDGETS + 1)]
    found: list[Candidate] = []
    every = sorted((*steps, *best_within(options, budgets)), key=lambda item: (item.error, item.nbytes))
    for candidate in every:
        if not found or candidate.nbytes < found[-1].nbytes:
            found.append(candidate)
    return found


def best_within(options: Mapping[str, Sequence[Option]], budgets: Sequence[int]) -> list[Candidate]:
    """Return for each budget the choices with the least error: by dynamic programming over bytes, counted in buckets.

    Sizes are rounded up to buckets, so that what is returned fits; a budget that nothing fits has no candidate.
    """
    bucket = max(1, max(budgets) // _BUCKETS)
    room = max(budgets) // bucket + 1
    least, taken = np.zeros(room), []
    usable = {name: [item for item in items if math.isfinite(item.error)] for name, items in options.items()}
    for items in usable.values():
        rows = np.full((len(items), room), np.inf)
        for row, item in zip(rows, items, strict=True):
            cost = -(-item.nbytes // bucket)
            row[cost:] = least[: max(0, room - cost)] + item.error
        taken.append(rows.argmin(0))
        least = rows.min(0)
    found = []
    for budget in budgets:
        place, chosen = budget // bucket, []
        if not math.isfinite(least[place]):
            continue
        for items, best in zip(reversed(usable.values()), reversed(taken), strict=True):
            chosen.append(items[best[place]])
            place -= -(-chosen[-1].nbytes // bucket)
        names = dict(zip(reversed(usable), chosen, strict=True))
        nbytes, error = sum(item.nbytes for item in chosen), math.fsum(item.error for item in chosen)
        found.append(Candidate({name: names[name].choice for name in usable}, nbytes, error))
    return found


_BUDGETS, _BUCKETS = 256, 16384


def _steps(options: Mapping[str, Sequence[Option]]) -> list[Candidate]:
    """Return the candidates along the hulls, each one step of one weight from the one before."""
    hulls = {name: hull(items) for name, items in options.items()}
    chosen = {name: items[0] for name, items in hulls.items()}
    steps = [
        (_slope(larger, smaller), place, name, smaller)
        for name, items in hulls.items()
        for place, (larger, smaller) in enumerate(pairwise(items))
    ]
    nbytes, error = sum(item.nbytes for item in chosen.values()), math.fsum(item.error for item in chosen.values())
    found = [Candidate({name: item.choice for name, item in chosen.items()}, nbytes, error)]
    # Slopes rise along a hull, so that its steps come in their order; equal ones by their place.
    for _, _, name, option in sorted(steps, key=lambda step: step[:3]):
        nbytes += option.nbytes - chosen[name].nbytes
        error += option.error - chosen[name].error
        chosen[name] = option
        found.append(Candidate({key: item.choice for key, item in chosen.items()}, nbytes, error))
    return found
