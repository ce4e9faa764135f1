"""Whole networks: mappings of arrays and pictures, preprocessing, weights of every kind, outputs, classifiers.

Covers tlkit/frontends/network/network.py, tlkit/frontends/network/build.py, tlkit/frontends/network/ports.py,
tlkit/frontends/network/kit/blob.py, tlkit/frontends/network/kit/weights.py, tlkit/engines/torch/shaped.py,
tlkit/frontends/network/layers/custom.py, tlkit/mil/dialect/custom.py, tlkit/core/model/custom.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tlkit
from tests.frontends.network import nets
from tests.frontends.network.nets import layer, model, run
from tests.real_models import MODELS, needs_models
from tlkit.errors import ExecutionError, LoadError, UsageError
from tlkit.frontends.network.network import NeuralNetwork
from tlkit.host import budget

RNG = np.random.default_rng(2)


def drawn(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def saved(made: object, folder: Path) -> Path:
    path = folder / "model.mlmodel"
    path.write_bytes(made.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("declared", "given", "wanted"),
    [
        ((3,), (3,), (1, 1, 3, 1, 1)),
        ((3, 4, 5), (3, 4, 5), (1, 1, 3, 4, 5)),
        ((3,), (7, 2, 3), (7, 2, 3, 1, 1)),
        ((3,), (7, 2, 3, 1, 1), (7, 2, 3, 1, 1)),
        ((3, 4, 5), (2, 1, 3, 4, 5), (2, 1, 3, 4, 5)),
    ],
)
def test_arrays_enter_a_network_of_rank_5(tmp_path, declared, given, wanted):
    path = saved(model([layer("add", alpha=1.0)], {"x": declared}, exact=False), tmp_path)
    x = drawn(*given)
    out = tlkit.load_model(path).predict({"x": x})["y"]
    assert out.shape == wanted
    np.testing.assert_allclose(out, x.reshape(wanted) + 1, rtol=1e-6)


def test_sequences_of_other_vectors_are_refused(tmp_path):
    loaded = tlkit.load_model(saved(model([layer("add", alpha=1.0)], {"x": (3,)}, exact=False), tmp_path))
    for shape in ((7, 2, 4), (7, 2, 3, 1, 2), (4,), (2, 3)):
        with pytest.raises(tlkit.errors.UsageError, match="does not fit"):
            loaded.predict({"x": drawn(*shape)})


def test_outputs_of_rank_5_take_the_rank_that_their_port_declares():
    x = drawn(6)
    for declared, wanted in (
        ((6,), (6,)),
        ((6, 1, 1), (6, 1, 1)),
        ((), (1, 1, 6, 1, 1)),
        ((5,), (6,)),
        ((2, 3), (2, 3)),
    ):
        made = model([layer("add", alpha=1.0)], {"x": (6,)}, exact=False)
        made.description.output[0].type.multiArrayType.shape.extend(declared)
        function = NeuralNetwork(made).function()
        assert function.block.operations[-1].outputs[0].type.shape == wanted
        assert nets.ShapedEngine(NeuralNetwork(made).function).run({"x": x})["y"].shape == wanted


def picture_model(space: int, *steps: object, rank4: bool = False) -> object:
    made = model([layer("copy")], {}, exact=rank4)
    port = made.description.input.add(name="x")
    port.type.imageType.width, port.type.imageType.height, port.type.imageType.colorSpace = 3, 2, space
    made.neuralNetwork.imageInputShapeMapping = int(rank4)
    for step in steps:
        made.neuralNetwork.preprocessing.add().CopyFrom(step)
    return made


def scaler(feature: str = "", **fields: float) -> object:
    from tlkit.mil import coreml_proto

    step = coreml_proto.module("NeuralNetwork_pb2").NeuralNetworkPreprocessing(featureName=feature)
    nets.fill(step.scaler, fields)
    return step


@pytest.mark.parametrize(("space", "order"), [(20, (0, 1, 2)), (30, (2, 1, 0))])
def test_pixels_are_scaled_and_biases_go_by_colour(tmp_path, space, order):
    """y = scale * x + bias, the bias not scaled; the channels stand as the colour space has them."""
    biases = {"redBias": 1.0, "greenBias": 2.0, "blueBias": 3.0}
    path = saved(picture_model(space, scaler(channelScale=0.5, **biases)), tmp_path)
    pixels = RNG.integers(0, 256, (2, 3, 3), dtype=np.uint8)
    out = tlkit.load_model(path).predict({"x": Image.fromarray(pixels)})["y"]
    wanted = pixels.astype(np.float32).transpose(2, 0, 1) * 0.5 + np.array([1, 2, 3]).reshape(3, 1, 1)
    np.testing.assert_allclose(out, wanted[list(order)][None, None], rtol=1e-6)


def test_a_picture_in_place_of_an_array_whose_channels_are_last(tmp_path):
    """coremltools puts a transpose of three axes behind it, where the picture has four."""
    made = picture_model(20, rank4=True)
    made.neuralNetwork.layers[0].CopyFrom(layer("transpose", axes=[1, 2, 0]))
    pixels = RNG.integers(0, 256, (2, 3, 3), dtype=np.uint8)
    found = tlkit.load_model(saved(made, tmp_path)).predict({"x": Image.fromarray(pixels)})["y"]
    np.testing.assert_array_equal(found, pixels)


def test_a_gray_picture_a_mean_image_and_rank_4(tmp_path):
    from tlkit.mil import coreml_proto

    mean = coreml_proto.module("NeuralNetwork_pb2").NeuralNetworkPreprocessing(featureName="x")
    mean.meanImage.meanImage.extend([1.0, 2, 3, 4, 5, 6])
    made = picture_model(10, mean, scaler("x", channelScale=2.0, grayBias=-1.0), rank4=True)
    pixels = RNG.integers(0, 256, (2, 3), dtype=np.uint8)
    out = tlkit.load_model(saved(made, tmp_path)).predict({"x": Image.fromarray(pixels)})["y"]
    wanted = (pixels - np.arange(1.0, 7).reshape(2, 3)) * 2 - 1
    np.testing.assert_allclose(out, wanted[None, None], rtol=1e-6)


def product(weights: object, rows: int = 2, columns: int = 4) -> object:
    made = layer("innerProduct", inputChannels=columns, outputChannels=rows)
    made.innerProduct.weights.CopyFrom(weights)
    return made


def params(**fields: object) -> object:
    from tlkit.mil import coreml_proto

    made = coreml_proto.module("NeuralNetwork_pb2").WeightParams()
    nets.fill(made, fields)
    return made


CODES = [3, 1, 0, 2, 1, 2, 3, 0]


@pytest.mark.parametrize("bits", range(2, 9))
def test_quantized_weights(bits):
    """Codes are packed highest bits first; scales go by row, a table by code."""
    x = drawn(1, 4)
    raw, codes = nets.packed(CODES, bits), np.array(CODES, np.float32).reshape(2, 4)
    scale, bias = np.array([0.5, 2.0], np.float32), np.array([-1.0, 3.0], np.float32)
    linear = {"numberOfBits": bits, "linearQuantization": {"scale": scale.tolist(), "bias": bias.tolist()}}
    out = run(product(params(rawValue=raw, quantization=linear)), {"x": x})["y"]
    np.testing.assert_allclose(out, x @ (codes * scale[:, None] + bias[:, None]).T, rtol=1e-5)
    table = RNG.standard_normal(2**bits).astype(np.float32)
    looked = {"numberOfBits": bits, "lookupTableQuantization": {"floatValue": table.tolist()}}
    out = run(product(params(rawValue=raw, quantization=looked)), {"x": x})["y"]
    np.testing.assert_allclose(out, x @ table[np.array(CODES).reshape(2, 4)].T, rtol=1e-5)


def test_half_and_signed_weights_and_scales_of_a_transposed_convolution():
    x, w = drawn(1, 4), drawn(2, 4).astype(np.float16)
    out = run(product(params(float16Value=w.tobytes())), {"x": x})["y"]
    np.testing.assert_allclose(out, x @ w.astype(np.float32).T, rtol=1e-5)
    signed = np.array([[-3, 1, 127, -128], [0, 2, -1, 5]], np.int8)
    given = params(
        int8RawValue=signed.tobytes(), quantization={"numberOfBits": 8, "linearQuantization": {"scale": [0.5]}}
    )
    np.testing.assert_allclose(run(product(given), {"x": x})["y"], x @ (signed * 0.5).T, rtol=1e-5)
    made = layer("convolution", isDeconvolution=True, outputChannels=2, kernelChannels=1, kernelSize=[1, 1], valid={})
    half = {"numberOfBits": 8, "linearQuantization": {"scale": [2.0, 3.0], "bias": [0.0, 1.0]}}
    made.convolution.weights.CopyFrom(params(rawValue=bytes([10, 20]), quantization=half))
    out = run(made, {"x": np.ones((1, 1, 1, 1))})["y"]
    assert out.ravel().tolist() == [20, 61]


@pytest.mark.parametrize(
    "weights",
    [
        {"floatValue": [1.0] * 7},
        {"rawValue": b"1234567", "quantization": {"numberOfBits": 8}},
        {
            "rawValue": b"12345678",
            "quantization": {"numberOfBits": 8, "lookupTableQuantization": {"floatValue": [1.0]}},
        },
        {"rawValue": b"12345678", "quantization": {"numberOfBits": 8, "linearQuantization": {"scale": [1.0] * 3}}},
        {},
    ],
)
def test_weights_of_another_size_are_refused(weights):
    with pytest.raises(LoadError, match=r"damaged|weight"):
        run(product(params(**weights)), {"x": drawn(1, 4)})


def classifier(labels: str, *names: object) -> object:
    made = model([layer("softmax", name="last")], {"x": (3,)}, (), exact=False, kind="neuralNetworkClassifier")
    getattr(made.neuralNetworkClassifier, labels).vector.extend(names)
    field = "int64KeyType" if labels == "int64ClassLabels" else "stringKeyType"
    getattr(made.description.output.add(name="odds").type.dictionaryType, field).SetInParent()
    kind = made.description.output.add(name="best").type
    (kind.int64Type if labels == "int64ClassLabels" else kind.stringType).SetInParent()
    made.description.predictedFeatureName, made.description.predictedProbabilitiesName = "best", "odds"
    return made


@pytest.mark.parametrize(("labels", "names"), [("stringClassLabels", ("a", "b", "c")), ("int64ClassLabels", (7, 8, 9))])
def test_classifiers_give_a_label_and_probabilities(tmp_path, labels, names):
    """The scores are those of the last layer where the model names none."""
    x = np.array([0.1, 2.0, 0.5], np.float32)
    out = tlkit.load_model(saved(classifier(labels, *names), tmp_path)).predict({"x": x})
    wanted = np.exp(x) / np.exp(x).sum()
    assert out["best"] == names[1]
    assert list(out["odds"]) == list(names)
    assert list(out["odds"].values()) == pytest.approx(wanted.tolist(), rel=1e-5)


def test_an_input_that_may_be_left_out_has_its_default(tmp_path):
    made = model([layer("add", "x z")], {"x": (2,), "z": (2,)}, exact=True)
    made.description.input[1].type.isOptional = True
    x = drawn(2)
    np.testing.assert_allclose(tlkit.load_model(saved(made, tmp_path)).predict({"x": x})["y"], x)
    made.description.input[1].type.multiArrayType.floatDefaultValue = 2.5
    np.testing.assert_allclose(tlkit.load_model(saved(made, tmp_path)).predict({"x": x})["y"], x + 2.5)


def test_flexible_shapes_and_whole_numbers(tmp_path):
    made = model([layer("reduceSum", axes=[-1])], {"x": (2, 3)}, exact=True)
    kind = made.description.input[0].type.multiArrayType
    kind.dataType = nets.INT
    for low, high in ((1, 4), (1, -1)):
        kind.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
    made.description.output[0].type.multiArrayType.dataType = nets.INT
    loaded = tlkit.load_model(saved(made, tmp_path))
    for shape in ((2, 3), (4, 9), (1, 1)):
        x = RNG.integers(-9, 9, shape).astype(np.int32)
        out = loaded.predict({"x": x})["y"]
        assert out.dtype == np.int32
        np.testing.assert_array_equal(out, x.sum(-1))


def test_custom_layers_run_by_the_function_that_is_named():
    def sum_and_scaled(a, b, *, parameters, weights):
        return a + b, a * parameters["factor"] * weights[0][1]

    made = layer("custom", "x z", "y w", className="Mine")
    made.custom.weights.add().floatValue.extend([1.0, 3.0])
    made.custom.parameters["factor"].doubleValue = 2.0
    x, z = drawn(2, 3), drawn(2, 3)
    layers = [made, layer("add", "w", "v", alpha=1.0)]
    out = run(layers, {"x": x, "z": z}, ("y", "v"), hooks={"Mine": sum_and_scaled})
    np.testing.assert_allclose(out["y"], x + z, rtol=1e-6)
    np.testing.assert_allclose(out["v"], x * 6 + 1, rtol=1e-6)
    with pytest.raises(LoadError, match="custom layer Mine") as refused:
        run(layers, {"x": x, "z": z}, ("y", "v"))
    assert "--custom" in refused.value.hint
    with pytest.raises(ExecutionError, match="custom layer 'Mine' gave 1 arrays, not 2"):
        run(layers, {"x": x, "z": z}, ("y", "v"), hooks={"Mine": lambda a, b, **_: a})


def test_all_that_cannot_be_made_is_said_at_once():
    made = [layer("custom", "x", "a", className="One"), layer("custom", "a", "y", className="Two")]
    with pytest.raises(LoadError, match="custom layer One, custom layer Two"):
        run(made, {"x": drawn(2)})


def test_names_of_layers_stay_and_a_name_written_twice_is_two_values():
    layers = [layer("add", "x", "x", name="first", alpha=1.0), layer("multiply", "x", "y", name="second", alpha=2.0)]
    function = NeuralNetwork(model(layers, {"x": (2,)})).function()
    named = [operation.name for operation in function.block.operations if operation.type != "const"]
    assert named[:2] == ["first", "second"]
    x = drawn(2)
    np.testing.assert_allclose(run(layers, {"x": x})["y"], (x + 1) * 2, rtol=1e-6)


@needs_models
def test_a_network_agrees_with_its_onnx_twin():
    held = np.load(MODELS / "oracle/my_network_vincentg.npz")
    loaded = tlkit.load_model(MODELS / "mlmodel/my_network_vincentg.mlmodel")
    out = loaded.predict({"my_input": held["in_my_input"][0]})["my_output"]
    assert out.shape == (1, 1, 10, 1, 1)
    np.testing.assert_allclose(out.ravel(), held["out_0_my_output"].ravel(), atol=1e-4)


def _smaller(side: int) -> tuple[Any, Any]:
    """Return carn, which is fixed at 1000 x 1000 by two reshapes, for pictures of ``side``: the source and its twin."""
    import onnx
    from onnx import numpy_helper

    from tlkit.formats.coreml.open import open_package

    made = open_package(MODELS / "mlmodel/carn.mlmodel").model
    sizes = {1000: side, 2000: 2 * side, 1000000: side * side, 64000: 64 * side}
    for item in made.neuralNetwork.layers:
        if item.WhichOneof("layer") == "reshape":
            item.reshape.targetShape[:] = [sizes.get(length, length) for length in item.reshape.targetShape]
    made.description.input[0].type.multiArrayType.shape[:] = [3, side, side]
    made.description.output[0].type.multiArrayType.shape[:] = [3, 2 * side, 2 * side]
    twin = onnx.load(MODELS / "oracle/carn.onnx")
    for node in twin.graph.node:
        if node.op_type == "Constant" and len(node.attribute[0].t.dims) == 1:
            shape = [sizes.get(int(length), int(length)) for length in numpy_helper.to_array(node.attribute[0].t)]
            node.attribute[0].t.CopyFrom(numpy_helper.from_array(np.array(shape)))
    for port, length in ((twin.graph.input[0], side), (twin.graph.output[0], 2 * side)):
        for axis in (2, 3):
            port.type.tensor_type.shape.dim[axis].dim_value = length
    return made, twin


def _halved(message: Any) -> None:
    """Make every array of weights one of f16, as coremltools' quantization to 16 bits does."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for item in [value] if hasattr(value, "DESCRIPTOR") else value:
            if type(item).__name__ == "WeightParams":
                item.float16Value = np.array(item.floatValue, np.float32).astype(np.float16).tobytes()
                del item.floatValue[:]
            else:
                _halved(item)


