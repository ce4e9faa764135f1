"""Apply every rule to a program: the risks of a model, most serious first. Importing this registers the rules."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from tlkit.errors import CONTRADICTIONS, LoadError
from tlkit.mil.program import Function
from tlkit.mil.risks import loading, numbers, placing, windows
from tlkit.mil.risks.kit import Level, Risk, Survey, rules
from tlkit.types import TensorSpec

FAMILIES = (loading, numbers, windows, placing)
"""The modules with the rules, most serious first."""


def find_risks(
    function: Function, inputs: Sequence[TensorSpec] = (), outputs: Sequence[TensorSpec] = (), weights: int = 0
) -> tuple[Risk, ...]:
    """Return the known problems of ``function`` on Apple's units, most serious first: every rule that finds a place.

    ``weights`` is the size of the package's weights in bytes. Nothing is decoded and nothing is run.
    """
    survey = Survey(function, inputs, outputs, weights)
    found = []
    for item in rules():
        with suppress(LoadError, *CONTRADICTIONS):  # a damaged program: running it will say so
            # Without repetitions, in program order.
            places = tuple(dict.fromkeys(item.find(survey)))
            if places:
                found.append(Risk(item.row, item.level, item.units, item.text, item.mend, places))
    order = list(Level)
    # A stable sort: within a level the order of the modules stays.
    return tuple(sorted(found, key=lambda risk: order.index(risk.level)))


def merged(found: Sequence[tuple[Risk, ...]]) -> tuple[Risk, ...]:
    """Return the risks of several functions as one list: equal ones once, with all their places."""
    joined: dict[tuple[str, str], Risk] = {}
    for risk in (risk for risks in found for risk in risks):
        key = (risk.row, risk.text)
        before = joined.get(key, risk)
        places, measured = (*before.places, *risk.places), (*before.measured, *risk.measured)
        joined[key] = replace(risk, places=tuple(dict.fromkeys(places)), measured=tuple(dict.fromkeys(measured)))
    order = list(Level)
    return tuple(sorted(joined.values(), key=lambda risk: order.index(risk.level)))
