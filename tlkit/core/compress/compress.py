"""``tlkit.compress``: a package with smaller weights, measured against the one that it was made of."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit.core.compare.difference import Tolerance
from tlkit.core.compare.packages import compare_packages
from tlkit.core.compress.activations import (
    IOS17,
    Ranges,
    check_activations,
    compared,
    measured_ranges,
    quantized,
    split_samples,
)
from tlkit.core.compress.choices import IOS16, Rules, WeightChoice, parse_rules, told, unused
from tlkit.core.compress.tools import THRESHOLD, WeightUse, opened, packed, save, weight_uses
from tlkit.core.convert.tools.build import check_versions
from tlkit.core.convert.tools.rebuild import TIDY, rebuild
from tlkit.core.convert.tools.targets import Target, choose_target, target_of_version
from tlkit.errors import UsageError
from tlkit.formats.base import sniff
from tlkit.formats.coreml.describe import describe
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.package import Package
from tlkit.formats.coreml.written import PACKAGE, read_package
from tlkit.formats.describe import open_tensors
from tlkit.host.staging import prepare, staged
from tlkit.mil.program import walk
from tlkit.types import ModelInfo

if TYPE_CHECKING:
    from tlkit.core.compare.models import Verification

_LEAST = {8: 0.99, 6: 0.98}
"""The cosine that is asked for where nothing else is: fewer bits may do anything to a model."""


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """One weight before and after: its name, what was done, its bytes in the file, and who takes it."""

    name: str
    choice: str
    before: int
    after: int
    operations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compressed:
    """What was made: bytes of the whole packages and of each weight, and how the outputs compare.

    ``target`` is the oldest system that runs it. ``check`` is None where it was not asked for. ``activations`` counts
    the operations that compute between 8-bit integers; ``weight_bytes`` are those of the weight files, before and
    after: all weights, those too small to be compressed among them, without the program.
    """

    path: Path
    source: str
    before: int
    after: int
    weights: tuple[PackedWeight, ...]
    target: str
    notes: tuple[str, ...]
    limits: str
    check: Verification | None
    info: ModelInfo
    activations: int = 0
    weight_bytes: tuple[int, int] = (0, 0)

    @property
    def ok(self) -> bool:
        """Whether it runs, and its outputs are within the limits."""
        return self.check is None or self.check.ok


def compress(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    quantize: str | None = None,
    palettize: str | None = None,
    prune: str | None = None,
    rules: Sequence[str] = (),
    skip: Sequence[str] = (),
    activations: str | None = None,
    calibrate: str | os.PathLike[str] | None = None,
    threshold: int | None = None,
    target: str | None = None,
    min_cosine: float | None = None,
    min_snr: float | None = None,
    verify: bool = True,
    seed: int = 0,
    force: bool = False,
    report: Callable[[str, float], None] = lambda what, share: None,
) -> Compressed:
    """Write the ``.mlpackage`` ``model`` to ``output`` with compressed weights; return what was made.

    ``quantize`` is ``int8`` or ``int4``, with ``:per-channel`` (the default), ``:per-tensor`` or ``:per-block=32``;
    ``palettize`` are the bits of an index, with ``:group=16`` and ``:vector=2``; ``prune`` is a share of zeros or
    ``2:4``. ``rules`` are texts ``PATTERN=WHAT`` (``linear*=int4``, ``head=none``, ``*=prune0.5+int8``) for weights
    whose name, or whose operation's name or type, matches; the last that matches counts, and ``skip`` beats them all.
    Weights of fewer than ``threshold`` elements stay; without one those of fewer than 2048, unless the matrices and
    kernels among them are over 1 % of the weights' bytes. The package is made for the system that this needs (iOS16, or
    iOS18 for int4, blocks, groups, 3 bits and pruned ones that are also packed) unless it asks for a newer one already;
    a ``target`` that is too old is refused. It runs beside the original on a seeded input; ``min_cosine`` and
    ``min_snr`` are what its outputs have to keep (by default a cosine of 0.99 with 8 bits, 0.98 with 6).

    With ``activations`` (``int8``, from iOS17 on) convolutions, products, sums and pools compute between integers, in
    ranges measured on every second sample of the folder ``calibrate``; the others are what it is checked on. ``skip``
    names operations to leave out, too.
    """
    source, goal = Path(model), Path(output)
    check_activations(activations, calibrate)
    chosen = parse_rules(quantize, palettize, prune, rules, skip, activations)
    if goal.suffix != ".mlpackage":
        raise UsageError(f"{goal}: a Core ML package's name ends in .mlpackage", f"write -o {goal.stem}.mlpackage")
    prepare(goal, force=force, kind=PACKAGE, inputs=[source])
    package = open_to_compress(source)
    check_versions()
    cases = None if calibrate is None else split_samples(source, calibrate)
    with staged(goal, read_package, force=force, kind=PACKAGE, inputs=[source]) as path:
        scratch = path.with_name("uncompressed.mlpackage")
        report("reading the weights", 0.0)
        shutil.copytree(source, scratch)
        others = () if cases is None else _operations(package)
        uses, choices = chosen_uses(scratch, chosen, threshold, others)
        wanted = _target(package, choices, target, IOS17 if cases is not None else 0)
        if wanted.version > package.model.specificationVersion:
            shutil.rmtree(scratch)
            rebuild(package, wanted, scratch, TIDY, report)
            uses, choices = chosen_uses(scratch, chosen, threshold, others)
        limits, taken = _limits(choices, min_cosine, min_snr), 0
        notes: tuple[str, ...] = ()
        if cases is None:
            report(f"compressing {len(choices)} weights", 0.1)
            stored = write_packed(scratch, path, choices)
        else:
            report(f"measuring ranges on {len(cases[0])} samples", 0.1)
            ranges = measured_ranges(scratch, cases[0])
            stored, taken = write_quantized(scratch, path, choices, ranges, skip)
            notes = (f"{taken} operations compute between int8, in ranges measured on {len(cases[0])} samples",)
        weights = tuple(measured(path, uses, stored))
        report("verifying", 0.8)
        check = None
        if verify:
            check = (
                compared(source, path, cases[1], limits) if cases is not None else _checked(package, path, seed, limits)
            )
        info = replace(describe(path), path=str(goal))
        sizes = package_bytes(source), package_bytes(path)
        files = weight_bytes(source), weight_bytes(path)
        shutil.rmtree(scratch)
    notes = (*_notes(package, wanted, weights, choices, stored), *notes)
    told_ = _limits_text(limits)
    return Compressed(goal, str(source), *sizes, weights, wanted.name, notes, told_, check, info, taken, files)


def _checked(package: Package, path: Path, seed: int, limits: Tolerance) -> Verification:
    """Run a package and what was made of it on a seeded input such as the model takes: integers that index a table go
    through the table, where any that two packages take alike say little of what a smaller table costs."""
    from tlkit.core.judge.inputs import split_cases  # late: it imports torch

    assert package.program is not None
    if len(package.program.functions) > 1:
        return compare_packages(package.root, path, seed, limits)
    return replace(compared(package.root, path, split_cases(package.root, None, seed, (1, 0))[0], limits), seed=seed)


def _operations(package: Package) -> list[tuple[str, ...]]:
    assert package.program is not None
    blocks = (function.block for function in package.program.functions.values())
    return [(item.name, item.type) for block in blocks for item in walk(block.operations)]


def open_to_compress(source: Path) -> Package:
    """Return the package at ``source``; UsageError where it is none whose weights can be compressed."""
    sniff.expect_coreml(source)
    package = open_package(source)
    if package.program is None or package.root != source or not source.is_dir() or package.file.suffix != ".mlmodel":
        raise UsageError(f"{source}: only the weights of an mlprogram's .mlpackage can be compressed",
                         "make a package of it: tlkit convert MODEL -o net.mlpackage")  # fmt: skip
    package.require_weights()
    return package


def weight_uses_of(path: Path, threshold: int | None) -> tuple[WeightUse, ...]:
    """Return the weights of a package of at least ``threshold`` elements (None: those worth compressing); the package
    may be rewritten."""
    with opened(path) as (model, _, tools):
        return weight_uses(model, tools, threshold)


def chosen_uses(
    path: Path, rules: Rules, threshold: int | None, others: Sequence[tuple[str, ...]] = ()
) -> tuple[tuple[WeightUse, ...], dict[str, WeightChoice]]:
    """Return the weights of a package, and by name what ``rules`` ask for; UsageError for a pattern without a weight,
    and where nothing is left to do.

    ``others`` are names that patterns may match, too; with them there is something to do without weights.
    """
    uses = weight_uses_of(path, threshold)
    strangers = unused(rules, (*(use.names for use in uses), *others))
    if strangers:
        known = ", ".join(use.name for use in uses[:4]) or "none"
        large = f"of {threshold} elements or more" if threshold is not None else "that is worth compressing"
        raise UsageError(f"'{strangers[0]}' matches no weight {large}", f"weights: {known}, ...")
    choices = {use.name: rules.of(use.names) for use in uses if threshold or rules.of(use.names).shrinks(use.elements)}
    choices = {name: choice for name, choice in choices.items() if choice != WeightChoice()}
    if not choices and not others:
        large = f"of {THRESHOLD if threshold is None else threshold} elements or more"
        raise UsageError(f"no weight {large} is left to compress", "lower --weight-threshold")
    return uses, choices


def _target(package: Package, choices: Mapping[str, WeightChoice], asked: str | None, least: int = 0) -> Target:
    """Return the system for ``choices``, and for what needs the specification version ``least`` (activations)."""
    version = package.model.specificationVersion
    needed = max((choice.needs for choice in choices.values()), default=0)
    if asked is not None:
        wanted = choose_target(asked)
        if wanted.version < max(needed, least):
            what, hint = "--activations int8", ""
            if needed >= least:
                what = next((str(choice) for choice in choices.values() if choice.needs == needed), "")
                hint = ", or int8" if needed > IOS16 else ""
            oldest = target_of_version(max(needed, least)).name
            raise UsageError(f"{what} needs {oldest}; --target {asked} is older", f"use --target {oldest}{hint}")
        if wanted.version < version:
            raise UsageError(f"the package is for {target_of_version(version).name} already", "leave --target out")
        return wanted
    return target_of_version(max(needed, least, version))


def write_packed(scratch: Path, path: Path, choices: Mapping[str, WeightChoice]) -> dict[str, WeightChoice]:
    """Write the package ``scratch``, which may be rewritten, to ``path`` with its weights as ``choices`` says; return
    how they are stored."""
    with opened(scratch) as (model, _, tools):
        made, stored = packed(model, tools, choices)
        save(made, path)
    return stored


def write_quantized(
    scratch: Path, path: Path, choices: Mapping[str, WeightChoice], ranges: Ranges, skip: Sequence[str]
) -> tuple[dict[str, WeightChoice], int]:
    """Do what :func:`write_packed` does with integers around operations; return how many operations those are, too."""
    with opened(scratch) as (model, _, tools):
        made, taken = quantized(model, tools, ranges, skip)
        made, stored = packed(made, tools, choices)
        save(made, path)
    return stored, taken


def measured(path: Path, uses: Sequence[WeightUse], choices: Mapping[str, WeightChoice]) -> list[PackedWeight]:
    """Return the bytes of each weight in both files; what is packed has the weight's name and more behind it."""
    stored = {entry.name: entry.nbytes for entry in open_tensors(path).entries()}
    found = []
    for use in uses:
        after = next((size for name, size in stored.items() if name == use.name), None)
        after = after or next((size for name, size in stored.items() if name.startswith(f"{use.name}_")), use.nbytes)
        choice = str(choices.get(use.name, WeightChoice()))
        found.append(PackedWeight(use.name, choice, use.nbytes, after, tuple(name for name, _ in use.operations)))
    return found


