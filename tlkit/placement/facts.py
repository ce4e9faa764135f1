"""The published facts behind predictions, read from the data files beside this module; each names its source."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from tlkit.errors import UsageError

Trust = Literal["high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class PlacementRule:
    """One rule: its id, a sentence, what to do about it, its source and how far to trust it. ``example`` is a change of
    the PyTorch source in two lines, before and after; empty where none helps.

    Trust: ``high`` is machine data or Apple's own words, ``medium`` one careful measurer, ``low`` hearsay.
    """

    id: str
    why: str
    mend: str
    source: str
    trust: Trust
    example: str = ""


@dataclass(frozen=True, slots=True)
class Rate:
    """GB/s of values moved and TFLOPS of arithmetic (two per MAC); 0: not limiting. The slower of the two decides.

    ``weights`` says whether bytes of weights count as moved.
    """

    gbps: float
    tflops: float
    weights: bool


@dataclass(frozen=True, slots=True)
class Chip:
    """A chip: its name, its Neural Engine's largest dimension (0: none for apps), and the chip whose prices it uses."""

    name: str
    largest: int
    prices: str

    @property
    def basis(self) -> str:
        """The basis of predictions for this chip, in a phrase."""
        if self.prices == self.name:
            return f"Core ML's published prices for the {self.name}, {_WHERE[self.prices]}"
        return f"the {self.prices}'s published prices ({_WHERE[self.prices]}): none are published for the {self.name}"


_WHERE = {
    "M4": "macOS 27; the GPU's for an M4 Pro",
    "M4 Pro": "macOS 26.5, large tensors; the CPU's for an M4",
}
DEFAULT_CHIP = "M4"
"""The newest chip with published plans."""


def _text(name: str) -> str:
    return (files("tlkit.placement") / "data" / name).read_text(encoding="utf-8")


def data_rows(name: str) -> list[dict[str, str]]:
    """Read a table beside this module: its rows, without the comments at its head."""
    # The lines with # at a table's head name its sources.
    return list(csv.DictReader(line for line in _text(name).splitlines() if not line.startswith("#")))


@cache
def all_rules() -> Mapping[str, PlacementRule]:
    """Every rule by its id."""
    return {row["id"]: PlacementRule(**row) for row in tomllib.loads(_text("rules.toml"))["rule"]}


@cache
def op_units() -> Mapping[str, tuple[str, ...]]:
    """The units (``cpu``, ``gpu``, ``ane``) that were seen to support each operation, regardless of sizes and types."""
    return {row["op"]: tuple(row["units"].split()) for row in data_rows("ops.csv")}


Rates = Mapping[tuple[str, str, str], Rate]
"""The planner's rates by chip, kind of operation and unit."""


@cache
def rates() -> Rates:
    """The planner's rates: what ``benchmarks/planner_prices.py`` makes of the published prices."""
    return {
        (row["chip"], row["kind"], row["unit"]): Rate(
            float(row["gbps"] or 0), float(row["tflops"] or 0), row["weights"] == "1"
        )
        for row in data_rows("prices.csv")
    }


@cache
def chips() -> Mapping[str, Chip]:
    """The chips by name, in lower case and without blanks."""
    return {_key(row["chip"]): Chip(row["chip"], int(row["largest"]), row["prices"]) for row in data_rows("chips.csv")}


def chip_named(name: str | None) -> Chip:
    """Return the chip called ``name`` (any case, with or without blanks), the default one for None."""
    found = chips().get(_key(name or DEFAULT_CHIP))
    if found is None:
        raise UsageError(f"unknown chip '{name}'", f"chips are {', '.join(chip.name for chip in chips().values())}")
    return found


def _key(name: str) -> str:
    return name.lower().replace(" ", "").replace("-", "")
