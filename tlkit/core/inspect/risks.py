"""The risks of a Core ML model: known problems of its program on Apple's units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tlkit.errors import UsageError
from tlkit.formats.coreml.describe import describe_package
from tlkit.formats.coreml.package import Package
from tlkit.types import ModelInfo

if TYPE_CHECKING:
    from tlkit.mil.program import Program
    from tlkit.mil.risks.kit import Risk, Span


def package_risks(package: Package, function: str | None = None, info: ModelInfo | None = None) -> tuple[Risk, ...]:
    """Return the risks of ``package``, most serious first: of one function or all, and of all stages of a pipeline.

    ``info`` saves describing a package of one function again. Nothing is decoded and nothing is run. Empty for a model
    that has no program.
    """
    if package.program is None:
        found = [risks for risks in map(package_risks, package.stages()) if risks]
    else:
        names = [function] if function else list(package.program.functions)
        found = [_function_risks(package, package.program, name, info) for name in names]
    if not found:
        return ()
    from tlkit.mil.risks.find import merged  # late: a model without a program needs no rules

    return merged(found)


def _function_risks(package: Package, program: Program, name: str, info: ModelInfo | None) -> tuple[Risk, ...]:
    if len(program.functions) > 1:
        info = describe_package(package, name)
    info = info or describe_package(package)
    from tlkit.mil.risks.find import find_risks  # late, for the same reason

    return find_risks(program.function(name), info.inputs, info.outputs, info.sizes.get("weights", 0))


def sampled_risks(
    package: Package, texts: Sequence[str], seed: int = 0, function: str | None = None
) -> tuple[Risk, ...]:
    """Return the risks that the values of one inference show, with what was measured, most serious first.

    ``texts`` are inputs (``NAME=VALUE``), the others are drawn by ``seed``; where one names a folder, there is an
    inference for each of its files, and what was measured is over all of them. Imports torch. Those that ``tlkit edit
    --mend-risks`` can mend say so. Raises UsageError for a model without a program, and what running it raises.
    """
    if package.program is None:
        raise UsageError(f"{package.root}: --risks with --input runs a program, and this has none", "leave --input out")
    package.require_weights()
    from tlkit.core.edit.mend import judged  # late: it imports torch
    from tlkit.core.model.load import load_model
    from tlkit.core.run import sampled
    from tlkit.mil.risks.find import merged
    from tlkit.mil.risks.kit import Level, Risk

    loaded = load_model(package.root, function=function)
    program = package.program.function(function)
    command = f"tlkit edit {package.root.name} --mend-risks: "
    mended: dict[tuple[str, str], Risk] = {}
    cases = list(sampled.given_cases(loaded, texts, seed))
    for item, _ in judged(program, cases):
        risk = Risk(item.row, Level.WRONG, "Neural Engine", item.why, command + item.change, (item.operation,))
        mended[item.row, item.operation] = risk
    shown = [sampled.sampled_risks(program, arrays) for arrays in cases]
    return tuple(replace(risk, measured=_widest(risk.measured)) for risk in merged([tuple(mended.values()), *shown]))


def _widest(spans: Sequence[Span]) -> tuple[Span, ...]:
    """One range for each operand of an operation: over all inferences."""
    found: dict[tuple[str, str], Span] = {}
    for item in spans:
        before = found.get((item.place, item.value), item)
        least, largest = min(before.least, item.least), max(before.largest, item.largest)
        found[item.place, item.value] = replace(item, least=least, largest=largest)
    return tuple(found.values())


def grave(risks: tuple[Risk, ...]) -> tuple[Risk, ...]:
    """Return the risks to report without being asked: what Core ML refuses, and what a unit computes incorrectly."""
    return tuple(risk for risk in risks if risk.level in ("refused", "wrong"))