def package_bytes(path: Path) -> int:
    """Return the bytes of all files of a package."""
    return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())


def weight_bytes(path: Path) -> int:
    """Return the bytes of a package's weight files."""
    return sum(item.stat().st_size for item in path.rglob("*.bin") if item.is_file())


def _limits(choices: Mapping[str, WeightChoice], min_cosine: float | None, min_snr: float | None) -> Tolerance:
    if min_cosine is not None or min_snr is not None:
        return Tolerance(-1.0 if min_cosine is None else min_cosine, snr_db=min_snr, equal=0.0)
    bits = [choice.pack.bits if choice.pack else 0 for choice in choices.values()]
    if not bits:
        return Tolerance(_LEAST[6], equal=0.0)
    plain = all(choice.prune is None for choice in choices.values())
    return Tolerance(_LEAST.get(min(bits), -1.0) if plain else -1.0, equal=0.0)


def _limits_text(limits: Tolerance) -> str:
    told_ = [f"cosine {limits.cosine:g}"] if limits.cosine > -1 else []
    told_ += [f"SNR {limits.snr_db:g}"] if limits.snr_db is not None else []
    return ", ".join(told_) or "none asked for: only that it runs and stays finite"


def _notes(
    package: Package,
    wanted: Target,
    weights: Sequence[PackedWeight],
    choices: Mapping[str, WeightChoice],
    stored: Mapping[str, WeightChoice],
) -> tuple[str, ...]:
    notes = [told(stored)] if stored else []
    if wanted.version > package.model.specificationVersion:
        notes.append(f"made for {wanted.name}, which has what this needs")
    other = [f"{name} ({choices[name]} does not fit: {made})" for name, made in stored.items() if made != choices[name]]
    if other:
        notes.append(f"stored otherwise: {_some(other)}")
    kept = [item.name for item in weights if item.name in stored and item.after >= item.before]
    if kept:
        notes.append(f"no smaller: {_some(kept)}")
    return tuple(notes)


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
