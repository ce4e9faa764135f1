"""``--keep-f32`` and ``--precision auto``: a package in f16 but for some operations, checked against f32."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlkit.core.convert.tools.build import check_versions
from tlkit.core.convert.tools.kit.reading import plain_name
from tlkit.core.convert.tools.rebuild import TIDY, rebuild
from tlkit.core.convert.tools.targets import target_of_version
from tlkit.core.model.load import load_model
from tlkit.core.precision.search import Sensitivity, reason, sensitivities, smallest
from tlkit.core.precision.wanted import KeepLimits, Kept, kept
from tlkit.errors import TlkitError, UsageError
from tlkit.formats.base import sniff
from tlkit.formats.coreml.describe import describe
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.package import Package, blamed_on
from tlkit.formats.coreml.write import write_package
from tlkit.formats.coreml.written import PACKAGE, read_package
from tlkit.host.staging import prepare, staged
from tlkit.mil.passes.base import run_passes
from tlkit.mil.passes.precision import Widen, is_half
from tlkit.mil.program import Operation
from tlkit.types import ModelInfo

if TYPE_CHECKING:
    from tlkit.core.convert.capture.cases import Case
    from tlkit.core.precision.rounding import Rounded

LEAST_DB = 26.0
"""The signal to noise that is asked for where nothing else is: what f16 has to keep anywhere in tlkit."""
_MARGINS = (0.5, 3.0, 10.0, math.inf)
"""What the search asks for beyond the target, in dB, until the package keeps it on unseen inputs too; at last all."""
_SEEN, _UNSEEN = 2, 3


@dataclass(frozen=True, slots=True)
class KeptOperation:
    """An operation that stays in f32: its name and type, and why."""

    name: str
    type: str
    why: str


@dataclass(frozen=True, slots=True)
class MixedPrecision:
    """What was made: ``kept`` of ``operations`` stay in f32.

    Figures are the worst signal to noise of an output beside f32, in dB: ``half_db`` with all of it rounded to f16
    (emulated), ``seen_db`` of the package on the inputs searched on, ``unseen_db`` on others (None: not checked).
    ``runs`` is what the search cost. ``asked`` says what has to be kept (``target_db`` is None where that is no signal
    to noise), ``missed`` what is not. ``path`` is None where nothing was written.
    """

    path: Path | None
    source: str
    kept: tuple[KeptOperation, ...]
    operations: int
    target_db: float | None
    half_db: float
    seen_db: float | None
    unseen_db: float | None
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    runs: int
    notes: tuple[str, ...]
    info: ModelInfo | None
    asked: str = ""
    missed: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the package keeps what was asked for, or was not checked."""
        return not self.missed


def mixed_precision(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    precision: str | None = None,
    keep_f32: Sequence[str] = (),
    min_snr: float | None = None,
    min_cosine: float | None = None,
    min_top1: float | None = None,
    samples: str | os.PathLike[str] | None = None,
    verify: bool = True,
    seed: int = 0,
    force: bool = False,
    report: Callable[[str, float], None] = lambda what, share: None,
) -> MixedPrecision:
    """Write the ``.mlpackage`` ``model`` to ``output`` in f16, with some operations in f32; return what was made.

    ``keep_f32`` are patterns of names or types of operations that stay in f32. With ``precision`` ``auto`` the
    smallest set is searched (and what ``keep_f32`` names stays in any case) with which the outputs keep, beside f32, a
    signal to noise of ``min_snr`` dB, a cosine of ``min_cosine``, and the same top class in a share ``min_top1`` of the
    rows, whichever are given (26 dB where none is): on every second file of the folder ``samples``, or on seeded
    inputs, and checked on the others. Nothing is written where no set does (``result.ok`` is False then).

    Raises UsageError where a pattern matches nothing, or where f32 gives numbers that are not finite.
    """
    from tlkit.core.judge.inputs import split_cases  # late: it imports torch
    from tlkit.core.judge.sides import package_values
    from tlkit.core.precision.rounding import Rounded

    if precision not in (None, "auto"):
        raise UsageError(
            f"--precision {precision}: only auto keeps some operations in f32", "tlkit convert has the others"
        )
    source, goal = Path(model), Path(output)
    if goal.suffix != ".mlpackage":
        raise UsageError(f"{goal}: a Core ML package's name ends in .mlpackage", f"write -o {goal.stem}.mlpackage")
    prepare(goal, force=force, kind=PACKAGE, inputs=[source])
    package = _opened(source)
    check_versions()
    seen, unseen = split_cases(source, samples, seed, (_SEEN, _UNSEEN))
    exact = load_model(source, engine="eager", precision="f32")
    asked = KeepLimits(min_snr, min_cosine, min_top1)
    target = asked if asked != KeepLimits() else KeepLimits(LEAST_DB)
    try:
        with staged(goal, read_package, force=force, kind=PACKAGE, inputs=[source]) as path:
            wide = _widened(package, path.with_name("wide.mlpackage"))
            assert wide.program is not None
            rounded = Rounded(wide.program.function(), [exact.arrays(package_values(exact, case)) for case in seen])
            if not rounded.finite:
                raise UsageError(
                    f"{source}: in f32 its outputs are not finite either", "tlkit compare --find-nan says where"
                )
            job = _Job(source, goal, path, wide, rounded, seen, unseen, target, verify, report)
            made = job.searched(keep_f32) if precision == "auto" else job.kept(keep_f32)
            if not made.ok and precision == "auto":
                raise _Missed(made)
    except _Missed as missed:
        return missed.made
    return made