@needs_models
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", ["my_network_vincentg", "carn"])
def test_real_networks_agree_with_their_twins_in_onnx(tmp_path, name, half):
    import onnxruntime

    from tlkit.formats.coreml.open import open_package

    if name == "carn":
        made, twin = _smaller(24)
        source = twin.SerializeToString()
        x = np.random.default_rng(5).uniform(0, 1, (1, 3, 24, 24)).astype(np.float32)
    else:
        made = open_package(MODELS / f"mlmodel/{name}.mlmodel").model
        source, x = (MODELS / f"oracle/{name}.onnx").read_bytes(), drawn(1, 3, 32, 32)
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 4
    session = onnxruntime.InferenceSession(source, quiet, providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {session.get_inputs()[0].name: x})
    if half:
        _halved(made.neuralNetwork)
    loaded = tlkit.load_model(saved(made, tmp_path))
    (found,) = loaded.predict({loaded.inputs[0].name: x[0]}).values()
    largest = float(np.abs(wanted).max())
    np.testing.assert_allclose(found.ravel(), wanted.ravel(), rtol=0, atol=5e-3 * largest if half else 1e-4)


@needs_models
@pytest.mark.parametrize("name", ["waifu2x_anime_noise0_model", "MNIST_omaralbeik"])
def test_real_networks_cost_no_operation_for_ones_around_them(name):
    loaded = tlkit.load_model(MODELS / f"mlmodel/{name}.mlmodel")
    kinds = [operation.type for operation in loaded.function().block.operations]
    assert kinds.count("expand_dims") + kinds.count("squeeze") <= 2


