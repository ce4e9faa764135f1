"""``tlkit edit``: change a package's names, shapes, types, labels or metadata without converting again.

The model's message is changed and written beside the weights, which are linked or copied; then both packages run on one
seeded input and must agree. The original package is never written to.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit.core.edit.ane import Rewrite
from tlkit.core.edit.apply import Edits, apply, changes
from tlkit.core.model.load import load_model
from tlkit.errors import UsageError
from tlkit.formats.base import sniff
from tlkit.formats.coreml.describe import describe
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.package import Package, blamed_on
from tlkit.formats.coreml.write import write_beside, write_package
from tlkit.formats.coreml.written import PACKAGE, read_package
from tlkit.host.goals import FILE, Kind, files_named
from tlkit.host.staging import prepare, staged
from tlkit.placement.facts import chip_named
from tlkit.ports.labels import class_labels
from tlkit.types import ModelInfo

if TYPE_CHECKING:
    from tlkit.core.compare.models import Verification
    from tlkit.core.edit.mend import Mending
    from tlkit.mil.program import Program

Pairs = Iterable[str] | Mapping[str, str]
"""Texts ``NAME=VALUE``, or a mapping."""


@dataclass(frozen=True, slots=True)
class EditResult:
    """What was made: its path, one line for each change, its description, and how it compares (None: not asked)."""

    path: Path
    source: str
    changes: tuple[str, ...]
    info: ModelInfo
    check: Verification | None
    rewrites: tuple[Rewrite, ...] = ()
    mendings: tuple[Mending, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the model computes what the original computes, or was not checked (see :class:`Verification`)."""
        return self.check is None or self.check.ok


def edit(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    rename: Pairs = (),
    input_shapes: Pairs = (),
    input_dtypes: Pairs = (),
    output_dtypes: Pairs = (),
    metadata: Pairs = (),
    author: str | None = None,
    description: str | None = None,
    license: str | None = None,
    version: str | None = None,
    classes: str | Path | Sequence[str] | None = None,
    spec_version: int | None = None,
    ane: bool = False,
    chip: str | None = None,
    mend_risks: bool = False,
    inputs: Iterable[str] = (),
    verify: bool = True,
    seed: int = 0,
    force: bool = False,
) -> EditResult:
    """Write ``model`` (a .mlpackage or .mlmodel) to ``output`` with the changes asked for; return what was made.

    ``rename`` maps ports to new names; the other options go by the old ones. ``input_shapes`` are ``1x3x224x224``,
    ranges ``1x1..512`` or lists ``1x128,1x256``; types are ``f16``, ``f32`` and ``i32``. ``metadata`` sets entries of
    the user's metadata; an empty value removes one. ``classes`` replaces a classifier's labels, or makes a classifier
    of a model with one output. Nothing raises the specification version by itself: ``spec_version`` does. ``ane``
    rewrites the program for the Neural Engine where that improves the prediction for ``chip`` (``result.rewrites``).
    ``mend_risks`` writes operations otherwise that go wrong under the Neural Engine's arithmetic on ``inputs`` (texts
    ``NAME=VALUE``, one of them a folder for all of its files; seeded where left out), where that helps under its
    emulation (``result.mendings``).

    Raises UsageError (nothing to change, an unknown or taken name, a shape or type that the program rules out) or
    LoadError, and writes nothing then. A model that fails the check is still written: check ``result.ok``.
    """
    fields = {"author": author, "shortDescription": description, "license": license, "versionString": version}
    edits = Edits(
        _pairs("--rename", rename),
        _pairs("--input-shape", input_shapes),
        _pairs("--input-dtype", input_dtypes),
        _pairs("--output-dtype", output_dtypes),
        _pairs("--metadata", metadata),
        fields,
        tuple(class_labels(classes)),
        spec_version,
        ane,
        chip,
        partial(_mended, Path(model), tuple(inputs), seed) if mend_risks else None,
    )
    if tuple(inputs) and not mend_risks:
        raise UsageError("--input goes with --mend-risks", "only what is mended depends on the values")
    if not (edits.program or edits.metadata or spec_version or any(text is not None for text in fields.values())):
        raise UsageError("nothing to change", "say what: --rename, --input-shape, --ane, ... (tlkit edit --help)")
    chip_named(chip)
    if chip is not None and not ane:
        raise UsageError("--chip goes with --ane", "only what --ane writes depends on the chip")
    goal = Path(output)
    package, kind = _open(Path(model), goal)
    files = tuple(files_named(model, classes, inputs))
    prepare(goal, force=force, kind=kind, inputs=files)
    changed = type(package.model)()
    changed.CopyFrom(package.model)
    with blamed_on(package.file):
        made = apply(package, changed, edits)
    with staged(goal, read_package, force=force, kind=kind, inputs=files) as path:
        if made.program is None:
            write_beside(package, changed, path)
        elif package.root.is_dir():
            write_package(path, changed, made.program)
        else:
            raise UsageError(f"{package.root}: --ane writes weights, which a .mlmodel has no place for", _PACKAGE)
        check = None
        # Texts do not change what is computed.
        if verify and edits.program:
            from tlkit.core.compare.difference import TOLERANCES
            from tlkit.core.compare.packages import compare_packages  # late: it imports numpy and the engines

            limits = TOLERANCES["f16" if made.program is not None else "f32"]
            check = compare_packages(package.root, path, seed, limits)
        info = replace(describe(path), path=str(goal))
    told = (*changes(package.model, changed, edits), *(item.change for item in made.rewrites if item.made))
    told += tuple(f"{item.operation}: {item.change}" for each in made.mendings if each.kept for item in each.mended)
    return EditResult(goal, os.fspath(model), told, info, check, made.rewrites, made.mendings)


def _mended(model: Path, inputs: Sequence[str], seed: int, program: Program) -> tuple[Program, tuple[Mending, ...]]:
    """Mend each function, on the given inputs or on seeded ones."""
    from tlkit.core.edit.mend import mend
    from tlkit.core.run.sampled import given_cases

    told = []
    for name in tuple(program.functions):
        loaded = load_model(model, function=name if len(program.functions) > 1 else None)
        program, found = mend(program, name, list(given_cases(loaded, inputs, seed)))
        told.append(found)
    return program, tuple(told)


_PACKAGE = "make a package of it: coremltools.models.MLModel(...).save('net.mlpackage')"


def _open(source: Path, goal: Path) -> tuple[Package, Kind]:
    sniff.expect_coreml(source)
    package = open_package(source)
    suffix = ".mlpackage" if package.root.is_dir() else ".mlmodel"
    if package.root != source or package.file.suffix != ".mlmodel":
        raise UsageError(f"{source}: a zipped or compiled model cannot be edited", "edit the package it was made from")
    if goal.suffix != suffix:
        raise UsageError(f"{goal}: what is made of {source.name} ends in {suffix}", f"write -o {goal.stem}{suffix}")
    return package, PACKAGE if package.root.is_dir() else FILE


def _pairs(flag: str, given: Pairs) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in [given] if isinstance(given, str) else given:
        name, equals, value = (text, "=", given[text]) if isinstance(given, Mapping) else text.partition("=")
        if not equals or not name:
            raise UsageError(f"{flag} {text}: not NAME=VALUE", f"write it as {flag} NAME=VALUE")
        if name in found:
            raise UsageError(f"{flag}: '{name}' is given twice", "give each name once")
        found[name] = value
    return found
