"""Where the operations of a package would run, before it is written: ``tlkit convert --plan``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.core.inspect.placement import placements
from tlkit.formats.coreml.open import open_package
from tlkit.placement.facts import chip_named
from tlkit.placement.predict import Prediction
from tlkit.types import Unit


@dataclass(frozen=True, slots=True)
class Plan:
    """The placement, per function and setting, of the package that would be written; nothing was."""

    source: str
    predictions: tuple[Prediction, ...]


def plan(
    make: Callable[[Path], Any], source: object, units: Sequence[str | Unit] = (Unit.ANE,), chip: str | None = None
) -> Plan:
    """Predict, for each of ``units`` on ``chip``, where what ``make`` writes to the path it is given would run.

    The package is made in a folder that is removed again. Raises UsageError for an unknown unit or chip, before
    anything is made, and what ``make`` raises.
    """
    chip_named(chip)
    wanted = [unit if isinstance(unit, Unit) else Unit.parse(unit) for unit in units]
    with tempfile.TemporaryDirectory(prefix="tlkit-plan-") as folder:
        path = Path(folder) / "model.mlpackage"
        make(path)
        package = open_package(path)
        assert package.program is not None  # what convert writes is a program
        names = list(package.program.functions)
        found = tuple(item for name in names for item in placements(package, wanted, chip, name))
    return Plan(source if isinstance(source, str) else type(source).__name__, found)
