"""The engines that run ONNX graphs: ports, classifiers, states, shapes, what is kept, and what they refuse.

Covers tlkit/engines/onnx/engine.py, tlkit/engines/onnx/keep.py, tlkit/engines/onnx/kind.py,
tlkit/engines/openvino/kind.py, tlkit/engines/onnxruntime/kind.py.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.formats import packages
from tests.mil.programs import call, constant, function, tensor
from tlkit.core.model.load import load_model
from tlkit.engines.engine import HowToRun, Loadable
from tlkit.engines.onnx.engine import GraphEngine
from tlkit.engines.onnx.keep import Keep, keep_for
from tlkit.engines.onnx.lower.lower import unsupported
from tlkit.engines.onnx.store import Store
from tlkit.engines.openvino.kind import OpenVINOKind
from tlkit.engines.told import remarks
from tlkit.engines.torch.state import State
from tlkit.errors import LoadError, UnavailableError, UsageError
from tlkit.types import Unit

NAMES = [pytest.param("openvino", marks=pytest.mark.skipif(not OpenVINOKind().installed(), reason="no OpenVINO"))]
NAMES += [pytest.param("onnxruntime")]
X = np.array([[1.0, -2.0, 0.1, 3.0]], np.float32)


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tlkit" / "compiled"


@pytest.mark.parametrize("name", NAMES)
def test_ports_are_the_models_own_and_values_rounded(name: str, tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    found = load_model(path, engine=name).predict({"x": X})["y"]
    half = X.astype(np.float16).astype(np.float64)
    exact = half @ packages.MATRIX.T.astype(np.float64) + packages.BIAS
    np.testing.assert_array_equal(found, exact.astype(np.float16).astype(np.float32))
    assert not np.array_equal(load_model(path, engine=name, precision="f32").predict({"x": X})["y"], found)


@pytest.mark.parametrize("name", NAMES)
def test_runs_one_after_another_and_at_once_give_each_its_own_answer(name: str, tmp_path: Path) -> None:
    model = load_model(packages.linear(tmp_path / "net.mlpackage"), engine=name)
    given = [np.full((1, 4), place, np.float32) for place in range(40)]
    wanted = [x @ packages.MATRIX.T + packages.BIAS for x in given]
    single = [model.predict({"x": x})["y"] for x in given]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: model.predict({"x": x})["y"], given))
    rows = [row["y"] for row in model.predict_rows([{"x": x} for x in given])]
    for found in (single, together, rows):
        np.testing.assert_allclose(np.stack(found), np.stack(wanted), rtol=2**-10)


@pytest.mark.parametrize("name", NAMES)
def test_a_classifier_gives_its_label_and_probabilities(name: str, tmp_path: Path) -> None:
    path = packages.classifier(tmp_path / "net.mlpackage")
    image = np.array([[[[255, 0], [0, 255]]]], np.float32)
    found, wanted = (load_model(path, engine=engine).predict({"image": image}) for engine in (name, "eager"))
    assert found["label"] == wanted["label"]
    assert found["label_probs"].keys() == wanted["label_probs"].keys()
    assert found["label_probs"] == pytest.approx(wanted["label_probs"], abs=2**-11)


@pytest.mark.parametrize("name", NAMES)
def test_states_live_on_in_the_callers_hands(name: str, tmp_path: Path) -> None:
    model = load_model(packages.accumulator(tmp_path / "net.mlpackage"), engine=name, function="second")
    state, other = model.make_state(), model.make_state()
    assert state is not None and other is not None
    sums = [float(model.predict({"x": np.array([x], np.float32)}, state)["y"][0]) for x in (1.0, 2.0, 3.5)]
    assert sums == [1.0, 3.0, 6.5]
    assert float(state.read("sum")[0]) == 6.5 and float(other.read("sum")[0]) == 0
    state.write("sum", [10.0])
    assert float(model.predict({"x": np.array([1], np.float32)}, state)["y"][0]) == 11
    with pytest.raises(UsageError, match="another model's"):
        model.predict({"x": np.array([1], np.float32)}, State({"sum": torch.zeros(3)}))


@pytest.mark.parametrize("name", NAMES)
def test_each_shape_has_its_graph_and_few_are_held(name: str, tmp_path: Path) -> None:
    path = packages.relu(tmp_path / "net.mlpackage", (None, 3), (1, 3))
    program = load_model(path).function
    engine = _engine(name, program, path)
    for rows in (1, 4, *range(2, 14), 4):
        x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) - 2
        np.testing.assert_array_equal(engine.run({"x": x})["y"], np.maximum(x, 0))
    assert len(engine._sessions) == 8
    mixed = [np.full((rows, 3), rows - 2, np.float32) for rows in (4, 2, 4, 1)]
    for x, row in zip(mixed, engine.run_rows([{"x": x} for x in mixed]), strict=True):
        np.testing.assert_array_equal(row["y"], np.maximum(x, 0))


def _engine(name: str, program: Any, path: Path) -> GraphEngine:
    from tlkit.core.model.engines import ENGINES

    kind = next(kind for kind in ENGINES if kind.name == name)
    made = kind.load(Loadable(path, (), (), None, program), HowToRun(mode=name))
    assert isinstance(made, GraphEngine)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_overflow_and_nan_appear_and_pass_through_activations(name: str, tmp_path: Path) -> None:
    kind = tensor("fp16", 1, 4, 2, 2)
    ops = [
        call("mul", "m", kind, x="x", y="x"),
        call("sub", "n", kind, x="m", y="m"),
        call("relu", "r", kind, x="n"),
        call("relu", "s", kind, x="m"),
    ]
    program = function({"x": kind}, ops, ["m", "n", "r", "s"])
    x = np.array([300.0, 255.9, -256, 1], np.float32).reshape(1, 4, 1, 1).repeat(2, 2).repeat(2, 3)
    found = _engine(name, lambda: program, tmp_path).run({"x": x})
    assert np.isposinf(found["m"][0, 0]).all() and np.isfinite(found["m"][0, 1]).all()
    assert np.isposinf(found["m"][0, 2]).all() and np.isposinf(found["s"][0, 2]).all()
    for output in ("n", "r"):
        assert np.isnan(found[output][0, 0]).all() and not np.isnan(found[output][0, 1]).any()


@pytest.mark.parametrize("name", NAMES)
def test_one_overflow_and_one_nan_in_a_window_are_the_pools(name: str, tmp_path: Path) -> None:
    kind, pooled = tensor("fp16", 1, 4, 2, 2), tensor("fp16", 1, 4, 1, 1)
    window = {"kernel_sizes": "k", "strides": "k", "pad_type": "way"}
    ops = [
        constant("k", [2, 2], "int32"),
        constant("way", "valid", "string"),
        call("mul", "m", kind, x="x", y="x"),
        call("relu", "r", kind, x="m"),
        call("max_pool", "largest", pooled, x="r", **window),
        call("mul", "m2", kind, x="x", y="x"),
        call("sub", "n", kind, x="m2", y="m2"),
        call("max_pool", "lost", pooled, x="n", **window),
    ]
    program = function({"x": kind}, ops, ["largest", "lost"])
    x = np.ones((1, 4, 2, 2), np.float32)
    x[0, :3, 1, 0] = 300, 255.9, -256
    found = _engine(name, lambda: program, tmp_path).run({"x": x})
    wanted = np.float32(255.9).astype(np.float16).astype(np.float32) ** 2
    half = wanted.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found["largest"].ravel(), [np.inf, half, np.inf, 1])
    np.testing.assert_array_equal(found["lost"].ravel(), [np.nan, 0, np.nan, 0])


def test_what_was_compiled_is_kept_and_a_damaged_entry_is_made_again(folder: Path, tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    wanted = load_model(path, engine="onnxruntime").predict({"x": X})["y"]
    (entry,) = folder.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(whole[:-9] + bytes(9))
    np.testing.assert_array_equal(load_model(path, engine="onnxruntime").predict({"x": X})["y"], wanted)
    assert entry.read_bytes() != whole[:-9] + bytes(9)
    load_model(path, engine="onnxruntime", precision="f32").predict({"x": X})
    assert len(list(folder.iterdir())) == 2


def test_a_kept_graph_needs_no_second_compilation(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    wanted = load_model(path, engine="onnxruntime").predict({"x": X})["y"]
    from tlkit.engines.onnxruntime.runtime import OnnxRuntime

    def refuse(self: object, model: object, *, keep: bool) -> object:
        raise AssertionError("compiled again")

    monkeypatch.setattr(OnnxRuntime, "compile", refuse)
    np.testing.assert_array_equal(load_model(path, engine="onnxruntime").predict({"x": X})["y"], wanted)
    monkeypatch.setattr("tlkit.engines.onnx.selftest.keeps_rounding", lambda *given: True)
    with pytest.raises(AssertionError, match="compiled again"):
        load_model(path, engine="onnxruntime", cache=False).predict({"x": X})


def test_what_was_compiled_before_runs_without_pytorch(tmp_path: Path) -> None:
    """Importing it takes longer than the rest of a first result."""
    path = packages.linear(tmp_path / "net.mlpackage")
    wanted = load_model(path).bind({"x": X})()
    code = f"""
