"""coremltools' predict as its users call it, with ``tlkit.anywhere`` behind it. Run by ``test_anywhere.py``, in a
process of its own: the plugin changes coremltools for everything in the process.

What Core ML refuses (core/model/features.py) and a program's structure (engines/coreml/structure.py) are tested here,
as users meet them."""

from __future__ import annotations

import gc
import shutil
import tempfile
from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.models.model import MLModelAsset
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


def test_a_compiled_model_is_one_to_tlkit_and_lives_as_long_as_its_model(
    doubler: ct.models.MLModel, tmp_path: Path
) -> None:
    import tlkit

    doubler.save(str(tmp_path / "m.mlpackage"))
    model = ct.models.MLModel(str(tmp_path / "m.mlpackage"))
    path = Path(model.get_compiled_model_path())
    assert path.suffix == ".mlmodelc" and model.get_compiled_model_path() == str(path)
    assert tlkit.inspect(path).kind == "mlProgram"
    assert tlkit.load_model(path).predict({"x": np.ones((2, 3), np.float32)})["y"].sum() == 12
    assert ct.models.CompiledMLModel(str(path)).predict({"x": np.ones((2, 3), np.float32)})["y"].sum() == 12
    del model
    gc.collect()
    assert not path.exists() and (tmp_path / "m.mlpackage").is_dir()


def test_a_model_from_a_spec_can_be_compiled_though_coremltools_deleted_its_file(doubler: ct.models.MLModel) -> None:
    model = ct.models.MLModel(doubler.get_spec(), weights_dir=doubler.weights_dir)
    compiled = ct.models.CompiledMLModel(model.get_compiled_model_path())
    assert compiled.predict({"x": np.ones((2, 3), np.float32)})["y"].sum() == 12


