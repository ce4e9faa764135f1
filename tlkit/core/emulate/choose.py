"""``--emulate``: how a model is run by the profiles of Apple's units, and what of that was published."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tlkit.errors import UsageError
from tlkit.mil.program import Function, Operation
from tlkit.mil.units.profiles import AUTO, DEFAULT, Profile, is_measured, profile_named, profile_of, profiles, rules
from tlkit.placement.facts import chip_named
from tlkit.placement.predict import predict
from tlkit.types import Unit

if TYPE_CHECKING:
    from tlkit.mil.units.emulation import Emulation


@dataclass(frozen=True, slots=True)
class UsedRule:
    """One rule that applied: the row of docs/fidelity.md, its trust, in words, and to how many operations."""

    profile: str
    rule: str
    row: str
    trust: str
    text: str
    operations: int


@dataclass(frozen=True, slots=True)
class Emulated:
    """What an answer under emulation rests on: the profile that was asked for, the rules that applied, and by type how
    many f16 operations had none (those ran by MIL's rule, with the unit's rounding).

    ``sums`` counts sums of products that the unit's accumulator made, ``exact`` those of them summed product by
    product: bounds showed that for the others it makes no difference. ``setting`` and ``chip`` are those of the
    predicted placement under ``auto``, empty otherwise.
    """

    profile: str
    about: str
    measured: str
    rules: tuple[UsedRule, ...]
    without_rule: Mapping[str, int]
    sums: int = 0
    exact: int = 0
    setting: str = ""
    chip: str = ""

    @property
    def text(self) -> str:
        """One line that says what it is: an emulation, of what, and how far it is to be trusted."""
        if not self.rules and not self.without_rule:
            return f"emulated {self.about}: no f16 operation that it computes otherwise, so nothing was emulated"
        trusts = sorted({rule.trust[0] for rule in self.rules}) or ["none"]
        none = sum(self.without_rule.values())
        rest = f"; {none} operations without a published rule ran by MIL's" if none else ""
        told = ", ".join(dict.fromkeys(f"{rule.row} ({rule.trust[0]})" for rule in self.rules))
        share = f"; {self.exact / self.sums:.0%} of {self.sums} sums product by product" if self.sums else ""
        return (
            f"an emulation of {self.about}, not a measurement: rules of trust {'/'.join(trusts)} published for "
            f"{self.measured or 'none'}: {told or 'none applied'}{rest}{share}"
        )


class Emulator:
    """Makes the emulation of each function that a model runs: one, or one for each stage and set of shapes."""

    def __init__(self, make: Callable[[Function], Emulation]) -> None:
        self._make = make
        self.made: list[Emulation] = []

    def __call__(self, function: Function) -> Emulation:
        """Return the emulation of ``function``, and keep it."""
        self.made.append(self._make(function))
        return self.made[-1]


def emulator(name: str | None, setting: Unit = Unit.ANE, chip: str | None = None) -> Emulator | None:
    """Return what makes the emulation that ``name`` asks for, for :class:`HowToRun`; None for MIL's own rule.

    ``auto`` takes each operation's profile from its predicted unit under ``setting`` on ``chip``. Raises UsageError
    for a profile or a chip that does not exist.
    """
    if chip is not None and (name is None or name.partition(":")[0] not in (AUTO, "ane")):
        raise UsageError(f"--chip {chip}: says whose units are emulated", "use it with --emulate ane, or auto")
    if name is None or name == DEFAULT:
        return None
    if name == AUTO:
        return Emulator(functools.partial(_placed, setting, chip_named(chip).name))
    return Emulator(functools.partial(_uniform, _profile(name, chip)))


def _profile(name: str, chip: str | None) -> Profile:
    """The profile of that name; ``ane`` is that of the chip, where one is named."""
    found = profile_named(name)
    if chip is None:
        return found
    return replace(profile_of("ane", chip_named(chip).name), exact=found.exact)


def _uniform(profile: Profile, function: Function) -> Emulation:
    from tlkit.mil.units.emulation import Emulation  # late: it imports torch

    return Emulation(lambda _: profile)


def _placed(setting: Unit, chip: str, function: Function) -> Emulation:
    from tlkit.mil.units.emulation import Emulation  # late: it imports torch

    found = predict(function, setting, chip)
    where = {placed.result or placed.name: profile_of(placed.unit, chip) for placed in found.operations}
    rest = profiles()["cpu"]  # what has no prediction, as the operations inside of blocks

    def choose(operation: Operation) -> Profile:
        return where.get(operation.outputs[0].name if operation.outputs else operation.name, rest)

    return Emulation(choose)


def emulated(made: Sequence[Emulation], name: str, setting: Unit | None = None, chip: str | None = None) -> Emulated:
    """Return what runs by these emulations rested on, after them."""
    counts: dict[tuple[str, str], int] = {}
    plain: dict[str, int] = {}
    for emulation in made:
        for item in emulation.used():
            counts[item.profile, item.rule] = counts.get((item.profile, item.rule), 0) + len(item.operations)
        for kind, count in emulation.plain.items():
            plain[kind] = plain.get(kind, 0) + count
    used = tuple(
        UsedRule(profile, rule, rules()[rule].row, rules()[rule].trust, rules()[rule].text, count)
        for (profile, rule), count in counts.items()
    )
    accumulators = [(key, item) for emulation in made for key, item in emulation.sums.items()]
    sums, exact = sum(item.sums for _, item in accumulators), sum(item.exact for _, item in accumulators)
    if name == AUTO:
        known = chip_named(chip).name
        about = f"an {known}, each operation on the unit that is predicted for it under '{setting}'"
        measured = "; ".join(dict.fromkeys(f"{p}: {profiles()[p].measured}" for p, _ in accumulators))
        measured = _whose(measured, chip)
        return Emulated(name, about, measured, used, plain, sums, exact, str(setting), known)
    profile = _profile(name, chip)
    return Emulated(profile.name, profile.about, _whose(profile.measured, chip), used, plain, sums, exact)


def _whose(measured: str, chip: str | None) -> str:
    """What was measured, and that it was not the chip, where it was not."""
    if chip is None:
        return measured
    known = chip_named(chip).name
    return (
        measured if is_measured(known) else f"{measured} (nothing is published of the {known}'s: the nearest is taken)"
    )
