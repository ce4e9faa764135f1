"""What to convert, on which values it is captured, and how what is made of it is checked.

Importing this module imports torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from tlkit.core.convert.capture.cases import Case, example_case, sample_cases, seeded_cases
from tlkit.core.convert.capture.study import Study, assumed, otherwise, study, study_given
from tlkit.core.convert.capture.trace import needed
from tlkit.core.convert.result import Clock
from tlkit.core.convert.source.opened import ordered
from tlkit.core.convert.source.source import Source
from tlkit.core.convert.tools.build import Recipe
from tlkit.core.convert.verify import Settings
from tlkit.errors import ConversionError, UsageError
from tlkit.host import budget
from tlkit.mil.lower.guard import bounded
from tlkit.ports.port import example
from tlkit.types import TensorSpec

# Calls that a stateful model is verified on: what one leaves in a state is seen by the next one only.
_STEPS = 3
OTHERWISE = 100
"""The first of the seeds by which other choices are looked for."""


@dataclass(frozen=True, slots=True)
class Checks:
    """How to check a package: on the file ``example`` and the folder ``samples`` (or None), or on what ``seed`` draws.

    ``verify``: at all; ``strict_mil``: by MIL's specification where Core ML was measured to depart from it;
    ``emulate``: by what was published of a unit's arithmetic.
    """

    example: Path | None
    samples: Path | None
    seed: int
    verify: bool
    strict_mil: bool
    emulate: str | None = None


@dataclass
class Order:
    """What to convert and how to check it; ``chosen``: the user chose the target.

    ``assumed``: the module has not been run on the values of ``study`` yet.
    """

    module: nn.Module
    source: Source
    ports: tuple[TensorSpec, ...]
    recipe: Recipe
    names: tuple[str, ...]
    states: tuple[str, ...]
    checks: Checks
    clock: Clock
    chosen: bool
    study: Study = field(init=False)
    cases: tuple[Case, ...] = ()
    notes: tuple[str, ...] = ()
    assumed: bool = False

    def prepare(self) -> None:
        """Find values to capture the module on. Raises :class:`UsageError` where none work.

        It is run on them first, unless nothing but floating inputs and no check of what is made ask for that.
        """
        ports = self.ports or self.source.ports
        if not ports:
            takes = ", ".join(needed(self.module))
            hint = f"give --input NAME=1x3x224x224 for each of: {takes}"
            raise UsageError(f"{self.source.text}: what does it take?", hint)
        self.ports = ordered(self.source.program, ports) if self.source.program is not None else ports
        if self._plain():
            self.study, self.assumed = assumed(tuple(map(example, self.ports)), self.checks.seed), True
        else:
            self.run()

    def _plain(self) -> bool:
        """Whether any values will do, until something fails: numbers and pixels are drawn alike for all modules."""
        checks = self.checks
        given = checks.verify or checks.example is not None or checks.samples is not None
        floating = all(port.image is not None or port.dtype != "int32" for port in self.ports)
        return floating and not given and self.source.stored is None

    def run(self) -> None:
        """Run the module to find the values that it takes, and what it does with them."""
        stored, self.assumed = self.source.stored, False
        self.study = self._studied() if stored is None else self._studied_bounded(stored)
        found = {port.name: port.intake for port in self.study.ports}
        self.ports = tuple(replace(port, intake=found[port.name]) for port in self.ports)
        booleans = [port.name for port in self.ports if port.intake.boolean]
        if booleans:
            self.notes += (f"{', '.join(booleans)}: the model takes booleans, the package integers, 0 for False",)
        if self.study.note:
            self.notes += (self.study.note,)

    def _studied_bounded(self, stored: int) -> Study:
        """Hold what a stranger's program makes to what its file and inputs warrant, as ``tlkit run`` does."""
        elements = sum(math.prod(port.shape) for port in self.ports)
        with budget.drawn(self.checks.example is None and self.checks.samples is None):
            most = budget.warranted(stored, elements)
        # A refusal counts also where the study took it for values that do not fit.
        return bounded(self._studied, most, error=ConversionError, where=lambda: f"{self.source.text}: ")

    def _studied(self) -> Study:
        given = example_case(self.checks.example, self.ports) if self.checks.example else None
        if given is None and self.checks.samples is not None:
            given = next((case for case in sample_cases(self.checks.samples, self.ports) if self._captures(case)), None)
        if given is not None:
            return study_given(self.module, given.ports, list(given.values), given.name)
        return study(self.module, tuple(map(example, self.ports)), self.checks.seed)

    def _captures(self, case: Case) -> bool:
        """Whether a module can be captured at these shapes: a flexible axis of 1 would be taken for broadcasting."""
        axes = [
            (size, low, high)
            for port, at in zip(self.ports, case.ports, strict=True)
            for size, (low, high) in zip(at.shape, port.spans, strict=True)
        ]
        return all(size > 1 or low == high for size, low, high in axes)

    def settings(self, recipe: Recipe) -> Settings:
        """Return how to judge what ``recipe`` makes."""
        return Settings(
            recipe.precision, recipe.labels, self.checks.seed + 1, self.checks.strict_mil, self.checks.emulate
        )

    def choose(self, stateful: bool) -> None:
        """Choose the inputs to verify on, once: samples, or else the example and seeded values other than the
        capture's."""
        if self.cases or not self.checks.verify:
            return
        if self.checks.samples is not None:
            self.cases = sample_cases(self.checks.samples, self.ports)
            return
        given = (example_case(self.checks.example, self.ports),) if self.checks.example else ()
        try:
            seeded, notes = seeded_cases(self.ports, self.module, self.checks.seed + 1, _STEPS if stateful else 1)
        except UsageError:
            if not given:
                raise
            seeded, notes = (), ()  # it runs on real values only
        self.cases, self.notes = (*given, *seeded, *self._otherwise()), self.notes + notes

    def _otherwise(self) -> tuple[Case, ...]:
        """Return a case on which the source chooses otherwise than it did where it was captured, if one is found."""
        seed = self.checks.seed + OTHERWISE
        arrays = otherwise(self.module, self.study, seed)
        if arrays is None:
            return ()
        found = replace(self.study, arrays=arrays)
        return (Case(f"seed {seed}, where it chooses otherwise", self.study.ports, arrays, found),)
