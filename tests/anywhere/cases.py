"""coremltools' predict as its users call it, with ``tlkit.anywhere`` behind it. Run by ``test_anywhere.py``, in a
process of its own: the plugin changes coremltools for everything in the process."""

from __future__ import annotations

from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import types
from PIL import Image


def _convert(program: object, **options: object) -> ct.models.MLModel:
    return ct.convert(
        program, convert_to="mlprogram", minimum_deployment_target=options.pop("target", ct.target.iOS17), **options
    )


@pytest.fixture(scope="module")
def doubler() -> ct.models.MLModel:
    @mb.program(input_specs=[mb.TensorSpec((2, 3))], opset_version=ct.target.iOS17)
    def program(x):
        return mb.mul(x=x, y=2.0, name="y")

    return _convert(program, compute_precision=ct.precision.FLOAT32)


def test_predict(doubler: ct.models.MLModel) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    out = doubler.predict({"x": x})
    assert set(out) == {"y"}
    assert out["y"].dtype == np.float32
    np.testing.assert_array_equal(out["y"], x * 2)


def test_batch_predict(doubler: ct.models.MLModel) -> None:
    batch = [{"x": np.full((2, 3), value, np.float32)} for value in (1, 2, 3)]
    assert [out["y"][0, 0] for out in doubler.predict(batch)] == [2, 4, 6]


def test_lists_and_torch_tensors_are_taken(doubler: ct.models.MLModel) -> None:
    assert doubler.predict({"x": torch.ones(2, 3)})["y"].sum() == 12


def test_a_wrong_shape_is_a_runtime_error(doubler: ct.models.MLModel) -> None:
    with pytest.raises(RuntimeError, match="3x3"):
        doubler.predict({"x": np.zeros((3, 3), np.float32)})


def test_a_wrong_name_is_refused(doubler: ct.models.MLModel) -> None:
    with pytest.raises((KeyError, RuntimeError)):
        doubler.predict({"z": np.zeros((2, 3), np.float32)})


def test_saved_and_loaded(doubler: ct.models.MLModel, tmp_path: Path) -> None:
    doubler.save(str(tmp_path / "m.mlpackage"))
    again = ct.models.MLModel(str(tmp_path / "m.mlpackage"), compute_units=ct.ComputeUnit.CPU_ONLY)
    assert again.predict({"x": np.ones((2, 3), np.float32)})["y"].tolist() == [[2, 2, 2], [2, 2, 2]]


def test_compiled(doubler: ct.models.MLModel, tmp_path: Path) -> None:
    doubler.save(str(tmp_path / "m.mlpackage"))
    path = ct.models.utils.compile_model(str(tmp_path / "m.mlpackage"), str(tmp_path / "m.mlmodelc"))
    compiled = ct.models.CompiledMLModel(path)
    assert compiled.predict({"x": np.ones((2, 3), np.float32)})["y"].sum() == 12
    with pytest.raises(RuntimeError, match="nothing"):
        ct.models.CompiledMLModel(path, function_name="nothing")
    from_model = ct.models.CompiledMLModel(doubler.get_compiled_model_path())
    assert from_model.predict({"x": np.ones((2, 3), np.float32)})["y"].sum() == 12


def test_compute_plans_and_devices_say_that_they_are_not_here(doubler: ct.models.MLModel) -> None:
    with pytest.raises(RuntimeError, match="compute plans"):
        ct.models.compute_plan.MLComputePlan.load_from_path(doubler.get_compiled_model_path())
    with pytest.raises(RuntimeError, match="devices"):
        ct.models.compute_device.MLComputeDevice.get_all_compute_devices()


def test_an_f16_model_overflows_as_f16_does() -> None:
    @mb.program(input_specs=[mb.TensorSpec((3,))], opset_version=ct.target.iOS17)
    def program(x):
        return mb.mul(x=x, y=x, name="y")

    out = _convert(program).predict({"x": np.array([300, 2, 1 / 3], np.float32)})["y"]
    with np.errstate(over="ignore"):
        expected = (np.array([300, 2, 1 / 3], np.float16) ** 2).astype(np.float32)
    np.testing.assert_array_equal(out, expected)


