"""Compute plans: Apple's structures as coremltools' own classes describe them, read into counts and costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tlkit.engines.coreml import plan as coreml_plan
from tlkit.engines.coreml.plan import PlannedOp, compute_plan
from tlkit.errors import UnavailableError
from tlkit.types import Unit

cp = pytest.importorskip("coremltools.models.compute_plan")
devices = pytest.importorskip("coremltools.models.compute_device")


class Plan:
    """What the extension module holds behind an MLComputePlan: coremltools' dataclasses, and two look-ups."""

    def __init__(self, structure: Any, placed: dict[str, tuple[Any, float | None]]) -> None:
        self.model_structure, self._placed = structure, placed

    def get_compute_device_usage_for_mlprogram_operation(self, operation: Any) -> Any:
        device, _ = self._placed.get(operation.operator_name, (None, None))
        return device and cp.MLComputePlanDeviceUsage(
            preferred_compute_device=device, supported_compute_devices=[device]
        )

    def get_estimated_cost_for_mlprogram_operation(self, operation: Any) -> Any:
        _, cost = self._placed.get(operation.operator_name, (None, None))
        return None if cost is None else cp.MLComputePlanCost(weight=cost)


def operation(kind: str, name: str, *inner: Any) -> Any:
    named = cp.MLModelStructureProgramNamedValueType(name=name, type=cp.MLModelStructureProgramValueType())
    blocks = [cp.MLModelStructureProgramBlock(inputs=[], operations=list(inner), output_names=[])] if inner else []
    return cp.MLModelStructureProgramOperation({}, kind, [named], blocks, None)


def device(kind: str) -> Any:
    """An instance of coremltools' own class, without the proxy that only a Mac can make."""
    return object.__new__(getattr(devices, kind))


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    body = [operation("const", "w"), operation("ios17.conv", "y"), operation("cond", "c", operation("ios17.relu", "r"))]
    block = cp.MLModelStructureProgramBlock(inputs=[], operations=body, output_names=["c"])
    function = cp.MLModelStructureProgramFunction(inputs=[], block=block)
    structure = cp.MLModelStructure(None, cp.MLModelStructureProgram({"main": function}), None)
    placed = {
        "ios17.conv": (device("MLNeuralEngineComputeDevice"), 0.75),
        "cond": (device("MLCPUComputeDevice"), None),
        "ios17.relu": (device("MLGPUComputeDevice"), 0.25),
    }
    asked: dict[str, Any] = {}

    def load_from_path(path: str, compute_units: Any = None) -> Plan:
        asked.update(path=path, units=compute_units.name)
        return Plan(structure, placed)

    monkeypatch.setattr(coreml_plan, "_require_macos", lambda: None)
    monkeypatch.setattr(cp.MLComputePlan, "load_from_path", staticmethod(load_from_path))
    return asked


def test_operations_in_blocks_are_found_and_constants_are_not(plan: dict[str, Any]) -> None:
    found = compute_plan(Path("m.mlmodelc"), Unit.ANE)
    assert found == [
        PlannedOp("y", "ios17.conv", "ane", 0.75),
        PlannedOp("c", "cond", "cpu", None),
        PlannedOp("r", "ios17.relu", "gpu", 0.25),
    ]
    assert plan == {"path": "m.mlmodelc", "units": "CPU_AND_NE"}


def test_one_function_of_several_is_planned_alone(plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    load = cp.MLComputePlan.load_from_path

    def two(path: str, compute_units: Any = None) -> Plan:
        found = load(path, compute_units)
        block = cp.MLModelStructureProgramBlock(
            inputs=[], operations=[operation("ios17.conv", "z")], output_names=["z"]
        )
        functions = found.model_structure.program.functions | {
            "step": cp.MLModelStructureProgramFunction(inputs=[], block=block)
        }
        found.model_structure = cp.MLModelStructure(None, cp.MLModelStructureProgram(functions), None)
        return found

    monkeypatch.setattr(cp.MLComputePlan, "load_from_path", staticmethod(two))
    assert [op.name for op in compute_plan(Path("m.mlmodelc"), Unit.ANE, "step")] == ["z"]
    assert [op.name for op in compute_plan(Path("m.mlmodelc"), Unit.ANE)] == ["y", "c", "r"]


def test_off_a_mac_there_is_none() -> None:
    with pytest.raises(UnavailableError):
        compute_plan(Path("m.mlmodelc"), Unit.ALL)
