"""The smallest set of operations to keep in f32: by sensitivity first, and then by leaving out what is not needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlkit.core.compare.difference import F16_LARGEST

if TYPE_CHECKING:
    from tlkit.core.precision.rounding import Rounded
    from tlkit.core.precision.wanted import KeepLimits

_TRIES = 256
"""Runs that leaving out may cost: of a large set, whole parts are left out first."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What each operation costs by itself: ``alone`` is the signal to noise in dB where only it is rounded.

    ``order`` begins with the one that costs most.
    """

    alone: dict[str, float]
    order: tuple[str, ...]


def sensitivities(model: Rounded, held: frozenset[str], report: Callable[[str, float], None]) -> Sensitivity:
    """Round each operation by itself, on the first input: one run each. ``held`` stay in f32 in any case."""
    everything = frozenset(model.names)
    alone = {}
    for index, name in enumerate(model.names):
        if name not in held | model.anyway:
            report(f"rounding {index + 1} of {len(model.names)} operations by itself", index / len(model.names))
            alone[name] = model.snr(everything - {name}, 1)
    return Sensitivity(alone, tuple(sorted(alone, key=alone.__getitem__)))


def smallest(model: Rounded, held: frozenset[str], found: Sensitivity, target: KeepLimits) -> frozenset[str]:
    """Return a set that meets ``target`` on the inputs, from which no operation can be left out by itself."""
    order = found.order
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if not target.missed(model.figures(held | set(order[:middle]))):
            high = middle
        else:
            low = middle + 1
    return held | _fewer(model, held, list(order[:high]), target)


def _fewer(model: Rounded, held: frozenset[str], kept: Sequence[str], target: KeepLimits) -> frozenset[str]:
    left = list(kept)
    part, tries = max(1, len(left) // 2), 0
    while left and tries < _TRIES:
        at = len(left)  # those that cost least come last
        while at > 0 and tries < _TRIES:
            fewer = left[: max(0, at - part)] + left[at:]
            tries += 1
            if not target.missed(model.figures(held | set(fewer))):
                left = fewer
            at -= part
        if part == 1:
            break
        part //= 2
    return frozenset(left)


def reason(model: Rounded, found: Sensitivity | None, name: str) -> str:
    """Say why ``name`` is kept."""
    if name in model.anyway:
        return "a constant of it is over f16's largest number, and coremltools leaves it in f32"
    largest = model.largest.get(name, 0.0)
    if largest > F16_LARGEST:
        return f"reaches {largest:.3g}, over f16's largest number, {F16_LARGEST:.0f}"
    if found is None or name not in found.alone:
        return "asked for"
    alone = found.alone[name]
    if alone == float("-inf"):
        return "rounded by itself, it makes an output that is not finite"
    return f"rounded by itself, it leaves a signal to noise of {alone:.1f} dB"
