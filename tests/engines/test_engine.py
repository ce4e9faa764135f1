"""The seam for engines: a third one, written here, touches one table; the others are chosen by what they can.

Covers tlkit/core/model/engines.py, tlkit/engines/torch/kind.py, tlkit/engines/coreml/kind.py,
tlkit/engines/classic/kind.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from tests.formats import packages
from tlkit.cli.options.shared import Engine
from tlkit.core.bench.bench import bench
from tlkit.core.bench.subject import make, store_inputs
from tlkit.core.model import engines
from tlkit.core.model.load import load_model
from tlkit.engines.auto.engine import AutoEngine
from tlkit.engines.coreml import kind as coreml_kind
from tlkit.engines.coreml.kind import CoreMLKind
from tlkit.engines.engine import Allocation, Can, EngineKind, HowToRun, Loadable
from tlkit.engines.torch.engine import TorchEngine
from tlkit.engines.torch.kind import TorchKind
from tlkit.errors import LoadError, UnavailableError, UsageError
from tlkit.mil.program import Function, Ref
from tlkit.types import Unit

OPS: dict[str, Callable[..., Any]] = {"relu": lambda x: np.maximum(x, 0)}


class NumpyEngine:
    """Runs programs of a few operations in numpy."""

    name = "numpy"

    def __init__(self, function: Function) -> None:
        self._function = function

    def run(self, arrays: Mapping[str, Any], state: Any = None) -> dict[str, Any]:
        values = dict(arrays)
        for operation in self._function.block.operations:
            given = {key: values[item.name] for key, (item,) in operation.inputs.items() if isinstance(item, Ref)}
            values[operation.outputs[0].name] = OPS[operation.type](**given)
        return {name: values[name] for name in self._function.block.outputs}

    def bind(self, arrays: Mapping[str, Any], state: Any = None) -> Callable[[], Any]:
        return lambda: self.run(arrays)

    def make_state(self) -> None:
        return None


class NumpyKind(EngineKind):
    name = "numpy"
    modes = ("numpy",)

    def available(self, *, stand_in: bool = False) -> bool:
        return True

    def runs(self, kind: str) -> bool:
        return kind == "mlProgram"

    def load(self, model: Loadable, settings: HowToRun) -> NumpyEngine:
        return NumpyEngine(model.program())

    def units(self) -> tuple[Unit, ...]:
        return (Unit.CPU,)

    def begin(self, settings: HowToRun) -> None:
        if settings.unit is not Unit.CPU:
            raise UnavailableError("numpy knows one processor", "use --units cpu")

    def describe(self, settings: HowToRun) -> dict[str, Any]:
        return {"backend": "numpy", "device": "cpu", "threads": 1, "kind": "cpu"}

    def placement(self, engine: Any, arrays: Any, model: Loadable, settings: HowToRun) -> Allocation:
        function = model.program()
        return Allocation("numpy", tuple((op.name, op.type, "cpu", None) for op in function.block.operations))


X = np.array([[-1.0, 2.0, 3.0]], np.float32)


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    return packages.relu(tmp_path / "relu.mlpackage", (1, 3), (1, 3))


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "ENGINES", (*engines.ENGINES, NumpyKind()))


@pytest.mark.usefixtures("third")
def test_a_third_engine_runs_models_once_it_is_in_the_table(relu: Path) -> None:
    model = load_model(relu, engine="numpy")
    assert isinstance(model.engine, NumpyEngine)
    np.testing.assert_array_equal(model.predict({"x": X})["y"], [[0, 2, 3]])
    assert isinstance(load_model(relu, engine="eager").engine, TorchEngine)
    assert isinstance(load_model(relu).engine, AutoEngine)
    with pytest.raises(UsageError, match="unknown engine 'gpu'") as caught:
        load_model(relu, engine="gpu")
    assert caught.value.hint == "it is auto or eager or compile or openvino or onnxruntime or numpy"


def test_the_command_line_names_all_engines() -> None:
    (option,) = get_args(Engine)[1:]
    assert option.metavar == "|".join([*engines.modes(), "llama.cpp"])  # which runs language models' files only


@pytest.mark.usefixtures("third")
def test_what_the_third_engine_cannot_do_is_left_to_one_that_can_or_refused(relu: Path) -> None:
    assert load_model(relu).checkable and not load_model(relu, engine="numpy").checkable
    with pytest.raises(UsageError, match="--engine numpy shows no values inside a model"):
        load_model(relu, engine="numpy").watch({"x": X}, lambda operation, values: False)
    seen = []
    load_model(relu).watch({"x": X}, lambda operation, values: bool(seen.append(operation.name)))
    assert seen == ["y"]


@pytest.mark.usefixtures("third")
def test_a_third_engine_is_measured(relu: Path, tmp_path: Path) -> None:
    file = tmp_path / "inputs.npz"
    store_inputs({"x": X}, file)
    subject = make(path=str(relu), unit="cpu", engine="numpy", arrays=str(file))
    model = subject.load()
    np.testing.assert_array_equal(subject.bind(model)()["y"], [[0, 2, 3]])
    assert subject.describe()["backend"] == "numpy"
    found = subject.placement(model, per_op=True)
    assert (found["source"], found["counts"], [op["type"] for op in found["ops"]]) == ("numpy", {"cpu": 1}, ["relu"])
    with pytest.raises(UnavailableError, match="one processor"):
        make(path=str(relu), unit="gpu", engine="numpy", arrays=str(file))


def test_torch_measures_what_each_operation_costs_only_if_it_is_asked_to(relu: Path, tmp_path: Path) -> None:
    file = tmp_path / "inputs.npz"
    store_inputs({"x": X}, file)
    subject = make(path=str(relu), unit="cpu", arrays=str(file))
    model = subject.load()
    assert subject.placement(model, per_op=False) == {}
    (row,) = subject.placement(model, per_op=True)["ops"]
    assert (row["name"], row["type"], row["unit"], row["share"]) == ("y", "relu", "cpu", 1.0)
    assert subject.describe()["kind"] == "cpu" and subject.rebind
    assert not make(path=str(relu), unit="cpu", engine="compile", arrays=str(file)).rebind


def on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreml_kind, "is_mac", lambda: True)


def test_on_a_mac_core_ml_comes_first_unless_torch_s_own_settings_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_a_mac(monkeypatch)
    assert isinstance(engines.choose(HowToRun(), "mlProgram"), CoreMLKind)
    assert isinstance(engines.choose(HowToRun(), "pipeline"), CoreMLKind)
    for settings in (HowToRun("f32"), HowToRun(mode="compile"), HowToRun(strict_mil=True)):
        assert isinstance(engines.choose(settings, "mlProgram"), TorchKind)
    assert isinstance(engines.choose(HowToRun(), "mlProgram", frozenset({Can.WATCH})), TorchKind)
    assert isinstance(engines.choose(HowToRun(part=True), "mlProgram"), TorchKind)  # a stage by itself
    assert engines.choose(HowToRun("f32"), "pipeline") is None  # its stages are run one by one
    assert engines.measured().units() == tuple(Unit)
    with pytest.raises(UsageError, match="on a Mac Core ML runs the model"):
        bench("resnet50", precision="f32")


def test_elsewhere_torch_runs_programs_and_nothing_else(tmp_path: Path) -> None:
    if coreml_kind.is_mac():
        pytest.skip("Core ML is here")
    assert isinstance(engines.choose(HowToRun(), "mlProgram"), TorchKind)
    model = packages.MODEL.Model(specificationVersion=4)
    model.customModel.className = "Mine"
    path = tmp_path / "custom.mlmodel"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(LoadError, match=r"customModel cannot be run here: code that only its app contains"):
        load_model(path).prepare()


def test_the_table_is_light() -> None:
    import subprocess
    import sys

    code = "import sys, tlkit.core.model.engines; print([m for m in ('torch', 'coremltools') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
