"""Two models of any kind on the same inputs: what belongs together, what is said, and when they differ.

Covers tlkit/core/judge/side.py, tlkit/core/judge/sides.py, tlkit/core/judge/source.py, tlkit/core/judge/inputs.py,
tlkit/core/judge/pair.py, tlkit/core/judge/outputs.py.
"""

from __future__ import annotations

import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.formats import packages
from tlkit.core.convert.capture.cases import Case
from tlkit.core.judge.compare import compare
from tlkit.core.judge.inputs import index_ranges
from tlkit.core.judge.outputs import match_outputs
from tlkit.core.judge.sides import PackageSide
from tlkit.core.model.load import load_model
from tlkit.engines.torch.engine import TorchEngine
from tlkit.errors import LoadError, UsageError

SOURCE = """
import torch
from torch import nn
class Net(nn.Module):
    shift = 0.0
    def __init__(self):
        super().__init__()
        self.register_buffer("w", torch.arange(12.0).reshape(3, 4) / 8)
        self.register_buffer("b", torch.tensor([0.5, -0.5, 0.25]))
    def forward(self, x):
        return x @ self.w.T + self.b + self.shift
class Shifted(Net):
    shift = 0.125
"""


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return packages.linear(tmp_path / "linear.mlpackage")


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(SOURCE)
    return f"{tmp_path}/net.py"


def twin(path: Path, bias: np.ndarray | None = None, name: str = "scores") -> Path:
    """The same network as an ONNX file, with an output of another name."""
    weights = {"w": packages.MATRIX.T.astype(np.float32), "b": packages.BIAS.astype(np.float32)}
    if bias is not None:
        weights["b"] = bias.astype(np.float32)
    made = [helper.make_tensor(key, TensorProto.FLOAT, value.shape, value.ravel()) for key, value in weights.items()]
    ports = [helper.make_tensor_value_info(key, TensorProto.FLOAT, [1, n]) for key, n in (("input", 4), (name, 3))]
    nodes = [helper.make_node("MatMul", ["input", "w"], ["h"]), helper.make_node("Add", ["h", "b"], [name])]
    graph = helper.make_graph(nodes, "twin", ports[:1], ports[1:], made)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_source_agrees_with_its_package_and_not_with_another(linear: Path, source: str) -> None:
    found = compare(f"{source}:Net", linear)
    assert found.ok and found.outputs[0].top1 == 1 and len(found.verification.cases) == 3
    assert 0 < found.outputs[0].difference.max_abs < 0.02  # f16 beside f32
    shifted = compare(f"{source}:Shifted", linear, atol=0.05, rtol=0)
    assert not shifted.ok and "3 of 3 values outside atol 0.05" in shifted.verification.reasons[0]
    assert shifted.outputs[0].difference.max_abs == pytest.approx(0.125, abs=0.02)


def test_ports_are_matched_by_shape_where_names_differ(linear: Path, tmp_path: Path) -> None:
    found = compare(twin(tmp_path / "twin.onnx"), linear)
    assert found.ok and found.outputs[0].other == "y"
    assert any("scores" in note and "y of b" in note and "shape" in note for note in found.notes)


def test_one_package_at_two_precisions(linear: Path) -> None:
    found = compare(linear, precision="f32,f16", min_snr=200)
    assert not found.ok and found.told[0] != found.told[1]
    with pytest.raises(UsageError, match="nothing to compare"):
        compare(linear)


