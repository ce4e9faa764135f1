"""The risks of a Core ML model: known problems of its program on Apple's units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tlkit.errors import UsageError
from tlkit.formats.coreml.describe import describe_package
from tlkit.formats.coreml.package import Package
from tlkit.mil.program import TensorType
from tlkit.types import ModelInfo, TensorSpec

if TYPE_CHECKING:
    from tlkit.mil.program import Function, Program
    from tlkit.mil.risks.kit import Risk

_SHOWN = 3  # places that a line names


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

    ``texts`` are inputs (``NAME=VALUE``), the others are drawn by ``seed``. Imports torch. Those that ``tlkit edit
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
    arrays = sampled.given_arrays(loaded, texts, seed)
    program = package.program.function(function)
    command = f"tlkit edit {package.root.name} --mend-risks: "
    mended = [
        Risk(item.row, Level.WRONG, "Neural Engine", item.why, command + item.change, (item.operation,))
        for item, _ in judged(program, arrays)
    ]
    return merged([tuple(mended), sampled.sampled_risks(program, arrays)])


_SHAPES = frozenset(("C1", "C3", "C4", "C7", "C8", "C10", "C17"))
"""Rows that shapes and constants decide, and that say of operations that a device does not run them, or not there."""
_LIMITS = {16384: "Neural Engines up to A15 and M3 take", 65536: "the Neural Engine takes"}
"""The longest axes (row C7)."""


def not_on_devices(
    function: Function, inputs: Sequence[TensorSpec], given: Mapping[str, tuple[int, ...]]
) -> tuple[str, ...]:
    """Return a line for each thing that runs here and that Core ML does not load, or not run on the Neural Engine.

    ``inputs`` are the ports of ``function``, ``given`` the shapes of what they are given: an open axis can be too long.
    """
    from tlkit.mil.risks.find import find_risks  # late: what has no program needs no rules

    risks = [risk for risk in find_risks(function, inputs) if risk.row in _SHAPES]
    lines = [risk_text(risk) for risk in risks if risk.level in ("refused", "placed")]
    for item in function.inputs:
        declared = item.type.shape if isinstance(item.type, TensorType) else ()
        longest = max(given.get(item.name, ()), default=0)
        # A declared length is among the risks already.
        passed = [limit for limit in _LIMITS if limit < longest and longest not in (declared or ())]
        if passed:
            lines.append(f"'{item.name}' has an axis of {longest}: {_LIMITS[passed[-1]]} at most {passed[-1]} (C7)")
    return tuple(lines)


def grave(risks: tuple[Risk, ...]) -> tuple[Risk, ...]:
    """Return the risks to report without being asked: what Core ML refuses, and what a unit computes incorrectly."""
    return tuple(risk for risk in risks if risk.level in ("refused", "wrong"))


def risk_text(risk: Risk) -> str:
    """Return one line: where, what, the operations, and the row of ``docs/fidelity.md`` with the evidence."""
    named = ", ".join(risk.places[:_SHOWN])
    more = f" and {len(risk.places) - _SHOWN} more" if len(risk.places) > _SHOWN else ""
    return f"{risk.units}: {risk.text} ({named}{more}; {risk.row})"
