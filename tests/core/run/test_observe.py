"""Looking into a run: values of operations in between, against numpy; and where an error was.

Covers tlkit/engines/torch/watch.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats import packages
from tests.formats.packages import BIAS, LABELS, MATRIX
from tests.mil.programs import call, function, tensor
from tlkit.core.model.load import load_model
from tlkit.core.run.observe import INDEX
from tlkit.core.run.run import run
from tlkit.engines.torch.engine import TorchEngine
from tlkit.errors import ExecutionError, UsageError
from tlkit.mil.program import Operation, TensorType, Value
from tlkit.mil.types import DType

PIXELS = np.array([[[[10, 20], [30, 250]]]], np.float32)


@pytest.fixture
def given(tmp_path: Path) -> tuple[Path, list[str]]:
    """A classifier whose last steps are cast, linear, softmax, cast, classify; and its input."""
    np.save(tmp_path / "x.npy", PIXELS)
    return packages.classifier(tmp_path / "net.mlpackage"), [f"image={tmp_path}/x.npy"]


def _scores() -> np.ndarray:
    x = (PIXELS.reshape(1, 4) / 255).astype(np.float16).astype(np.float64)
    return (x @ MATRIX.T.astype(np.float64) + BIAS).astype(np.float16)


def test_a_run_stops_at_an_operation_and_has_its_values(given: tuple[Path, list[str]]) -> None:
    result = run(*given, until="z")
    assert list(result.outputs) == ["z"] and result.until == "z"
    assert result.outputs["z"].dtype == np.float16
    np.testing.assert_array_equal(result.outputs["z"], _scores())
    (summary,) = result.summaries
    assert (summary.name, summary.dtype, summary.shape) == ("z", "float16", (1, 3))
    plain = run(*given, until="z", precision="f32").outputs["z"]
    assert plain.dtype == np.float32 and not np.array_equal(plain, _scores().astype(np.float32))


def test_nothing_after_the_operation_runs(tmp_path: Path) -> None:
    """The state is written after the sum: a run that stops at the sum leaves it as it was."""
    model = load_model(packages.accumulator(tmp_path / "net.mlpackage"))
    state = model.make_state()
    assert state is not None
    assert model.watch({"x": [2.0]}, lambda op, values: op.type == "add", state) is None
    assert state.read("sum").tolist() == [0.0]
    outputs = model.watch({"x": [2.0]}, lambda op, values: False, state)
    assert outputs is not None and outputs["y"].tolist() == [2.0] and state.read("sum").tolist() == [2.0]


def test_values_are_written_with_an_index(given: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder = tmp_path / "values"
    result = run(*given, dump=str(folder))
    index = json.loads((folder / INDEX).read_text())
    assert [item["type"] for item in index] == ["mul", "reshape", "cast", "linear", "softmax", "cast", "classify"]
    assert {file.name for file in folder.iterdir()} == {INDEX, *(item["file"] for item in index)}
    by_name = {item["value"]: item for item in index}
    np.testing.assert_array_equal(np.load(folder / by_name["z"]["file"]), _scores())
    assert by_name["z"]["maximum"] == float(_scores().max())
    np.testing.assert_array_equal(np.load(folder / by_name["scaled"]["file"]), PIXELS * np.float32(1 / 255))
    assert result.outputs["label"] in LABELS and len(result.dumped) == len(index)


def test_patterns_choose_by_name_and_type(given: tuple[Path, list[str]], tmp_path: Path) -> None:
    result = run(*given, dump=str(tmp_path / "values"), ops=["soft*", "x16"])
    assert [item.value for item in result.dumped] == ["x16", "p"]
    stopped = run(*given, until="x16", dump=str(tmp_path / "more"))
    assert [item.value for item in stopped.dumped] == ["scaled", "x", "x16"] and list(stopped.outputs) == ["x16"]


@pytest.mark.parametrize(("until", "value"), [("softmax_0", "p"), ("softmax", "p"), ("cast_1", None), ("z", "z")])
def test_a_run_stops_at_a_type_and_its_number(given: tuple[Path, list[str]], until: str, value: str | None) -> None:
    result = run(*given, until=until)
    assert len(result.outputs) == 1 and (value is None or list(result.outputs) == [value])


def test_a_type_of_several_stops_at_the_first_and_says_so(given: tuple[Path, list[str]]) -> None:
    said: list[str] = []
    result = run(*given, until="cast", note=said.append)
    assert list(result.outputs) == ["x16"]
    assert any("--until cast: stopped at" in note for note in said)


def test_a_miss_lists_names_that_work(given: tuple[Path, list[str]]) -> None:
    with pytest.raises(UsageError) as caught:
        run(*given, until="sofmax")
    nearest = caught.value.hint.removeprefix("nearest: ").partition(";")[0].split(", ")
    assert "softmax" in nearest
    assert all(run(*given, until=name).outputs for name in nearest)


def test_the_first_value_that_is_not_finite_is_told(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    result = run(path, ["x=[[60000, 60000, 60000, 60000]]"], dump=str(tmp_path / "values"))
    assert next(item.value for item in result.dumped if item.inf) == "z"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"until": "zz"}, "no operation, value, type or module has that name"),
        ({"until": "matrix"}, "it is a constant"),
        ({"dump": "values", "ops": ["warp"]}, "--ops warp: no operation"),
        ({"ops": ["linear"]}, "there is no --dump"),
        ({"dump": "x.npy"}, "is the input itself"),
        ({"dump": "none/values"}, "there is no folder"),
    ],
)
def test_what_is_not_there_is_told_and_nothing_written(
    given: tuple[Path, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        run(*given, **options)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["net.mlpackage", "x.npy"]


def test_a_failing_run_leaves_no_folder(tmp_path: Path) -> None:
    path = packages.relu(tmp_path / "net.mlpackage", (1, 3), (1, 3))
    file = path / "Data/com.apple.CoreML/model.mlmodel"
    model = packages.MODEL.Model.FromString(file.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    block.operations[0].type = "matmul"
    block.operations[0].inputs["y"].arguments.add(name="x")
    file.write_bytes(model.SerializeToString())
    with pytest.raises(
        ExecutionError, match=r"op 'y' \(matmul\) on x float32\[1x3\], y float32\[1x3\], operation 1 of 1"
    ):
        run(path, dump=str(tmp_path / "values"))
    assert [item.name for item in tmp_path.iterdir()] == ["net.mlpackage"]


def test_functions_are_told_apart(tmp_path: Path) -> None:
    path = packages.accumulator(tmp_path / "net.mlpackage")
    said: list[str] = []
    result = run(path, ["x=[5]"], function="second", note=said.append)
    assert result.function == "second" and result.outputs["y"].tolist() == [5.0]
    assert any("states begin at zero: sum" in note for note in said)
    assert run(path, ["x=[5]"], until="before").outputs["before"].tolist() == [0.0]


def test_an_error_tells_the_place_and_what_the_package_records() -> None:
    kind = tensor("fp32", 2, 3)
    where = Value(TensorType(DType.STRING, ()), ("net.py:12",))
    failing = call("matmul", "product", kind, x="fine", y="fine")
    failing = Operation(failing.type, failing.inputs, failing.outputs, {"source": where})
    engine = TorchEngine(function({"x": kind}, [call("relu", "fine", kind, x="x"), failing], ["product"]))
    for attempt in (engine.run, lambda arrays: engine.watch(arrays, lambda op, values: False)):
        with pytest.raises(ExecutionError) as caught:
            attempt({"x": np.zeros((2, 3), "f4")})
        assert "operation 2 of 2 (source net.py:12)" in caught.value.message


def test_an_optional_port_of_no_declared_type_may_be_left_out(tmp_path: Path) -> None:
    path = packages.relu(tmp_path / "net.mlpackage", (1, 3), (1, 3))
    file = path / "Data/com.apple.CoreML/model.mlmodel"
    model = packages.MODEL.Model.FromString(file.read_bytes())
    port = model.description.input[0].type
    port.isOptional = True
    port.multiArrayType.dataType = 0
    port.multiArrayType.floatDefaultValue = 2.5
    file.write_bytes(model.SerializeToString())
    assert load_model(path).predict({})["y"].tolist() == [[2.5, 2.5, 2.5]]