def test_the_first_model_is_let_go_before_the_second_runs(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: dict[int, weakref.ref[object]] = {}
    alive: list[list[bool]] = []
    plain = PackageSide.run

    def run(side: PackageSide, case: Case) -> Any:
        alive.append([found() is not None for key, found in ran.items() if key != id(side)])
        outputs = plain(side, case)
        assert isinstance(side.model.engine, TorchEngine)
        ran[id(side)] = weakref.ref(side.model.engine.module)
        return outputs

    monkeypatch.setattr(PackageSide, "run", run)
    compare(linear, precision="f32,f16", count=2)
    assert alive == [[], [], [False], [False]]


@pytest.mark.slow
def test_two_models_take_little_more_memory_than_one(tmp_path: Path) -> None:
    """Two of 67 MB in f16: expanded to f32 a second one beside the first would be 134 MB more."""
    a, b = (str(packages.stack(tmp_path / f"{name}.mlpackage", 2, 4096)) for name in "ab")
    one = f"m = tlkit.load_model({a!r}, engine='eager'); m.predict({{'x': numpy.zeros((1, 4096), numpy.float16)}})"
    two = f"assert tlkit.compare({a!r}, {b!r}).ok"
    peak = "print(re.search(r'VmHWM:\\s*(\\d+) kB', open('/proc/self/status').read())[1])"
    imports = "import re, numpy, torch, tlkit, tlkit.core.judge.inputs, tlkit.core.compare.models"
    found = [
        int(
            subprocess.run([sys.executable, "-c", f"{imports}\n{code}\n{peak}"], check=True, capture_output=True).stdout
        )
        for code in (one, two)
    ]
    assert found[1] - found[0] < 60_000, found


@pytest.mark.slow
def test_saved_outputs_are_a_side(linear: Path, tmp_path: Path) -> None:
    x = np.array([[1.0, -2.0, 0.5, 3.0]], np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "out.npz", y=load_model(linear).predict({"x": x})["y"])
    given = [f"x={tmp_path}/x.npy"]
    assert compare(linear, tmp_path / "out.npz", inputs=given, rtol=0, atol=0).ok
    np.savez(tmp_path / "other.npz", y=load_model(linear).predict({"x": x})["y"] + 0.5)
    assert not compare(linear, tmp_path / "other.npz", inputs=given).ok


def test_a_folder_of_samples_and_its_worst_one(linear: Path, source: str, tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    for index, size in enumerate((0.5, 1.0, 900.0)):
        np.savez(folder / f"{index}.npz", x=np.full((1, 4), size, np.float32) * [1, 2, 3, 4.1])
    found = compare(f"{source}:Net", linear, samples=folder, save_worst=tmp_path / "worst.npz", min_snr=40)
    assert found.verification.cases == ("0.npz", "1.npz", "2.npz")
    saved = np.load(tmp_path / "worst.npz")
    index = int(found.worst[0])
    assert set(saved) >= {"x", "a.output", "b.y"}
    assert np.array_equal(saved["x"], np.load(folder / f"{index}.npz")["x"].astype(np.float32))
    # The outputs that were saved are those of that input.
    assert np.allclose(saved["a.output"], saved["x"] @ packages.MATRIX.T.astype(float) + packages.BIAS, rtol=1e-5)


def test_what_does_not_fit_lists_both_sides(linear: Path, tmp_path: Path, source: str) -> None:
    other = packages.relu(tmp_path / "relu.mlpackage", (2, 2, 8), (2, 2, 8))
    with pytest.raises(UsageError, match=r"inputs do not match|does not fit"):
        compare(linear, other)
    (tmp_path / "bad").mkdir()
    np.savez(tmp_path / "bad" / "0.npz", x=np.zeros((1, 9), np.float32))
    with pytest.raises(UsageError, match="does not fit"):
        compare(linear, twin(tmp_path / "t.onnx"), samples=tmp_path / "bad")
    with pytest.raises(LoadError, match="no such folder"):
        compare(linear, linear, samples=tmp_path / "missing", precision="f16,f32")
    with pytest.raises(UsageError, match="what does it take"):
        compare(f"{source}:Net", f"{source}:Shifted")
    assert not compare(f"{source}:Net", f"{source}:Shifted", ports=["x=1x4"]).ok


def test_pictures_that_one_side_does_not_take_are_refused(tmp_path: Path) -> None:
    """Grey 2x2 beside colour 2x2, and beside grey 4x4: both sides are in the message, and nothing has run."""
    grey = packages.classifier(tmp_path / "grey.mlpackage")
    kinds = packages.FEATURES.ImageFeatureType
    for name, side, space in (("colour", 2, kinds.RGB), ("larger", 4, kinds.GRAYSCALE)):
        other = packages.classifier(tmp_path / f"{name}.mlpackage")
        (file,) = other.rglob("*.mlmodel")
        model = packages.MODEL.Model.FromString(file.read_bytes())
        image = model.description.input[0].type.imageType
        image.width, image.height, image.colorSpace = side, side, space
        file.write_bytes(model.SerializeToString())
        taken = f"image 1x{3 if name == 'colour' else 1}x{side}x{side}"
        with pytest.raises(UsageError, match=rf"{name}.mlpackage takes {taken}; given are image 1x1x2x2"):
            compare(grey, other)
    with pytest.raises(LoadError, match="no such file"):
        compare(tmp_path / "absent.mlpackage", grey)


def test_a_source_of_pixels_is_told_what_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "sum.py").write_text(
        "import torch\nclass Sum(torch.nn.Module):\n    def forward(self, image):\n        return image.sum((2, 3))\n"
    )
    notes: list[str] = []
    with pytest.raises(UsageError, match="no outputs match"):
        compare(packages.classifier(tmp_path / "grey.mlpackage"), f"{tmp_path}/sum.py:Sum", note=notes.append)
    assert any("0 to 255" in note and "--image image=1x1x2x2:GRAYSCALE:scale=1/255" in note for note in notes)


@pytest.mark.parametrize("turned", [False, True])
def test_an_open_length_is_that_of_the_other_side(tmp_path: Path, turned: bool) -> None:
    """An ONNX file that takes any length beside a package of one: either way round both run at the package's."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "open", ports[:1], ports[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "open.onnx"
    )
    fixed = packages.relu(tmp_path / "fixed.mlpackage", (1, 12), (1, 12))
    pair = (tmp_path / "open.onnx", fixed)
    found = compare(*(pair[::-1] if turned else pair), save_worst=tmp_path / "worst.npz")
    assert found.ok and np.load(tmp_path / "worst.npz")["x"].shape == (1, 12)


def test_a_nan_in_the_reference_is_said(linear: Path, tmp_path: Path) -> None:
    bias = np.array([0.5, np.nan, 0.25])
    found = compare(twin(tmp_path / "t.onnx", bias), linear)
    assert not found.ok and any("3 NaN or infinite in the reference" in note for note in found.notes)


def test_top1_needs_classes_and_counts_them(linear: Path, tmp_path: Path) -> None:
    turned = twin(tmp_path / "t.onnx", np.array([90.0, 0.0, 0.0]))
    found = compare(turned, linear, min_top1=0.9, inputs=["input=[[1,1,1,1]]"])
    assert not found.ok and found.outputs[0].top1 == 0 and "top-1 agreement 0.00%" in found.verification.reasons[-1]


def test_outputs_of_one_shape_are_matched_by_place() -> None:
    a = {"p": np.zeros((1, 3)), "q": np.ones((1, 3)), "r": np.zeros(5)}
    b = {"u": np.zeros(3), "v": np.ones(3), "w": np.zeros(5), "x": np.zeros(7)}
    matched, notes = match_outputs(a, b, "a", "b")
    assert matched == {"p": "u", "q": "v", "r": "w"}
    assert any("x of b has no counterpart" in note for note in notes)


def test_outputs_of_one_shape_in_another_order_are_told_by_their_values() -> None:
    x, y = np.array([[1.0, -2, 3, 0.5]]), np.array([[4.0, 4, -1, 2]])
    matched, notes = match_outputs({"p": x, "q": y}, {"u": y + 0.01, "v": x - 0.01}, "a", "b")
    assert matched == {"p": "v", "q": "u"} and "its values" in notes[0]
    # Where no value is close, their order is all that is left.
    assert match_outputs({"p": x, "q": y}, {"u": -x, "v": -y}, "a", "b")[0] == {"p": "u", "q": "v"}


def test_integers_that_index_a_table_are_in_its_range(tmp_path: Path) -> None:
    body = packages.Body()
    body.input("ids", packages.tensor_type("int32", 1, 6))
    table = packages.immediate("fp32", [float(i) for i in range(21)])
    table.type.CopyFrom(packages.tensor_type("fp32", 7, 3))
    axis = body.const("axis", packages.immediate("int32", 0))
    body.op(
        "gather",
        {"y": packages.tensor_type("fp32", 1, 6, 3)},
        {"x": body.const("table", table), "indices": "ids", "axis": axis},
    )
    body.returns("y")
    model = packages.MODEL.Model(specificationVersion=8)
    packages.array_feature(model.description.input.add(), "ids", packages.ARRAYS.INT32, 1, 6)
    packages.array_feature(model.description.output.add(), "y", packages.ARRAYS.FLOAT32, 1, 6, 3)
    model.mlProgram.CopyFrom(body.message)
    path = packages.write(tmp_path / "table.mlpackage", model)
    assert dict(index_ranges(load_model(path).function())) == {"ids": 7}