def test_states_are_kept_apart_and_read_and_written() -> None:
    @mb.program(
        input_specs=[mb.TensorSpec((2,), dtype=types.fp16), mb.StateTensorSpec((2,), dtype=types.fp16)],
        opset_version=ct.target.iOS18,
    )
    def program(x, total):
        value = mb.read_state(input=total)
        value = mb.add(x=value, y=x, name="sum")
        return mb.coreml_update_state(state=total, value=value, name="out")

    model = _convert(program, target=ct.target.iOS18)
    first, second = model.make_state(), model.make_state()
    ones = {"x": np.ones(2, np.float32)}
    steps = [next(iter(model.predict(dict(ones), state=first).values()))[0] for _ in range(3)]
    assert steps == [1, 2, 3]
    assert next(iter(model.predict(dict(ones), state=second).values()))[0] == 1
    assert first.read_state("total").tolist() == [3, 3]
    first.write_state("total", np.array([10, 20], np.float32))
    assert next(iter(model.predict(dict(ones), state=first).values())).tolist() == [11, 21]
    with pytest.raises(RuntimeError, match="no state"):
        first.read_state("other")


def test_a_classifier_gives_label_and_probabilities() -> None:
    class Net(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.softmax(image.mean((2, 3)), 1)

    traced = torch.jit.trace(Net().eval(), torch.rand(1, 3, 4, 4))
    image = ct.ImageType("image", shape=(1, 3, 4, 4), scale=1 / 255)
    model = _convert(traced, inputs=[image], classifier_config=ct.ClassifierConfig(["red", "green", "blue"]))
    picture = Image.new("RGB", (4, 4), (0, 255, 0))
    out = model.predict({"image": picture})
    (label,) = [value for value in out.values() if isinstance(value, str)]
    (table,) = [value for value in out.values() if isinstance(value, dict)]
    assert label == "green"
    assert set(table) == {"red", "green", "blue"}
    expected = torch.softmax(torch.tensor([0.0, 1.0, 0.0]), 0)
    assert [table[name] for name in ("red", "green", "blue")] == pytest.approx(expected.tolist(), abs=1e-3)


@pytest.mark.parametrize("layout", ["RGB", "BGR"])
def test_image_inputs_and_outputs(layout: str) -> None:
    class Net(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image + torch.tensor([10.0, 0.0, 0.0]).reshape(1, 3, 1, 1)

    traced = torch.jit.trace(Net().eval(), torch.rand(1, 3, 4, 4))
    color = ct.colorlayout[layout]
    model = _convert(
        traced,
        inputs=[ct.ImageType("image", shape=(1, 3, 4, 4), color_layout=color)],
        outputs=[ct.ImageType("out", color_layout=color)],
    )
    out = model.predict({"image": Image.new("RGB", (4, 4), (100, 50, 250))})["out"]
    expected = (110, 50, 250) if layout == "RGB" else (100, 50, 255)
    assert out.convert("RGB").getpixel((0, 0)) == expected


def test_a_function_of_a_multifunction_package(doubler: ct.models.MLModel, tmp_path: Path) -> None:
    doubler.save(str(tmp_path / "a.mlpackage"))
    desc = ct.utils.MultiFunctionDescriptor()
    desc.add_function(str(tmp_path / "a.mlpackage"), src_function_name="main", target_function_name="twice")
    desc.add_function(str(tmp_path / "a.mlpackage"), src_function_name="main", target_function_name="double")
    desc.default_function_name = "twice"
    ct.utils.save_multifunction(desc, str(tmp_path / "m.mlpackage"))
    for name in (None, "twice", "double"):
        model = ct.models.MLModel(str(tmp_path / "m.mlpackage"), function_name=name)
        assert model.predict({"x": np.ones((2, 3), np.float32)})["y"].sum() == 12


def test_a_pipeline_of_programs(doubler: ct.models.MLModel) -> None:
    @mb.program(input_specs=[mb.TensorSpec((2, 3))], opset_version=ct.target.iOS17)
    def program(y):
        return mb.add(x=y, y=1.0, name="z")

    second = _convert(program, compute_precision=ct.precision.FLOAT32)
    pipeline = ct.utils.make_pipeline(doubler, second)
    assert pipeline.predict({"x": np.ones((2, 3), np.float32)})["z"].tolist() == [[3, 3, 3], [3, 3, 3]]


def test_a_legacy_model_says_that_it_does_not_run() -> None:
    spec = ct.proto.Model_pb2.Model()
    spec.specificationVersion = 1
    port = spec.description.input.add()
    port.name = "x"
    port.type.doubleType.MergeFromString(b"")
    out = spec.description.output.add()
    out.name = "y"
    out.type.doubleType.MergeFromString(b"")
    spec.description.predictedFeatureName = "y"
    spec.glmRegressor.offset.append(0.1)
    spec.glmRegressor.weights.add().value.append(2.0)
    with pytest.warns(RuntimeWarning, match="glmRegressor"):
        model = ct.models.MLModel(spec)
    with pytest.raises(Exception, match=r"glmRegressor|predict"):
        model.predict({"x": 1.0})