def sequences(folder: Path) -> Path:
    """A network that joins each three steps of a sequence, twice: it takes five or more."""
    turn = {"axis": [3, 1, 2, 0]}
    windows = {"kernelSize": [1, 3], "outputChannels": 4, "kernelChannels": 4, "nGroups": 1, "valid": {}}
    convs = [
        layer("convolution", before, after, weights=drawn(4, 4, 1, 3), **windows) for before, after in ("ab", "bc")
    ]
    made = model(
        [layer("permute", "x", "a", **turn), *convs, layer("permute", "c", "y", **turn)], {"x": (4,)}, exact=False
    )
    return saved(made, folder)


def test_a_network_of_sequences_is_drawn_one_that_is_long_enough(tmp_path):
    path, said = sequences(tmp_path), []
    found = tlkit.run(str(path), note=said.append)
    assert found.inputs[0].shape == (8, 1, 4) and "x (8x1x4)" in said[0]
    assert found.outputs["y"].shape == (4, 1, 4, 1, 1)
    assert tlkit.load_model(path).function().inputs[0].type.shape == (8, 1, 4)


def test_who_gives_a_network_of_sequences_too_few_is_told_a_length_that_it_takes(tmp_path):
    path = sequences(tmp_path)
    with pytest.raises(LoadError, match="window of 3 does not fit into 1") as refused:
        tlkit.run(str(path), ["x=[1,2,3,4]"])
    advice = refused.value.hint.partition("--shape ")[2]
    assert advice == "x=8,1,4"
    assert tlkit.run(str(path), shapes=[advice]).outputs["y"].shape == (4, 1, 4, 1, 1)