class _Missed(TlkitError):
    """Leaves the staging, so that nothing is written."""

    def __init__(self, made: MixedPrecision) -> None:
        super().__init__("no set of operations meets the target")
        self.made = replace(made, path=None, info=None)


@dataclass(frozen=True, slots=True)
class _Job:
    source: Path
    goal: Path
    path: Path
    wide: Package
    rounded: Rounded
    seen: tuple[Case, ...]
    unseen: tuple[Case, ...]
    target: KeepLimits
    verify: bool
    report: Callable[[str, float], None]

    def kept(self, patterns: Sequence[str]) -> MixedPrecision:
        """Write the package with what ``patterns`` name."""
        return self.written(matching(self.rounded.operations, patterns), None, self.rounded.snr(frozenset()))

    def searched(self, patterns: Sequence[str]) -> MixedPrecision:
        """Search, write and check, until the package keeps the target on unseen inputs as well."""
        held = matching(self.rounded.operations, patterns)
        figures = self.rounded.figures(held)
        half = figures.snr
        if not self.target.missed(figures):
            made = self.written(held, None, half)
            if made.ok:
                fine = f"f16 is fine as it is: {half:.1f} dB" if not held else "nothing but what was asked for"
                none = "no operation has to stay in f32"
                if self.rounded.anyway - held:
                    none = "nothing stays in f32 but what coremltools leaves there by itself"
                return replace(made, notes=(f"{fine}; {none}", *made.notes))
        found = sensitivities(self.rounded, held, self.report)
        for margin in _MARGINS:
            names = frozenset(self.rounded.names)
            if margin < math.inf:
                names = smallest(self.rounded, held, found, self.target.stricter(margin))
            made = self.written(names, found, half)
            if made.ok:
                break
        if len(made.kept) == made.operations:
            made = replace(made, notes=(*made.notes, "all of it has to stay in f32: no smaller set keeps the target"))
        return made

    def written(self, names: frozenset[str], found: Sensitivity | None, half: float) -> MixedPrecision:
        """Write the package with the operations ``names`` in f32, and run it."""
        names |= self.rounded.anyway
        operations = [item for item in self.rounded.operations if item.name in names]
        values = frozenset(item.name for operation in operations for item in operation.outputs)
        shutil.rmtree(self.path, ignore_errors=True)
        target = target_of_version(self.wide.model.specificationVersion)
        rebuild(self.wide, target, self.path, TIDY, self.report, kept=values)
        told = tuple(KeptOperation(item.name, item.type, reason(self.rounded, found, item.name)) for item in operations)
        figures = [self.checked(cases) if self.verify else None for cases in (self.seen, self.unseen)]
        missed = [text for item in figures if item is not None for text in self.target.missed(item)]
        seen, unseen = (None if item is None else item.snr for item in figures)
        return MixedPrecision(
            self.goal, str(self.source), told, len(self.rounded.names), self.target.snr, half, seen, unseen,
            tuple(case.name for case in self.seen), tuple(case.name for case in self.unseen), self.rounded.runs, (),
            replace(describe(self.path), path=str(self.goal)), str(self.target), tuple(dict.fromkeys(missed)),
        )  # fmt: skip

    def checked(self, cases: Sequence[Case]) -> Kept | None:
        """Return the figures of the package beside the source in f32; None without cases."""
        from tlkit.core.judge.sides import package_values  # late: it imports torch

        if not cases:
            return None
        exact, made = (
            load_model(path, engine="eager", precision=precision)
            for path, precision in ((self.source, "f32"), (self.path, "f16"))
        )
        pairs = []
        for case in cases:
            arrays = package_values(exact, case)
            before, after = exact.predict(arrays), made.predict(arrays)
            for name, value in before.items():
                if isinstance(value, np.ndarray):
                    pairs.append((value, np.asarray(after[name])))
                elif isinstance(value, dict):
                    one, other = (np.array([item[key] for key in value]) for item in (value, after[name]))
                    pairs.append((one, other))
        return kept(pairs)


def matching(operations: Sequence[Operation], patterns: Sequence[str]) -> frozenset[str]:
    """Return the names of the operations whose name, value's name or type matches one of ``patterns``.

    Raises UsageError for a pattern that matches none.
    """
    found: set[str] = set()
    for pattern in patterns:
        names = {item.name for item in operations if any(fnmatchcase(name, pattern) for name in _names(item))}
        if not names:
            known = ", ".join(dict.fromkeys(item.type for item in operations))
            raise UsageError(f"--keep-f32 '{pattern}' matches no operation that f16 would round", f"types: {known}")
        found |= names
    return frozenset(found)


def _names(operation: Operation) -> set[str]:
    names = {operation.name, *(item.name for item in operation.outputs)}
    return names | {plain_name(name) for name in names} | {operation.type, operation.type.rpartition(".")[2]}


def _opened(source: Path) -> Package:
    sniff.expect_coreml(source)
    package = open_package(source)
    if package.program is None or package.root != source or not source.is_dir() or package.file.suffix != ".mlmodel":
        raise UsageError(
            f"{source}: only an mlprogram's .mlpackage can be partly f32",
            "make a package of it: tlkit convert MODEL -o net.mlpackage",
        )
    if len(package.program.functions) > 1:
        raise UsageError(
            f"{source}: it has {len(package.program.functions)} functions",
            "convert them one by one, then combine them: --function",
        )
    package.require_weights()
    return package


def _widened(package: Package, path: Path) -> Package:
    assert package.program is not None
    if not is_half(package.program):
        return package
    changed = type(package.model)()
    changed.CopyFrom(package.model)
    with blamed_on(package.file):
        return write_package(path, changed, run_passes(package.program, [Widen()]).program)
