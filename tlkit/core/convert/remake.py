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
from tlkit.core.convert.classic.making import as_mlprogram as classic_as_mlprogram
from tlkit.core.convert.provenance import annotate, describe
from tlkit.core.convert.result import Clock, ConversionResult, result
from tlkit.core.convert.tools.build import About, Recipe, Report, check_versions, progress, refused_by_disk
from tlkit.core.convert.tools.failure import conversion_error
from tlkit.core.convert.tools.targets import Target, choose_target, target_of_version
from tlkit.errors import ConversionError, LoadError, TlkitError, UsageError
from tlkit.formats.base import sniff
from tlkit.formats.coreml.features import interfaces, refuse_half_images
from tlkit.formats.coreml.legacy import NETWORKS
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.package import Package, blamed_on
from tlkit.formats.coreml.ports import read_ports
from tlkit.formats.coreml.write import write_package
from tlkit.formats.coreml.written import PACKAGE, read_package
from tlkit.frontends.espresso.model import network_of
from tlkit.frontends.network.mlprogram import as_mlprogram as network_as_mlprogram
from tlkit.host.quiet import quiet
from tlkit.host.scratch import temporary_files
from tlkit.host.staging import staged
from tlkit.mil.passes.base import run_passes
from tlkit.mil.passes.precision import Widen, is_half
from tlkit.mil.program import Program

if TYPE_CHECKING:
    from tlkit.core.compare.models import Verification

Steps = tuple[str, ...] | None
NARROW: Steps = None
"""All of coremltools' passes, to f16."""
TIDY: Steps = ("common::cast_optimization", "common::noop_elimination", "common::dead_code_elimination")
"""Passes that take away the casts between f32 and f32 that widening leaves."""


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
) -> ConversionResult:
    """Write the package ``source`` to ``goal`` in ``precision`` and for ``target`` (None: as it is).

    Raises :class:`TlkitError`, and leaves nothing behind then.
    """
    with clock.stage("load", "reading the program"):
        package, program = _open(source)
        old = not package.model.mlProgram.functions  # a network or a tree, whose program is not in its message
        classic = old and open_package(source).model.WhichOneof("Type") not in NETWORKS
        half, version = is_half(program), package.model.specificationVersion
        recipe = Recipe(
            precision or ("f16" if half or (old and not classic) else "f32"),
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
            start = _widened(package, program, between) if widened or old else package
            _write(start, recipe, path, narrowed, clock)
        if verify:
            with clock.stage("verify", "verifying"):
                # A new target by itself changes no number: then the strict limits hold.
                limits = recipe.precision if old else "f16" if changed else "f32"
                verification = (check_made if classic else _verified)(source, path, limits, seed)
        annotate(path, describe(str(source), recipe.precision, verification))
        notes: tuple[str, ...] = (
            ("the weights are still the same f16 numbers: f32 does not restore lost bits",) if widened else ()
        )
        notes += _fixed(source) if old else ()
        made = result(path, goal, str(source), recipe, verification, clock, notes)
    return made


def _fixed(source: Path) -> tuple[str, ...]:
    """Return a note where a network's inputs take several shapes: its layers are made for the default ones."""
    flexible = [spec.name for spec in read_ports(open_package(source).model.description.input) if spec.flexible]
    return (f"{', '.join(flexible)}: of several shapes only the default is kept",) if flexible else ()


def _open(source: Path) -> tuple[Package, Program]:
    if not source.exists():
        raise LoadError(f"{source}: no such package", "check the path")
    sniff.expect_coreml(source)
    package = open_package(source)
    if package.model.WhichOneof("Type") in NETWORKS:
        model, made = network_as_mlprogram(network_of(package))
        return Package(package.root, package.file, model), made
    if package.model.WhichOneof("Type") != "mlProgram":
        try:
            model, made = classic_as_mlprogram(package.model)
        except (ConversionError, LoadError) as error:
            raise type(error)(f"{source}: {error.message}", error.hint) from error
        return Package(package.root, package.file, model), made
    if package.root != source or not package.root.is_dir() or package.file.suffix != ".mlmodel":
        raise UsageError(f"{source}: only a .mlpackage folder can be rebuilt", "use the package it was made from")
    program = package.program
    assert program is not None
    return package, program


def _widened(package: Package, program: Program, path: Path) -> Package:
    """Write the package in f32 at ``path``, a folder that goes away with the stage."""
    changed = type(package.model)()
    changed.CopyFrom(package.model)
    refuse_half_images(interfaces(changed))
    with blamed_on(package.file):
        return write_package(path, changed, run_passes(program, [Widen()]).program)


def _write(package: Package, recipe: Recipe, path: Path, narrow: bool, clock: Clock) -> None:
    """Build the program again for the recipe's target, in f16 where ``narrow``, and write it at ``path``."""
    rebuild(package, recipe.target, path, NARROW if narrow else TIDY, clock.report, recipe.about)


def rebuild(
    package: Package, target: Target, path: Path, steps: Steps, report: Report, about: About | None = None
) -> None:
    """Have coremltools read ``package``, apply ``steps``, and write it at ``path`` with the operations of ``target``.

    Raises :class:`ConversionError` with coremltools' reason.
    """
    with temporary_files("tlkit-tools-"), quiet(progress(report)) as heard:
        import coremltools as ct
        from coremltools.converters.mil.converter import mil_convert
        from coremltools.converters.mil.frontend.milproto.load import load

        spec = ct.proto.Model_pb2.Model.FromString(package.model.SerializeToString())
        (about or About()).write(spec.description.metadata)
        pipeline = ct.PassPipeline() if steps is NARROW else ct.PassPipeline(list(steps or ()), "tidy")
        if steps is NARROW:
            pipeline.set_options("common::add_fp16_cast", {"skip_ops_by_type": "classify"})  # its labels are a list
        try:
            program = load(
                model_spec=spec,
                specification_version=target.version,
                file_weights_dir=str(package.base / "weights"),
            )
            program.default_function_name = spec.description.defaultFunctionName or "main"
            mil_convert(
                program,
                convert_from="milinternal",
                convert_to="mlprogram",
                specification_version=target.version,
                model_description=spec.description,
                main_pipeline=pipeline,
                compute_units=ct.ComputeUnit.ALL,
                skip_model_load=True,  # it would compile the model, which only macOS can
                package_dir=str(path),
            )
        except (OSError, TlkitError):
            raise
        except Exception as error:
            refused_by_disk(error, path)
            raise conversion_error(error, heard, ct.__version__) from error


def _verified(original: Path, made: Path, limits: str, seed: int) -> Verification:
    return compare_packages(original, made, seed, TOLERANCES[limits])
