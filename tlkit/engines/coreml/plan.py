"""Where Core ML would run each operation, and its estimated cost: ``MLComputePlan`` (macOS 14.4 or newer).

Read through coremltools' documented ``coremltools.models.compute_plan``. The plan is Core ML's prediction for one
compute-unit setting, not a record of what ran.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.engines.coreml.engine import _COMPUTE_UNITS, _require_macos
from tlkit.errors import UnavailableError, reason
from tlkit.types import Unit

_KINDS = {"MLCPUComputeDevice": "cpu", "MLGPUComputeDevice": "gpu", "MLNeuralEngineComputeDevice": "ane"}
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PlannedOp:
    """An operation, the unit that Core ML prefers for it, and its share of the model's cost (0..1; None: unknown)."""

    name: str
    type: str
    unit: str
    cost: float | None


def compute_plan(compiled: Path, unit: Unit, function: str | None = None) -> list[PlannedOp]:
    """Return the plan of the ``.mlmodelc`` at ``compiled`` under ``unit``, constants left out.

    ``function`` is one of a multifunction model's; None is ``main``, or all functions where there is no ``main``.

    Raises UnavailableError where the system has no compute plans, or none for this kind of model.
    """
    _require_macos()
    import coremltools as ct
    from coremltools.models.compute_plan import MLComputePlan

    try:
        plan = MLComputePlan.load_from_path(str(compiled), compute_units=ct.ComputeUnit[_COMPUTE_UNITS[unit]])
    except Exception as error:  # whatever the extension module raises, there is no plan
        raise UnavailableError(
            f"no compute plan: {reason(error, whole=True)}", "compute plans need macOS 14.4 or newer"
        ) from error
    return list(_planned(plan, function or "main"))


def _planned(plan: Any, function: str) -> Iterator[PlannedOp]:
    structure = plan.model_structure
    if structure.program is not None:
        functions = structure.program.functions
        for body in [functions[function]] if function in functions else functions.values():
            for operation in _walk(body.block.operations):
                usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
                # Core ML may write the opset in front (ios17.conv), and plans no constants.
                if usage is None and operation.operator_name.split(".")[-1] == "const":
                    continue
                cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
                name = operation.outputs[0].name if operation.outputs else operation.operator_name
                yield PlannedOp(name, operation.operator_name, _unit(usage), None if cost is None else cost.weight)
    elif structure.neuralnetwork is not None:
        for layer in structure.neuralnetwork.layers:
            usage = plan.get_compute_device_usage_for_neuralnetwork_layer(layer)
            yield PlannedOp(layer.name, layer.type, _unit(usage), None)
    else:
        raise UnavailableError("no compute plan: neither an mlprogram nor a neural network")


def _walk(operations: Iterable[Any]) -> Iterator[Any]:
    """Yield operations, and those in their blocks (branches and loop bodies)."""
    for operation in operations:
        yield operation
        for block in operation.blocks:
            yield from _walk(block.operations)


def _unit(usage: Any) -> str:
    return UNKNOWN if usage is None else _KINDS.get(type(usage.preferred_compute_device).__name__, UNKNOWN)
