"""``tlkit convert``: a PyTorch module becomes a Core ML package, checked against its source.

Every argument is checked before torch is imported, the package is complete before it gets its name, and no line that
torch or coremltools prints reaches the user's streams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.core.convert.provenance import annotate, describe
from tlkit.core.convert.remake import is_package, refuse, remake
from tlkit.core.convert.result import Clock, ConversionResult, result
from tlkit.core.convert.source.hub import tokenizer_files
from tlkit.core.convert.source.source import load_source
from tlkit.core.convert.tools.build import About, Recipe, Report, check_versions
from tlkit.core.convert.tools.targets import choose_target
from tlkit.core.emulate.choose import emulator
from tlkit.core.run.sampled import sampled_risks
from tlkit.errors import TlkitError, UsageError
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.write import add_texts
from tlkit.formats.coreml.written import PACKAGE, read_package
from tlkit.host.goals import files_named
from tlkit.host.interrupt import interruptible
from tlkit.host.staging import prepare, staged
from tlkit.placement.facts import chip_named
from tlkit.ports.labels import class_labels
from tlkit.ports.parse import Ports, parse_output, parse_ports

if TYPE_CHECKING:
    from torch import nn

    from tlkit.core.convert.capture.cases import Case
    from tlkit.mil.risks.kit import Risk

__all__ = ["UNCOMPRESSED", "ConversionResult", "convert"]


def convert(
    source: str | Path | nn.Module,
    output: str | Path,
    *,
    kwargs: Mapping[str, Any] | None = None,
    checkpoint: str | Path | None = None,
    strip_prefix: str | None = None,
    inputs: Ports = (),
    images: Ports = (),
    classes: str | Path | Sequence[str] | None = None,
    output_names: Sequence[str] = (),
    states: Sequence[str] = (),
    precision: str | None = None,
    target: str | None = None,
    export: bool = False,
    auto: bool = True,
    author: str = "",
    description: str = "",
    version: str = "",
    license: str = "",
    verify: bool = True,
    samples: str | Path | None = None,
    example: str | Path | None = None,
    seed: int = 0,
    strict_mil: bool = False,
    emulate: str | None = None,
    ane: bool = False,
    chip: str | None = None,
    stage: int | str | None = None,
    force: bool = False,
    trust: bool = False,
    report: Report | None = None,
) -> ConversionResult:
    """Convert ``source`` to the Core ML package ``output``; return what was made and how it compares.

    ``source`` is ``file.py:callable``, ``package.module:callable``, a TorchScript ``.pt``, a ``.pt2``, a Hugging Face
    model folder, a built-in name, or a module; ``export`` captures it by ``torch.export``, not by tracing. A source
    that is a ``.mlpackage`` is rebuilt in another ``precision`` or for another ``target``, which it keeps otherwise;
    PyTorch becomes f16 for iOS17 by default. ``inputs`` and ``images`` are texts as ``--input`` and ``--image`` take
    them, or mappings from name to shape or text; they fill the parameters of ``forward`` that have their names, else
    its positions, images first. ``trust`` runs all code in a ``.pt`` or ``.pt2``, even if it could do more than
    compute. ``kwargs`` are for the callable, ``checkpoint`` is a file with all of the module's weights, and no others;
    ``strip_prefix`` is cut from its names (a prefix that all share is cut automatically, with a note). ``classes`` is a
    file with one label per line, or the labels. ``output_names`` are ``y``, ``y:f16`` or ``y:RGB``; outputs are f32 by
    default. Buffers that the model changes become states (iOS18); naming them in ``states``, as ``NAME`` or
    ``NAME=SHAPE``, checks that. ``samples`` is a folder of images or ``.npz`` to verify on, ``example`` is one such
    file; the model is captured on the first of them too. With ``auto`` the other way of capturing is tried where the
    first fails or the package differs, and taken where it does better: ``notes`` say so. ``strict_mil`` verifies what
    MIL specifies where Core ML was measured to depart from it, ``emulate`` what was published of a unit's arithmetic
    (``ane``, ``cpu``, ...: :func:`~tlkit.load_model`). ``ane`` rewrites the program for the Neural Engine of
    ``chip`` where that improves the prediction (``result.rewrites``); the rewritten package is verified as well.

    A package that fails verification is still written: check ``result.ok``. Any other failure raises
    :class:`TlkitError` and leaves nothing behind.
    """
    goal = Path(output)
    clock = Clock(report or (lambda what, share: None))
    about = About(author, description, version, license)
    _check_precision(precision)
    chip_named(chip)
    _check_emulated(emulate, precision)
    named = tuple(files_named(source, checkpoint, classes, samples, example, kwargs))
    _check_output(goal, force, named)
    if is_package(source):
        if ane:
            raise UsageError(f"{source}: --ane rewrites a package in edit", f"tlkit edit {source} --ane -o {goal}")
        refuse(
            {
                "emulate": emulate,
                "kwargs": kwargs,
                "checkpoint": checkpoint,
                "strip-prefix": strip_prefix,
                "input": inputs,
            }
        )
        refuse({"image": images, "classes": classes, "output-name": output_names, "state": states})
        refuse({"samples": samples, "example": example, "export": export, "emulate": emulate})
        package = Path(str(source))
        return remake(
            package, goal, precision, target, about, verify=verify, seed=seed, force=force, clock=clock, stage=stage
        )
    if stage is not None:
        raise UsageError(f"{source}: not a Core ML model, so it has no stages", "leave --stage out")
    ports = parse_ports(inputs, images)
    labels = class_labels(classes)
    outputs = tuple(map(parse_output, output_names))
    recipe = Recipe(precision or "f16", choose_target(target, ports, outputs), labels, about)
    check_versions()
    with interruptible(), clock.stage("load", "loading the source"):
        loaded = load_source(source, kwargs, checkpoint, trust, strip_prefix)
        from tlkit.core.convert.attempts import convert_verified, neural
        from tlkit.core.convert.capture.trace import prepared
        from tlkit.core.convert.order import Checks, Order
    files = (Path(example) if example else None, Path(samples) if samples else None)
    names = tuple(output_names)
    writing = staged(goal, read_package, force=force, kind=PACKAGE, inputs=named)
    with prepared(loaded.module, frozen=loaded.program is not None) as module, writing as path:
        checks = Checks(*files, seed, verify, strict_mil, emulate)
        order = Order(module, loaded, ports, recipe, names, tuple(states), checks, clock, target is not None)
        made = convert_verified(order, path, export=export, auto=auto)
        made = neural(order, path, made, chip) if ane else made
        sampled: tuple[Risk, ...] = ()
        if made.verification is not None and made.verification.passed is not None:
            with clock.stage("verify", "verifying"):
                sampled = _sampled(path, order.cases)
        annotate(path, describe(loaded.text, made.recipe.precision, made.verification))
        add_texts(path, tokenizer_files(Path(source)) if isinstance(source, str | Path) else {})
        notes = (*loaded.notes, *made.notes)
        told = result(path, goal, loaded.text, made.recipe, made.verification, clock, notes, sampled)
    return replace(told, rewrites=made.rewrites)


def _check_emulated(emulate: str | None, precision: str | None) -> None:
    if emulator(emulate) is not None and precision == "f32":
        raise UsageError(f"--emulate {emulate}: units compute in f16 only", "leave --precision out")


def _sampled(path: Path, cases: Sequence[Case]) -> tuple[Risk, ...]:
    """Return the risks that the values of the first case show; none where the program cannot be looked at."""
    program = open_package(path).program
    if program is None or not cases:
        return ()
    ports = zip(cases[0].ports, cases[0].values, strict=True)
    # A case has an image as C x H x W, the program 1 x C x H x W.
    arrays = {port.name: value[None] if port.image else value for port, value in ports}
    try:
        return sampled_risks(program.function(), arrays)
    except TlkitError:
        return ()  # verification ran it, and said what there is to say


UNCOMPRESSED = "smaller weights: --quantize int8, or tlkit edit net.mlpackage --quantize int8 -o small.mlpackage"


def _check_precision(precision: str | None) -> None:
    if precision not in (None, "f16", "f32"):
        raise UsageError(f"unknown precision '{precision}'", f"it is f16, f32 or auto; {UNCOMPRESSED}")


def _check_output(goal: Path, force: bool, inputs: Sequence[Path]) -> None:
    if goal.suffix != ".mlpackage":
        raise UsageError(f"{goal}: a Core ML package's name ends in .mlpackage", f"write -o {goal.stem}.mlpackage")
    prepare(goal, force=force, kind=PACKAGE, inputs=inputs)
