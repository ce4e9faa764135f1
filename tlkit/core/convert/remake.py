"""Rebuild a package from a package: for another minimum system, or in another precision.

coremltools reads the program back, builds it with the new system's operations, and writes it; nothing else of the
package changes: names, types and shapes of its ports, labels and metadata are the original's. Both packages then run
on one seeded input. A program in f16 is made one in f32 by :mod:`tlkit.mil.passes.precision` first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.core.compare.difference import TOLERANCES
from tlkit.core.compare.packages import compare_packages
from tlkit.core.convert.classic.check import check_made
from tlkit.core.convert.classic.program import open_program
from tlkit.core.convert.provenance import annotate, describe
from tlkit.core.convert.result import Clock, ConversionResult, result
from tlkit.core.convert.tools.build import About, Recipe, check_versions
from tlkit.core.convert.tools.rebuild import NARROW, TIDY, rebuild
from tlkit.core.convert.tools.targets import choose_target, target_of_version
from tlkit.errors import UsageError
from tlkit.formats.coreml.features import interfaces, refuse_half_images
from tlkit.formats.coreml.package import Package, blamed_on
from tlkit.formats.coreml.write import write_package
from tlkit.formats.coreml.written import PACKAGE, read_package
from tlkit.host.staging import staged
from tlkit.mil.passes.base import run_passes
from tlkit.mil.passes.precision import Widen, is_half
from tlkit.mil.program import Program

if TYPE_CHECKING:
    from tlkit.core.compare.models import Verification


_WIDE = "it computes in f32, since it compares or weighs single numbers: --precision f16 rounds these, too"
_NARROW = "it computes in f16, as its network does: --precision f32 rounds nothing"


def is_package(source: object) -> bool:
    """Whether ``source`` names something on disk that is called a Core ML model."""
    return isinstance(source, str | Path) and Path(source).suffix in (".mlpackage", ".mlmodel", ".mlmodelc")


def refuse(given: Mapping[str, Any]) -> None:
    """Raise UsageError for the first of ``given`` options that is set: a package already determines them."""
    name = next((name for name, value in given.items() if value), None)
    if name:
        flag = f"--{name.replace('_', '-')}"
        raise UsageError(f"{flag} is for PyTorch sources, not for packages", "tlkit edit changes a package's ports")


def remake(
    source: Path,
    goal: Path,
    precision: str | None,
    target: str | None,
    about: About,
    *,
    verify: bool,
    seed: int,
    force: bool,
    clock: Clock,
    stage: int | str | None = None,
) -> ConversionResult:
    """Write the package ``source``, or one ``stage`` of a pipeline, to ``goal`` in ``precision`` and for ``target``
    (None: as it is).

    Raises :class:`TlkitError`, and leaves nothing behind then.
    """
    with clock.stage("load", "reading the program"):
        opened = open_program(source, stage)
        package, program, old = opened.package, opened.program, opened.kind != "package"
        half, version = is_half(program), package.model.specificationVersion
        recipe = Recipe(
            precision or ("f16" if half or opened.half else "f32"),
            choose_target(target) if target else target_of_version(version),
            about=about,
        )
        if recipe.target.version < version:
            raise UsageError(
                f"{source}: it is for {target_of_version(version).name}; {recipe.target.name} is older",
                "its operations may not exist there: convert its source for the older system",
            )
        widened = half and recipe.precision == "f32"
        narrowed = not half and recipe.precision == "f16"
        changed = widened or narrowed
        if not (old or widened or narrowed or recipe.target.version != version):
            raise UsageError(
                f"{source}: it is {recipe.precision}, for {recipe.target.name}, already",
                "say what to change: --precision, --target; names, shapes and texts: tlkit edit",
            )
        package.require_weights()
        check_versions()
    verification = None
    with staged(goal, read_package, force=force, kind=PACKAGE, inputs=[source]) as path:
        with clock.stage("convert", "converting"):
            between = path.with_name(f"f32-{path.name}")
            # A compiled program in f16 stays as it is: in f32 between casts it would only be said to be f16.
            start = _between(package, program, between, widen=widened or not half) if widened or old else package
            _write(start, recipe, path, narrowed, clock)
        if verify:
            with clock.stage("verify", "verifying"):
                # A new target by itself changes no number: then the strict limits hold.
                limits = recipe.precision if opened.kind != "package" else "f16" if changed else "f32"
                if opened.kind == "classic" or stage is not None:
                    verification = check_made(source, path, limits, seed, stage)
                else:
                    verification = _verified(source, path, limits, seed)
        said = str(source) if stage is None else f"{source}, stage {stage}"
        annotate(path, describe(said, recipe.precision, verification))
        notes: tuple[str, ...] = (
            ("the weights are still the same f16 numbers: f32 does not restore lost bits",) if widened else ()
        )
        notes += opened.notes
        if opened.kind == "classic" and precision is None:
            notes += (_NARROW if opened.half else _WIDE,)
        made = result(path, goal, said, recipe, verification, clock, notes)
    return made


def _between(package: Package, program: Program, path: Path, *, widen: bool) -> Package:
    """Write the package at ``path``, a folder that goes away with the stage; in f32 to ``widen`` it."""
    changed = type(package.model)()
    changed.CopyFrom(package.model)
    if widen:
        refuse_half_images(interfaces(changed))
    with blamed_on(package.file):
        return write_package(path, changed, run_passes(program, [Widen()]).program if widen else program)


def _write(package: Package, recipe: Recipe, path: Path, narrow: bool, clock: Clock) -> None:
    """Build the program again for the recipe's target, in f16 where ``narrow``, and write it at ``path``."""
    rebuild(package, recipe.target, path, NARROW if narrow else TIDY, clock.report, recipe.about)


def _verified(original: Path, made: Path, limits: str, seed: int) -> Verification:
    return compare_packages(original, made, seed, TOLERANCES[limits])
