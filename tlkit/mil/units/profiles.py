"""The profiles by name, with their rules. Imports nothing heavy."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from tlkit.errors import UsageError

DEFAULT = "mil"
NEWEST = {"ane": "ane-m4"}
"""The short names, and the newest profile that was measured."""
AUTO = "auto"
"""Each operation by the unit that it is predicted to run on."""
_EXACT = ":exact"
_OLD = ("M1", "A14")
_MEASURED = (*_OLD, "M4", "M5", "M6")
"""Of the families of chips that are not among these, the nearest measured is taken: an M1's up to the A13, else an
M4's."""


@dataclass(frozen=True, slots=True)
class UnitRule:
    """One thing that a unit does otherwise than MIL's rule: the row of docs/fidelity.md, its trust, in words, and the
    operations."""

    id: str
    row: str
    trust: str
    text: str
    ops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """A unit's arithmetic: ``unit`` is ``ane``, ``cpu``, ``gpu`` or ``none``; ``measured`` says on which chips.

    ``exact`` sums every product by itself, without looking first where that can matter.
    """

    name: str
    unit: str
    about: str
    measured: str
    rules: tuple[str, ...]
    exact: bool = False


@functools.cache
def rules() -> Mapping[str, UnitRule]:
    """Return every rule by its id."""
    return {name: UnitRule(name, **(row | {"ops": tuple(row["ops"])})) for name, row in _table("rules.toml").items()}


@functools.cache
def profiles() -> Mapping[str, Profile]:
    """Return every profile by name."""
    found = _table("profiles.toml").items()
    return {name: Profile(name, **(row | {"rules": tuple(row["rules"])})) for name, row in found}


def profile_named(name: str) -> Profile:
    """Return the profile ``name`` (``ane`` is the newest measured; ``NAME:exact`` sums every product by itself);
    UsageError for one that does not exist."""
    base, exact = (name.removesuffix(_EXACT), True) if name.endswith(_EXACT) else (name, False)
    found = profiles().get(NEWEST.get(base, base))
    if found is None:
        known = ", ".join((*profiles(), *NEWEST))
        raise UsageError(f"--emulate {name}: no such profile", f"it is one of {known}, or {AUTO}")
    return Profile(found.name, found.unit, found.about, found.measured, found.rules, exact) if exact else found


def profile_of(unit: str, chip: str) -> Profile:
    """Return the profile of a chip's unit (``ane``, ``cpu``, ``gpu``)."""
    if unit != "ane":
        return profiles()[unit]
    family = chip.split(" ")[0]
    oldest = family.startswith("A") and family[1:].isdigit() and int(family[1:]) < 14
    return profiles()["ane-m1" if family in _OLD or oldest else "ane-m4"]


def is_measured(chip: str) -> bool:
    """Whether anything was measured of the chip's Neural Engine, or of a chip of its family."""
    return chip.split(" ")[0] in _MEASURED


def _table(name: str) -> dict[str, dict[str, Any]]:
    text = resources.files("tlkit.mil.units").joinpath("data", name).read_text("utf-8")
    return tomllib.loads(text)
