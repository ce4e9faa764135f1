"""``auto``: PyTorch first, a graph when it pays, PyTorch again for what has no graph.

Covers tlkit/engines/auto/kind.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats import packages
from tests.mil.programs import call, function, tensor
from tlkit.core.model.load import load_model
from tlkit.engines.auto.engine import FIRST, AutoEngine
from tlkit.engines.auto.kind import AutoKind
from tlkit.engines.engine import HowToRun, Loadable
from tlkit.engines.onnx.kit.graph import UnsupportedGraph
from tlkit.engines.onnxruntime.kind import OnnxRuntimeKind
from tlkit.engines.openvino.kind import OpenVINOKind
from tlkit.engines.torch.kind import TorchKind
from tlkit.errors import UnavailableError, UsageError
from tlkit.types import TensorSpec, Unit

X = np.array([[1.0, -2.0, 0.1, 3.0]], np.float32)
PORTS = (TensorSpec("x", "float32", (2, 3)), TensorSpec("y", "int32", (1, 2)))
KIND = AutoKind((OnnxRuntimeKind(),), TorchKind())


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # A program this small takes as long on any engine; test_trial.py has the trial itself.
    monkeypatch.setattr("tlkit.engines.auto.engine.trial", lambda calls: dict(zip(calls, range(9), strict=False)))
    monkeypatch.setattr("tlkit.engines.auto.engine.is_busy", lambda: False)  # as the tests themselves may make it


def loaded(tmp_path: Path, **settings: object) -> AutoEngine:
    path = tmp_path / "net.mlpackage"
    model = load_model(path if path.exists() else packages.linear(path))
    made = KIND.load(model.loadable(), HowToRun(mode="auto", **settings))  # type: ignore[arg-type]
    assert isinstance(made, AutoEngine)
    return made


def test_the_first_inferences_are_pytorchs_and_later_ones_a_graphs(tmp_path: Path) -> None:
    engine = loaded(tmp_path)
    found = []
    for _ in range(FIRST):
        found.append(engine.run({"x": X})["y"])
        assert engine.why.startswith("PyTorch, eager, for the first")
    found.append(engine.run({"x": X})["y"])
    assert engine.why.startswith("ONNX Runtime") and engine.describe()["backend"].startswith("ONNX Runtime")
    for each in found:
        np.testing.assert_array_equal(each, found[0])


def test_binding_and_what_was_compiled_before_start_with_the_graph(tmp_path: Path) -> None:
    engine = loaded(tmp_path)
    (bound,) = engine.bind({"x": X})()
    again = loaded(tmp_path)
    np.testing.assert_array_equal(again.run({"x": X})["y"], bound)
    assert again.why.startswith("ONNX Runtime")


@pytest.mark.parametrize("fastest", ["OpenVINO", "ONNX Runtime", "PyTorch"])
def test_the_fastest_in_a_trial_runs_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fastest: str
) -> None:
    pytest.importorskip("openvino")
    kind = AutoKind((OpenVINOKind(), OnnxRuntimeKind()), TorchKind())
    model = load_model(packages.linear(tmp_path / "net.mlpackage")).loadable()
    asked: list[list[str]] = []

    def steered(calls: dict[str, Any]) -> dict[str, float]:
        asked.append(list(calls))
        return {name: 1.0 + (name != fastest) for name in calls}

    monkeypatch.setattr("tlkit.engines.auto.engine.trial", steered)
    first, again = (kind.load(model, HowToRun(mode="auto")) for _ in range(2))
    assert isinstance(first, AutoEngine) and isinstance(again, AutoEngine)
    (wanted,) = first.bind({"x": X})()
    found = again.run({"x": X})["y"] if fastest != "PyTorch" else again.bind({"x": X})()[0]
    np.testing.assert_array_equal(found, wanted)
    assert asked == [["OpenVINO", "ONNX Runtime", "PyTorch"]]  # once: the second engine was told
    assert first.why.startswith(fastest) and "in a trial" in first.why
    assert again.why.startswith(fastest) and "before" in again.why
    # the choice, the graph of the chosen engine only, and that the program has one
    entries = list((tmp_path / "cache" / "tlkit" / "compiled").iterdir())
    assert len(entries) == (2 if fastest == "PyTorch" else 3)


def test_what_needs_more_memory_than_there_is_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = loaded(tmp_path)
    monkeypatch.setattr("tlkit.engines.auto.engine.available_memory", lambda: 1000)
    wanted = engine.run({"x": X})["y"]
    for _ in range(FIRST):
        np.testing.assert_array_equal(engine.run({"x": X})["y"], wanted)
    assert engine.why.startswith("PyTorch, eager: ONNX Runtime was left out: compiling takes about")
    assert "1 kB are free" in engine.why


def test_a_large_models_weights_are_not_held_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlkit.engines.onnxruntime.runtime import OnnxRuntime

    monkeypatch.setattr("tlkit.engines.auto.engine.LARGE", 0)
    engine, compile_, held = loaded(tmp_path), OnnxRuntime.compile, []

    def compiling(self: OnnxRuntime, model: Any, *, keep: bool = True) -> Any:
        held.append(engine._eager)
        return compile_(self, model, keep=keep)

    monkeypatch.setattr(OnnxRuntime, "compile", compiling)
    found = [engine.run({"x": X})["y"] for _ in range(FIRST + 1)]
    assert engine.why.startswith("ONNX Runtime") and held[-1] is None
    for each in found:
        np.testing.assert_array_equal(each, found[0])


def test_a_choice_on_a_busy_machine_is_for_this_process_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlkit.engines.auto.engine.is_busy", lambda: True)
    engine = loaded(tmp_path)
    engine.bind({"x": X})
    assert engine.why.startswith("ONNX Runtime: the fastest in a trial") and engine.why.endswith("machine is busy")
    asked: list[str] = []

    def last(calls: dict[str, Any]) -> dict[str, float]:
        asked.extend(calls)
        return dict(zip(reversed(list(calls)), range(9), strict=False))

    monkeypatch.setattr("tlkit.engines.auto.engine.trial", last)
    later = loaded(tmp_path)
    later.bind({"x": X})
    assert asked and later.why.startswith("PyTorch")


def test_a_graph_that_a_busy_machine_left_runs_until_there_is_another_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlkit.engines.auto.engine.is_busy", lambda: True)
    (bound,) = loaded(tmp_path).bind({"x": X})()
    monkeypatch.setattr("tlkit.engines.auto.engine.is_busy", lambda: False)
    later, whys = loaded(tmp_path), []
    for _ in range(FIRST + 1):
        np.testing.assert_array_equal(later.run({"x": X})["y"], bound)
        whys.append(later.why)
    assert whys[:FIRST] == ["ONNX Runtime: compiled before"] * FIRST
    assert whys[FIRST].startswith("ONNX Runtime: the fastest in a trial")


def test_pytorch_runs_on_where_a_trial_showed_it_to_be_the_fastest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tlkit.engines.auto.engine.trial", lambda calls: {name: float(not name.startswith("PyTorch")) for name in calls}
    )
    bound = loaded(tmp_path).bind({"x": X})()
    later = loaded(tmp_path)
    for _ in range(FIRST + 2):
        np.testing.assert_array_equal(later.run({"x": X})["y"], np.asarray(bound[0]).reshape(1, -1))
    assert later.why == "PyTorch, eager: the fastest here, as a trial showed before"


def test_a_program_without_a_graph_stays_on_pytorch(tmp_path: Path) -> None:
    kind = tensor("fp32", 2, 3)
    program = function({"x": kind}, [call("non_zero", "y", tensor("int32", None, 2), x="x")], ["y"])
    engine = KIND.load(Loadable(tmp_path, PORTS[:1], PORTS[1:], None, lambda: program), HowToRun(mode="auto"))
    assert isinstance(engine, AutoEngine)
    assert engine.why == "PyTorch, eager: 'non_zero' has no counterpart in ONNX here"


def test_an_engine_that_refuses_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlkit.engines.onnxruntime.runtime import OnnxRuntime

    engine = loaded(tmp_path)
    wanted = engine.run({"x": X})["y"]

    def refuse(self: object, model: object, *, keep: bool) -> object:
        raise UnsupportedGraph("no such graph")

    monkeypatch.setattr("tlkit.engines.onnx.selftest.keeps_rounding", lambda *given: True)
    monkeypatch.setattr(OnnxRuntime, "compile", refuse)
    np.testing.assert_array_equal(engine.bind({"x": X})()[0], wanted)
    assert engine.why == "PyTorch, eager: ONNX Runtime was left out: no such graph"
    np.testing.assert_array_equal(engine.run({"x": X})["y"], wanted)


def test_a_runtime_that_loses_the_rounding_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlkit.engines.onnx.selftest.keeps_rounding", lambda *given: False)
    monkeypatch.setattr("tlkit.engines.onnx.selftest._FOUND", {})
    engine = loaded(tmp_path)
    engine.bind({"x": X})
    assert "does not keep f16's rounding" in engine.why and engine.why.startswith("PyTorch")


def test_a_gpu_is_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KIND.candidates(HowToRun(mode="auto")) == KIND.faster
    assert KIND.candidates(HowToRun(mode="auto", unit=Unit.GPU)) == ()
    monkeypatch.setattr("tlkit.engines.auto.kind.gpu_expected", lambda: True)
    assert KIND.candidates(HowToRun(mode="auto", unit=Unit.ALL)) == ()


def test_bf16_without_openvino_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = KIND.refuses(HowToRun("bf16", "auto"))
    assert refusal is not None and refusal.hint == "pip install 'tlkit[openvino]'"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="bf16"):
        load_model(packages.linear(tmp_path / "net.mlpackage"), precision="bf16").prepare()


def test_nothing_is_run_in_f32_and_called_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    kind = AutoKind((OpenVINOKind(), OnnxRuntimeKind()), TorchKind())
    monkeypatch.setattr("tlkit.engines.openvino.runtime.has_bf16", lambda: False)
    engine = kind.load(load_model(packages.linear(tmp_path / "net.mlpackage")).loadable(), HowToRun("bf16", "auto"))
    for ask in (engine.run, engine.bind):
        with pytest.raises(UnavailableError, match="this processor computes no bf16"):
            ask({"x": X})
    port = tensor("fp32", 2, 3)
    program = function({"x": port}, [call("non_zero", "y", tensor("int32", None, 2), x="x")], ["y"])
    engine = kind.load(Loadable(tmp_path, PORTS[:1], PORTS[1:], None, lambda: program), HowToRun("bf16", "auto"))
    with pytest.raises(UnavailableError, match="'non_zero' has no counterpart"):
        engine.run({"x": np.ones((2, 3), np.float32)})