def test_what_compile_model_makes_is_whole_and_nothing_else_is_left(
    doubler: ct.models.MLModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    doubler.save(str(tmp_path / "m.mlpackage"))
    ct.models.utils.compile_model(str(tmp_path / "m.mlpackage"), str(tmp_path / "m.mlmodelc"))
    assert not list((tmp_path / "tmp").iterdir())
    shutil.rmtree(tmp_path / "m.mlpackage")
    assert ct.models.CompiledMLModel(str(tmp_path / "m.mlmodelc")).predict({"x": np.ones((2, 3), np.float32)})
    (tmp_path / "broken.mlpackage").mkdir()
    (tmp_path / "broken.mlpackage" / "Manifest.json").write_text("{}")
    with pytest.raises(RuntimeError, match=r"broken\.mlpackage"):
        ct.models.utils.compile_model(str(tmp_path / "broken.mlpackage"))


def _matrix() -> ct.models.MLModel:
    @mb.program(input_specs=[mb.TensorSpec((4, 50))], opset_version=ct.target.iOS17)
    def program(x):
        return mb.linear(x=x, weight=np.ones((10, 50), np.float32), name="y")

    return _convert(program)


def test_an_asset_from_memory_with_its_blobs() -> None:
    model = _matrix()
    weights = (Path(model.weights_dir) / "weight.bin").read_bytes()
    spec = model.get_spec().SerializeToString()
    asset = MLModelAsset.from_memory(spec_data=spec, blob_mapping={"weights/weight.bin": weights})
    compiled = ct.models.CompiledMLModel.from_asset(asset=asset)
    del asset
    gc.collect()
    assert compiled.predict({"x": np.ones((4, 50), np.float32)})["y"].tolist() == [[50] * 10] * 4
    with pytest.raises(RuntimeError, match="outside the model"):
        MLModelAsset.from_memory(spec_data=spec, blob_mapping={"../../weight.bin": weights})


def test_an_asset_from_memory_without_blobs(doubler: ct.models.MLModel) -> None:
    asset = MLModelAsset.from_memory(spec_data=doubler.get_spec().SerializeToString())
    compiled = ct.models.CompiledMLModel.from_asset(asset)
    assert compiled.predict({"x": np.ones((2, 3), np.float32)})["y"].sum() == 12


def test_an_asset_from_a_compiled_model_only(doubler: ct.models.MLModel, tmp_path: Path) -> None:
    asset = MLModelAsset.from_path(doubler.get_compiled_model_path())
    compiled = ct.models.CompiledMLModel.from_asset(asset)
    assert compiled.predict({"x": np.ones((2, 3), np.float32)})["y"].sum() == 12
    doubler.save(str(tmp_path / "m.mlpackage"))
    with pytest.raises(RuntimeError, match="compiled model"):
        MLModelAsset.from_path(str(tmp_path / "m.mlpackage"))


def test_the_structure_of_a_program(doubler: ct.models.MLModel) -> None:
    structure = ct.models.compute_plan.MLModelStructure.load_from_path(doubler.get_compiled_model_path())
    assert structure.neuralnetwork is None and structure.pipeline is None
    function = structure.program.functions["main"]
    assert [item.name for item in function.inputs] == ["x"] and function.block.output_names == ["y"]
    (multiply,) = [item for item in function.block.operations if item.operator_name != "const"]
    assert multiply.operator_name == "mul" and [item.name for item in multiply.outputs] == ["y"]
    assert [binding.name for binding in multiply.inputs["x"].bindings] == ["x"]
    assert multiply.inputs.keys() == {"x", "y"} and multiply.blocks == []


def test_the_structure_is_a_compiled_models(doubler: ct.models.MLModel, tmp_path: Path) -> None:
    doubler.save(str(tmp_path / "m.mlpackage"))
    with pytest.raises(RuntimeError, match="a structure is read from a compiled model"):
        ct.models.compute_plan.MLModelStructure.load_from_path(str(tmp_path / "m.mlpackage"))


def test_the_structure_of_a_pipeline(doubler: ct.models.MLModel, tmp_path: Path) -> None:
    @mb.program(input_specs=[mb.TensorSpec((2, 3))], opset_version=ct.target.iOS17)
    def program(y):
        return mb.add(x=y, y=1.0, name="z")

    pipeline = ct.utils.make_pipeline(doubler, _convert(program, compute_precision=ct.precision.FLOAT32))
    structure = ct.models.compute_plan.MLModelStructure.load_from_path(pipeline.get_compiled_model_path())
    stages = [dict(stage.program.functions)["main"].block.output_names for _, stage in structure.pipeline.sub_models]
    assert stages == [["y"], ["z"]]


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


def _counter(size: int, name: str = "total") -> ct.models.MLModel:
    kind = {"dtype": types.fp16}
    specs = [mb.TensorSpec((size,), **kind), mb.StateTensorSpec((size,), **kind)]

    def body(x, state):
        return mb.add(x=mb.read_state(input=state), y=x, name="y")

    scope = {"body": body}
    exec(f"def program(x, {name}): return body(x, {name})", scope)
    return _convert(
        mb.program(input_specs=specs, opset_version=ct.target.iOS18)(scope["program"]), target=ct.target.iOS18
    )


def test_a_stateful_model_wants_its_own_state() -> None:
    model = _counter(2)
    x = {"x": np.ones(2, np.float32)}
    must = "The input feature for total must be an MLState, but it was not."
    with pytest.raises(RuntimeError, match=must):
        model.predict(dict(x))
    with pytest.raises(RuntimeError, match=must):
        model.predict([dict(x), dict(x)])
    assert model.predict(dict(x), state=model.make_state())["y"].tolist() == [1, 1]
    assert model.predict(dict(x), state=_counter(2).make_state())["y"].tolist() == [1, 1]
    for other in (_counter(3), _counter(2, "other"), _counter(1)):
        with pytest.raises(RuntimeError, match="another model's"):
            model.predict(dict(x), state=other.make_state())


def test_a_state_is_written_as_f16_from_what_is_an_array() -> None:
    model = _counter(2)
    state = model.make_state()
    state.write_state("total", [70000, 1 / 3])
    assert state.read_state("total").tolist() == [np.inf, float(np.float16(1 / 3))]
    assert model.predict({"x": np.ones(2, np.float32)}, state=state)["y"].tolist()[0] == np.inf
    state.write_state("total", np.array([1, 2]))
    assert state.read_state("total").dtype == np.float32 and state.read_state("total").tolist() == [1, 2]
    for wrong in ([1, 2, 3], [[1, 2]], [[1], [2, 3]], "ab", 5, np.array([1j, 2])):
        with pytest.raises(RuntimeError, match="total"):
            state.write_state("total", wrong)
    assert state.read_state("total").tolist() == [1, 2]


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


def _pictures(**sizes: object) -> ct.models.MLModel:
    class Net(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image * 1.0

    traced = torch.jit.trace(Net().eval(), torch.rand(1, 3, 4, 6))
    shape = sizes.get("shape", (1, 3, 4, 6))
    return _convert(traced, inputs=[ct.ImageType("image", shape=shape)], outputs=[ct.ImageType("out")])


def test_colour_comes_out_as_rgba_and_grey_as_l() -> None:
    out = _pictures().predict({"image": Image.new("RGB", (6, 4), (1, 2, 3))})["out"]
    assert (out.mode, out.size, out.getpixel((5, 3))) == ("RGBA", (6, 4), (1, 2, 3, 255))

    class Grey(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image * 1.0

    traced = torch.jit.trace(Grey().eval(), torch.rand(1, 1, 4, 6))
    kind = {"color_layout": ct.colorlayout.GRAYSCALE}
    inputs = [ct.ImageType("image", shape=(1, 1, 4, 6), **kind)]
    grey = _convert(traced, inputs=inputs, outputs=[ct.ImageType("out", **kind)])
    assert grey.predict({"image": Image.new("L", (6, 4), 9)})["out"].mode == "L"


def test_an_image_of_another_size_is_refused() -> None:
    model = _pictures()
    with pytest.raises(RuntimeError, match="Image size 4 x 6 not in allowed set of image sizes"):
        model.predict({"image": Image.new("RGB", (4, 6))})
    several = _pictures(shape=ct.EnumeratedShapes([(1, 3, 4, 6), (1, 3, 8, 8)]))
    assert several.predict({"image": Image.new("RGB", (8, 8))})["out"].size == (8, 8)
    with pytest.raises(RuntimeError, match="Image size 8 x 6 not in allowed set"):
        several.predict({"image": Image.new("RGB", (8, 6))})
    ranged = _pictures(shape=ct.Shape((1, 3, ct.RangeDim(4, 9), ct.RangeDim(4, 9))))
    assert ranged.predict({"image": Image.new("RGB", (7, 9))})["out"].size == (7, 9)
    with pytest.raises(RuntimeError, match="Image size 10 x 9 not in allowed set"):
        ranged.predict({"image": Image.new("RGB", (10, 9))})


def test_what_is_no_picture_or_another_kind_of_one_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "p.png")
    model = _pictures()
    compiled = ct.models.CompiledMLModel(model.get_compiled_model_path())  # whose inputs coremltools does not check
    assert compiled.predict({"image": Image.new("RGBA", (6, 4), (1, 2, 3, 4))})["out"].getpixel((0, 0)) == (
        1,
        2,
        3,
        255,
    )
    for value in (
        Image.new("L", (6, 4)),
        Image.new("P", (6, 4)),
        np.zeros((1, 3, 4, 6), np.float32),
        str(tmp_path / "p.png"),
    ):
        with pytest.raises(RuntimeError, match=r"does not match model description|Unsupported image type"):
            compiled.predict({"image": value})


@pytest.mark.parametrize(
    "value",
    [
        np.ones((2, 3), np.int64),
        np.ones((2, 3), bool),
        np.ones((2, 3), np.uint8),
        [[1, 2, 3], [4, 5, 6]],
        [[1.0, 2.0, 3.0], [4.0]],
        "x.npy",
        Image.new("L", (3, 2)),
        {"a": 1},
        torch.ones(2, 3),
        1.0,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_binding_does_not_take_is_refused(doubler: ct.models.MLModel, value: object) -> None:
    compiled = ct.models.CompiledMLModel(doubler.get_compiled_model_path())
    with pytest.raises(RuntimeError, match=r"value type not convertible|only allows MultiArrays") as caught:
        compiled.predict({"x": value})
    assert "--" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32, np.int8])
def test_what_the_binding_takes_is_taken(doubler: ct.models.MLModel, dtype: type) -> None:
    assert doubler.predict({"x": np.full((2, 3), 3, dtype)})["y"].tolist() == [[6, 6, 6], [6, 6, 6]]
    assert doubler.predict({"x": [[1.5, 2, 3], [4, 5, 6]]})["y"][0, 0] == 3


def test_a_missing_input_and_a_shape_are_told_in_core_mls_words(doubler: ct.models.MLModel) -> None:
    with pytest.raises(RuntimeError, match="Feature x is required but not specified"):
        doubler.predict({})
    with pytest.raises(RuntimeError, match=r"MultiArray shape \(3 x 3\) does not match the shape \(2 x 3\)"):
        doubler.predict({"x": np.zeros((3, 3), np.float32)})


def test_listed_and_ranged_shapes() -> None:
    def model(*shapes: object) -> ct.models.MLModel:
        class Net(torch.nn.Module):
            def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                return x.sum() + y.sum()

        inputs = [ct.TensorType(name, shape) for name, shape in zip("xy", shapes, strict=True)]
        return _convert(
            torch.jit.trace(Net(), (torch.ones(1, 2), torch.ones(1, 2))), inputs=inputs, target=ct.target.iOS18
        )

    def give(x: int, y: int) -> dict[str, np.ndarray]:
        return {"x": np.ones((1, x), np.float32), "y": np.ones((1, y), np.float32)}

    listed = model(ct.EnumeratedShapes([(1, 2), (1, 3), (1, 4)]), ct.EnumeratedShapes([(1, 2), (1, 5), (1, 3)]))
    for x, y in ((2, 2), (3, 5), (4, 3)):
        assert next(iter(listed.predict(give(x, y)).values())).sum() == x + y
    for x, y in ((2, 5), (3, 3), (4, 2)):
        with pytest.raises(RuntimeError, match="not at one place of the inputs' lists"):
            listed.predict(give(x, y))
    with pytest.raises(RuntimeError, match=r"\(1 x 7\) was not in enumerated set of allowed shapes"):
        listed.predict(give(7, 2))
    ranged = model((1, ct.RangeDim(2, 4)), (1, 2))
    assert next(iter(ranged.predict(give(4, 2)).values())).sum() == 6
    with pytest.raises(RuntimeError, match=r"Size \(5\) of dimension \(1\) is not in allowed range \(2\.\.4\)"):
        ranged.predict(give(5, 2))


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


def test_a_linear_model_of_before_mlprograms_predicts() -> None:
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
    found = ct.models.MLModel(spec).predict({"x": 1.5})
    assert abs(found["y"] - (2.0 * 1.5 + 0.1)) < 1e-12
