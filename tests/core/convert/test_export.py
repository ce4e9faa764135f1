"""Core ML models out to ``.pt2`` and ONNX: torch.export.load and onnxruntime run them, without tlkit.

The values are those of numpy (small models) and of our executor, which other tests hold to PyTorch.

Covers tlkit/core/convert/exported/exportable.py, tlkit/core/convert/exported/check.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats import packages
from tests.formats.packages import BIAS, LABELS, MATRIX
from tlkit.core.convert.door import PROGRAMS
from tlkit.core.convert.export import FORMATS, export
from tlkit.core.model.load import load_model
from tlkit.errors import ConversionError, LoadError, UnavailableError, UsageError

X = np.array([[1.0, -2.0, 0.5, 3.0]], np.float32)
Y = X.astype(np.float64) @ MATRIX.T.astype(np.float64) + BIAS


def run_onnx(path: Path, **inputs: np.ndarray) -> dict[str, Any]:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs), strict=True))


def run_pt2(path: Path, *inputs: np.ndarray) -> dict[str, Any]:
    import torch

    outputs = torch.export.load(path).module()(*map(torch.from_numpy, inputs))
    return {name: value.detach().numpy() for name, value in outputs.items()}


def run(path: Path, **inputs: np.ndarray) -> dict[str, Any]:
    return run_onnx(path, **inputs) if path.suffix == ".onnx" else run_pt2(path, *inputs.values())


@pytest.fixture(params=FORMATS)
def ending(request: pytest.FixtureRequest) -> str:
    if request.param == ".onnx":
        pytest.importorskip("onnxscript")
    return str(request.param)


def test_a_linear_map_is_what_numpy_computes(tmp_path: Path, ending: str) -> None:
    made = export(packages.linear(tmp_path / "net.mlpackage"), tmp_path / f"net{ending}")
    assert made.ok and made.verification is not None and made.verification.passed
    np.testing.assert_allclose(run(made.path, x=X)["y"], Y, rtol=1e-3)


@pytest.mark.parametrize(("strict", "corner"), [(False, 12), (True, 48)])
def test_what_core_ml_does_is_exported_unless_the_specification_is_asked_for(
    tmp_path: Path, ending: str, strict: bool, corner: float
) -> None:
    made = export(packages.ceil_pool(tmp_path / "pool.mlpackage"), tmp_path / f"pool{ending}", strict_mil=strict)
    assert made.ok and made.verification is not None and made.verification.passed
    x = np.arange(49, dtype=np.float32).reshape(1, 1, 7, 7)
    assert run(made.path, x=x)["y"][0, 0, 2, 2] == corner


def test_a_pt2_runs_where_there_is_no_tlkit(tmp_path: Path) -> None:
    made = export(packages.linear(tmp_path / "net.mlpackage"), tmp_path / "net.pt2", verify=False)
    code = (
        "import sys, torch\n"
        "module = torch.export.load(sys.argv[1]).module()\n"
        f"print(module(torch.tensor({X.tolist()}))['y'].tolist())\n"
        "assert not [name for name in sys.modules if name.startswith(('tlkit', 'coremltools'))]\n"
    )
    done = subprocess.run([sys.executable, "-c", code, made.path], check=True, capture_output=True, timeout=120)
    np.testing.assert_allclose(json.loads(done.stdout), Y, rtol=1e-3)


def test_f16_rounding_stays_and_f32_has_none(tmp_path: Path, ending: str) -> None:
    """What f16 overflows, what it cannot hold: the exported file has the same, unless asked not to."""
    net = packages.linear(tmp_path / "net.mlpackage")
    big, fine = np.full((1, 4), 60000, np.float32), np.full((1, 4), 1 + 2**-12, np.float32)
    faithful = export(net, tmp_path / f"f16{ending}")
    assert np.isinf(run(faithful.path, x=big)["y"]).any()
    exact = MATRIX.astype(np.float64).sum(1) + BIAS  # 1 + 2**-12 is 1 in f16
    np.testing.assert_array_equal(run(faithful.path, x=fine)["y"][0], exact)
    plain = export(net, tmp_path / f"f32{ending}", precision="f32")
    assert np.isfinite(run(plain.path, x=big)["y"]).all()
    assert (run(plain.path, x=fine)["y"][0] != exact).any()


def test_a_classifier_gives_scores_and_the_index_of_its_label(tmp_path: Path, ending: str) -> None:
    net = packages.classifier(tmp_path / "net.mlpackage")
    made = export(net, tmp_path / f"net{ending}")
    pixels = np.array([[[[10, 20], [30, 250]]]], np.float32)
    found, expected = run(made.path, image=pixels), load_model(net).predict({"image": pixels})
    assert LABELS[int(found["label"].item())] == expected["label"]
    np.testing.assert_allclose(found["label_probs"], list(expected["label_probs"].values()), atol=2e-3)
    assert _labels(made.path) == LABELS
    assert any("index" in note for note in made.notes) and any("0 to 255" in note for note in made.notes)


def _labels(path: Path) -> list[str]:
    if path.suffix == ".onnx":
        import onnx

        properties = {item.key: item.value for item in onnx.load(path).metadata_props}
        return list(json.loads(properties["labels"]))
    import torch

    extra = {"tlkit.json": ""}
    torch.export.load(path, extra_files=extra)
    return list(json.loads(extra["tlkit.json"])["labels"])


def test_open_lengths_stay_open(tmp_path: Path, ending: str) -> None:
    from tlkit.core.edit.edit import edit

    flexible = edit(
        packages.relu(tmp_path / "net.mlpackage", (None, 3), (1, 3)),
        tmp_path / "flexible.mlpackage",
        input_shapes={"x": "1..16x3"},
    )
    made = export(flexible.path, tmp_path / f"net{ending}")
    for rows in (1, 2, 16):
        x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
        np.testing.assert_array_equal(run(made.path, x=x)["y"], np.maximum(x, 0))


def test_states_are_buffers_of_a_pt2_and_nothing_that_onnx_has(tmp_path: Path) -> None:
    import torch

    net = packages.accumulator(tmp_path / "net.mlpackage")
    made = export(net, tmp_path / "net.pt2", function="second")
    module = torch.export.load(made.path).module()
    assert [module(torch.tensor([2.0]))["y"].item() for _ in range(3)] == [2.0, 4.0, 6.0]
    with pytest.raises(ConversionError, match="ONNX has no states"):
        export(net, tmp_path / "net.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "vit_tiny", "transformer_tiny"])
def test_networks_give_what_the_executor_gives(tmp_path: Path, name: str, ending: str, root: Path) -> None:
    from tlkit.core.convert.convert import convert

    if name == "digits":
        source, inputs = f"{root / 'fixtures/digits.py'}:model", ["x=1x1x8x8"]
    else:
        text = "image=1x3x64x64" if name == "vit_tiny" else "tokens=1x16:i32"
        (tmp_path / "net.py").write_text(f"from fixtures import networks\nnet = networks.{name}()[0]\n")
        source, inputs = f"{tmp_path / 'net.py'}:net", [text]
    net = convert(source, tmp_path / "net.mlpackage", inputs=inputs, verify=False).path
    made = export(net, tmp_path / f"net{ending}", verify=False)
    model, rng = load_model(net), np.random.default_rng(0)
    (port,) = model.inputs
    x = rng.integers(0, 100, port.shape, np.int32) if port.dtype == "int32" else rng.normal(size=port.shape)
    x = x if port.dtype == "int32" else x.astype(np.float32)
    (expected,), (found,) = model.predict({port.name: x}).values(), run(made.path, **{port.name: x}).values()
    scale = np.abs(expected).max()
    # The last bits of a sum may fall on the other side of an f16 boundary in another runtime's kernels.
    np.testing.assert_allclose(found, expected, atol=2e-3 * scale)
    assert np.abs(found - expected).mean() < 5e-4 * scale


def test_what_cannot_be_is_refused_and_nothing_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = packages.linear(tmp_path / "net.mlpackage")
    with pytest.raises(UsageError, match="unknown kind"):
        export(net, tmp_path / "net.tflite")
    with pytest.raises(LoadError, match="no such model"):
        export("net.py:Net", tmp_path / "net.pt2")
    (tmp_path / "there.pt2").touch()
    with pytest.raises(UsageError, match="exists already"):
        export(net, tmp_path / "there.pt2")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match="onnx and onnxscript"):
        export(net, tmp_path / "net.onnx")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["net.mlpackage", "there.pt2"]


def test_the_door_knows_the_same_endings() -> None:
    assert set(PROGRAMS) == set(FORMATS)


RUN_APART = """
import sys
from pathlib import Path
import numpy as np
from onnx import TensorProto, helper
from tlkit.core.convert.exported.check import _run_onnx
from tlkit.mil.text.api import parse_program

x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
path = Path(sys.argv[1])
path.write_bytes(
    helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
)
text = 'program(1.3) { func main<ios16>(tensor<fp32, [2]> x) { tensor<fp32, [2]> y = relu(x = x); } -> (y); }'
found = _run_onnx(path, {"x": np.array([-1, 2], np.float32)}, parse_program(text, lambda name: None).function())
assert found["y"].tolist() == [0, 2]
"""


@pytest.mark.slow
def test_onnxruntime_reports_to_nobody(tmp_path: Path) -> None:
    """Its telemetry writes who reports, and what, to the temporary folder and the home."""
    pytest.importorskip("onnxruntime")
    (tmp_path / "home").mkdir()
    home = str(tmp_path / "home")
    environment = os.environ | {"HOME": home, "TMPDIR": home, "XDG_CACHE_HOME": home, "TORCHINDUCTOR_CACHE_DIR": home}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", RUN_APART, str(tmp_path / "net.onnx")], env=environment, check=True)
    assert not list((tmp_path / "home").rglob("*"))