def test_values_are_dumped_at_the_length_that_was_given(tmp_path):
    found = tlkit.run(str(sequences(tmp_path)), shapes=["x=9,1,4"], dump=str(tmp_path / "values"))
    assert [item.shape for item in found.dumped if item.type == "conv"] == [(1, 4, 1, 7), (1, 4, 1, 5)]


def test_the_advice_on_memory_is_enough_for_all_that_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "FLOOR", 100)
    monkeypatch.setattr(budget, "STORED", 0)
    monkeypatch.setattr(budget, "SPARING", 0)
    many = [layer("tile", before, after, reps=[1, times]) for before, after, times in (("a", "b", 10), ("b", "y", 5))]
    path = saved(model(many, {"a": (1, 40)}), tmp_path)
    with budget.drawn(), pytest.raises(ExecutionError, match="of 400 elements") as refused:
        tlkit.load_model(path).predict({"a": drawn(1, 40)})
    factor = int(refused.value.hint.partition("TLKIT_BUDGET=")[2].split()[0])
    monkeypatch.setenv("TLKIT_BUDGET", str(factor))
    with budget.drawn():
        assert tlkit.load_model(path).predict({"a": drawn(1, 40)})["y"].shape == (1, 2000)


@pytest.mark.parametrize("place", ["layers_of_mine:half", "sub/halves.py:Kinds.half"])
def test_custom_layers_are_run_by_code_in_the_current_folder(tmp_path, monkeypatch, place):
    code = "def half(x, *, parameters, weights):\n    return x / 2\n\n\nclass Kinds:\n    half = staticmethod(half)\n"
    (tmp_path / "layers_of_mine.py").write_text(code)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/halves.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    path = saved(model([layer("custom", className="Half")], {"x": (2, 3)}), tmp_path)
    x = drawn(2, 3)
    found = tlkit.load_model(path, custom={"Half": place}).predict({"x": x})["y"]
    np.testing.assert_array_equal(found, x / 2)


def test_custom_code_that_fails_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--custom Half=broken:half: division by zero"):
        tlkit.load_model(tmp_path / "x.mlmodel", custom={"Half": "broken:half"})
