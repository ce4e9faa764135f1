"""What a program that is run here does on a device: not loaded, computed otherwise, or not on its Neural Engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tlkit.mil.program import Function, TensorType
from tlkit.mil.risks.find import find_risks
from tlkit.mil.risks.kit import Level, risk_text
from tlkit.types import TensorSpec

_SHAPES = frozenset(("C1", "C3", "C4", "C7", "C8", "C10", "C17"))
"""Rows that shapes and constants decide, and that say of operations that a device does not run them, or not there."""
_LIMITS = {16384: "Neural Engines up to A15 and M3 take", 65536: "the Neural Engine takes"}
"""The longest axes (row C7)."""


def not_on_devices(
    function: Function, inputs: Sequence[TensorSpec], given: Mapping[str, tuple[int, ...]]
) -> tuple[str, ...]:
    """Return a line for each thing that runs here and that Core ML does not load, that one of its units computes
    incorrectly, or that shapes keep off the Neural Engine.

    ``inputs`` are the ports of ``function``, ``given`` the shapes of what they are given: an open axis can be too long.
    """
    grave = (Level.REFUSED, Level.WRONG)
    risks = [
        risk
        for risk in find_risks(function, inputs)
        if risk.level in grave or (risk.row in _SHAPES and risk.level is Level.PLACED)
    ]
    lines = [risk_text(risk) for risk in risks]
    for item in function.inputs:
        declared = item.type.shape if isinstance(item.type, TensorType) else ()
        longest = max(given.get(item.name, ()), default=0)
        # A declared length is among the risks already.
        passed = [limit for limit in _LIMITS if limit < longest and longest not in (declared or ())]
        if passed:
            lines.append(f"'{item.name}' has an axis of {longest}: {_LIMITS[passed[-1]]} at most {passed[-1]} (C7)")
    return tuple(lines)