import sys
import numpy as np
from tlkit.core.model.load import load_model
model = load_model({str(path)!r})
print(model.predict({{"x": np.array({X.tolist()}, np.float32)}})["y"].tolist(), "torch" in sys.modules)
print(model.engine.why)
"""
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    if "PyTorch" not in made:  # where the trial chose it, it runs
        assert made.splitlines()[0] == f"{np.asarray(wanted[0]).tolist()} False"


@pytest.mark.parametrize("name", NAMES)
def test_several_streams_give_each_caller_its_own_answer(name: str, tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    model = load_model(path, engine=name, streams=2)
    assert isinstance(model.engine, GraphEngine)
    assert model.engine.streams({"x": X}) >= 1
    given = [np.full((1, 4), place, np.float32) for place in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: model.predict({"x": x})["y"], given))
    wanted = [load_model(path, engine=name).predict({"x": x})["y"] for x in given[:3]]
    np.testing.assert_array_equal(np.stack(found[:3]), np.stack(wanted))
    np.testing.assert_allclose(
        np.stack(found), np.stack([x @ packages.MATRIX.T + packages.BIAS for x in given]), rtol=2**-10
    )


def test_f16_weights_of_a_large_model_are_widened_as_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlkit.mil.ops.kit.narrow.FROM", 1)
    path = packages.stack(tmp_path / "net.mlpackage", 3, 1024)
    x = np.linspace(-2, 2, 1024, dtype=np.float32).reshape(1, -1)
    sessions = []
    for limit in (0, 1 << 30):
        monkeypatch.setattr("tlkit.engines.onnxruntime.runtime.LARGE", limit)
        engine = _engine("onnxruntime", load_model(path).function, path)
        wanted = load_model(path, engine="eager").predict({"x": x})["y"]
        for _ in range(2):
            np.testing.assert_allclose(engine.run({"x": x})["y"], wanted, atol=2**-11 * np.abs(wanted).max())
        sessions += engine._sessions.values()
    found, other = (item._session for item in sessions)  # type: ignore[attr-defined]
    assert [len(item.get_inputs()) for item in (found, other)] == [4, 1]


def test_another_weight_is_another_key(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    before = load_model(path, engine="onnxruntime").predict({"x": X})["y"]
    (weights,) = path.rglob("weight.bin")
    data = weights.read_bytes()
    matrix = packages.MATRIX.tobytes()
    weights.write_bytes(data.replace(matrix, (2 * packages.MATRIX).tobytes()))
    after = load_model(path, engine="onnxruntime").predict({"x": X})["y"]
    np.testing.assert_array_equal(after - packages.BIAS, 2 * (before - packages.BIAS))


def test_an_unwritable_folder_is_a_note(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("not a folder")
    remarks()
    keep = Keep("model", Store(place / "compiled"))
    keep.store("graph", lambda: b"compiled")
    keep.store("graph", lambda: b"compiled")
    heard = remarks()
    assert len(heard) == 1 and heard[0].startswith("compiled models are not kept")
    assert keep.load("graph") is None and not keep.has("graph")


def test_a_stage_is_not_kept(tmp_path: Path) -> None:
    model = Loadable(tmp_path, (), (), None, lambda: pytest.fail("not read"))
    keep = keep_for(model, HowToRun(part=True))
    keep.store("graph", lambda: pytest.fail("asked for"))
    assert not keep.has("graph")


def test_a_missing_library_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    path = packages.linear(tmp_path / "net.mlpackage")
    with pytest.raises(UnavailableError, match="openvino and onnx not installed") as error:
        load_model(path, engine="openvino").predict({"x": X})
    assert error.value.hint == "pip install 'tlkit[openvino]'" and error.value.exit_code == 3


def test_settings_that_it_does_not_take_are_refused(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    with pytest.raises(UsageError, match="ONNX Runtime does not run at precision 'bf16'"):
        load_model(path, engine="onnxruntime", precision="bf16").predict({"x": X})
    with pytest.raises(UsageError, match="PyTorch does not run at precision 'bf16'"):
        load_model(path, engine="eager", precision="bf16").predict({"x": X})
    with pytest.raises(UsageError, match="runs on the CPU here"):
        load_model(path, engine="onnxruntime", unit=Unit.GPU).predict({"x": X})


def test_an_operation_without_a_graph_is_named(tmp_path: Path) -> None:
    kind = tensor("fp32", 2, 3)
    program = function({"x": kind}, [call("non_zero", "y", tensor("int32", None, 2), x="x")], ["y"])
    with pytest.raises(LoadError, match=r"op 'y' \(non_zero\) has no counterpart in ONNX here") as error:
        _engine("onnxruntime", lambda: program, tmp_path).run({"x": np.ones((2, 3), np.float32)})
    assert error.value.exit_code == 3


@pytest.mark.parametrize("name", NAMES)
def test_sizes_that_a_program_computes_from_shapes_need_no_lowering(name: str, tmp_path: Path) -> None:
    ops = [
        constant("two", 2, "int32"),
        constant("one", 1.0, "fp32"),
        constant("axes", [0, 1], "int32"),
        constant("keep", True, "bool"),
        call("shape", "sizes", tensor("int32", 2), x="x"),
        call("floor_div", "half", tensor("int32", 2), x="sizes", y="two"),
        call("fill", "ones", tensor("fp32", None, None), shape="half", value="one"),
        call("reduce_max", "most", tensor("fp32", 1, 1), x="x", axes="axes", keep_dims="keep"),
        call("add", "y", tensor("fp32", None, None), x="ones", y="most"),
    ]
    program = function({"x": tensor("fp32", None, None)}, ops, ["y"])
    assert unsupported(program) is None
    engine = _engine(name, lambda: program, tmp_path)
    for shape in ((4, 6), (2, 9)):
        found = engine.run({"x": np.full(shape, 2.5, np.float32)})["y"]
        np.testing.assert_array_equal(found, np.full((shape[0] // 2, shape[1] // 2), 3.5))
    ops[1:2] = [call("reduce_sum", "one", tensor("fp32"), x="x")]  # a value that decides on no size is no constant
    ops[4:4] = [call("non_zero", "places", tensor("int32", None, 2), x="x")]
    assert unsupported(function({"x": tensor("fp32", None, None)}, ops, ["y", "places"])) == "non_zero"
