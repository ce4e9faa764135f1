"""Models whose program is not an mlprogram's, as packages with one: networks, classic models, and compiled programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlkit.core.convert.classic.boxes import KIND as SUPPRESSION
from tlkit.core.convert.classic.boxes import boxes_last, constant_inputs
from tlkit.core.convert.classic.making import as_mlprogram as classic_as_mlprogram
from tlkit.errors import ConversionError, LoadError, TlkitError, UsageError
from tlkit.formats.base import sniff
from tlkit.formats.coreml.features import interfaces, rename_ports
from tlkit.formats.coreml.legacy import NETWORKS
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.package import Package
from tlkit.formats.coreml.ports import read_ports
from tlkit.formats.coreml.write import write_package
from tlkit.frontends.espresso.model import network_of
from tlkit.frontends.network.mlprogram import as_mlprogram as network_as_mlprogram
from tlkit.host.scratch import temporary_files
from tlkit.mil.passes.base import run_passes
from tlkit.mil.passes.rename import Rename
from tlkit.mil.program import Program
from tlkit.ports.port import safe_name
from tlkit.ports.shapes import shape_text


@dataclass(frozen=True, slots=True)
class Opened:
    """A model as a package and a program. ``kind`` says what it was: a package that holds the program, or what it was
    made of; ``notes`` what is not as it was; ``half`` whether it is to compute in f16 where nothing else is said."""

    package: Package
    program: Program
    kind: str = "package"
    notes: tuple[str, ...] = ()
    half: bool = False


def open_program(source: Path, stage: int | str | None = None) -> Opened:
    """Return the model at ``source`` with the program that computes it, made where the file holds none.

    ``kind`` is ``package``, ``compiled`` (a program that is there as text), ``network`` or ``classic`` (pipelines,
    too). ``stage`` takes one stage of a pipeline. Raises LoadError, ConversionError where MIL cannot say what the model
    computes, or UsageError for other files.
    """
    if not source.exists():
        raise LoadError(f"{source}: no such package", "check the path")
    sniff.expect_coreml(source)
    package = open_package(source)
    package = package if stage is None else package.stage(stage)
    which = package.model.WhichOneof("Type")
    try:
        if which != "mlProgram":
            return _old(package)
    except (ConversionError, LoadError) as error:
        said = error.message if str(source) in error.message else f"{source}: {error.message}"
        hint = _parts(package) if isinstance(error, ConversionError) else ""
        raise type(error)(said, hint or error.hint) from error
    program = package.program
    assert program is not None  # of an mlprogram
    folder = package.root == source and package.root.is_dir()
    if folder and package.file.suffix != ".mlmodel":
        return Opened(package, program, "compiled")
    if not folder:
        raise UsageError(f"{source}: only a .mlpackage folder can be rebuilt", "use the package it was made from")
    return Opened(package, program)


def _old(package: Package) -> Opened:
    """Return the program made of a network, a classic model, or a pipeline."""
    if package.model.WhichOneof("Type") in NETWORKS:
        return _made(package, "network", *network_as_mlprogram(network_of(package)), half=True)
    leaves = tuple(package.leaves())
    package.require_weights()
    stages, programs = [network_of(leaf) for leaf in leaves], [leaf.program for leaf in leaves]
    kinds = {stage.WhichOneof("Type") for stage in stages}
    half = bool(kinds & {*NETWORKS}) and not kinds & _EXACT
    made = _made(package, "classic", *classic_as_mlprogram(package.model, stages, programs), half=half)
    return replace(made, notes=(*made.notes, *_otherwise(stages, made.program)))


def _otherwise(stages: Sequence[Any], program: Program) -> tuple[str, ...]:
    """Return notes on what a program does otherwise than the ``stages`` that it was made of."""
    notes = []
    if any(s.WhichOneof("Type") == "oneHotEncoder" and s.oneHotEncoder.handleUnknown == 0 for s in stages):
        notes.append(_ZEROS)
    for name, stage in constant_inputs(stages).items():
        value = stage.nonMaximumSuppression.iouThreshold
        notes.append(f"the input '{name}' is gone: MIL takes the IoU threshold as a constant, here {value:g}")
    if any(s.WhichOneof("Type") == SUPPRESSION for s in stages):
        notes.append(_ARRAYS)
        if boxes_last(program.function().opset):
            notes.append(_BORDER)
    return tuple(notes)


_EXACT = {"treeEnsembleRegressor", "treeEnsembleClassifier", "oneHotEncoder"}
"""Kinds that compare their inputs with numbers of the file, which f16 would round."""
_ARRAYS = "Vision takes objects with labels from pipelines only: this model gives arrays (labels: metadata, 'classes')"
_BORDER = "boxes that overlap by exactly the IoU threshold go, too: from iOS17 on MIL drops these"
_ZEROS = "a number that is not a category gives zeros, where the original stops with an error"


def _parts(package: Package) -> str:
    """Return which stages of a pipeline can be made by themselves, each of them tried; empty where none can."""
    said = []
    for number, stage in enumerate(package.stages()):
        try:
            _old(stage)
        except TlkitError:
            continue
        said.append(f"--stage {number} (its {stage.model.WhichOneof('Type')})")
    return f"a stage of it can be converted by itself: {', '.join(said)}" if said else ""


def _made(package: Package, kind: str, model: Any, program: Program, *, half: bool) -> Opened:
    """Return what was made, its ports under names that an mlprogram can have."""
    (target,) = interfaces(model)
    names, taken = {}, set(target.names())
    for name in target.names():
        safe = safe_name(name, set())
        while safe != name and safe in taken:
            safe = f"{safe}_"
        taken.add(safe)
        if safe != name:
            names[name] = safe
    notes = _shapes(package.model, model)
    if names:
        program = run_passes(program, [Rename("main", names)]).program
        rename_ports(target, names)
        told = ", ".join(f"'{old}' is {new}" for old, new in names.items())
        notes += (f"names of an mlprogram's ports are letters, digits and _: {told}",)
    return Opened(Package(package.root, package.file, model), program, kind, notes, half)


def _shapes(before: Any, after: Any) -> tuple[str, ...]:
    """Return notes on inputs whose shape is not what it was: a program is made for one set of shapes."""
    notes, kept = [], {spec.name: spec for spec in read_ports(after.description.input)}
    for then in read_ports(before.description.input):
        now = kept.get(then.name, then)
        if then.flexible:
            notes.append(f"{then.name}: of several shapes only the default is kept, {shape_text(now.shape)}")
        elif then.shape != now.shape and then.shape:
            notes.append(f"{then.name}: {shape_text(now.shape)}, the sequence that its layers need")
    return tuple(notes)


@contextmanager
def as_program(source: Path, stage: int | str | None = None) -> Iterator[Path]:
    """Yield the path of a model that the engines have a program for: the file itself, or of a classic model (a tree, a
    linear model), a pipeline or one ``stage`` of it a package made of it, in f32, for as long as the context is
    open."""
    if stage is None and (
        sniff.detect(source) not in sniff.COREML
        or open_package(source).model.WhichOneof("Type") in (*NETWORKS, "mlProgram")
    ):
        yield source
        return
    opened = open_program(source, stage)
    with temporary_files("tlkit-old-") as folder:
        path = folder / f"{source.stem}.mlpackage"
        write_package(path, opened.package.model, opened.program)
        yield path
