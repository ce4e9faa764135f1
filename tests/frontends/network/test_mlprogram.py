"""Old networks made into packages, and into ONNX: what they compute, beside the network and a formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import tlkit
from tests.frontends.network.nets import layer, model, network
from tlkit.errors import ConversionError, LoadError
from tlkit.formats.coreml.open import open_package
from tlkit.frontends.network.mlprogram import as_mlprogram
from tlkit.frontends.network.network import NeuralNetwork
from tlkit.mil.write import weight_file, write_program

RNG = np.random.default_rng(5)


def drawn(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def classifier(folder: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    w, b = drawn(3, 8), drawn(3)
    layers = [
        layer("innerProduct", "x", "z", inputChannels=8, outputChannels=3, weights=w, bias=b, hasBias=True),
        layer("softmax", "z", "p"),
    ]
    made = model(layers, {"x": (8,)}, (), exact=False, kind="neuralNetworkClassifier")
    made.neuralNetworkClassifier.int64ClassLabels.vector.extend([5, 6, 7])
    made.description.output.add(name="odds").type.dictionaryType.int64KeyType.SetInParent()
    made.description.output.add(name="best").type.int64Type.SetInParent()
    made.description.predictedFeatureName, made.description.predictedProbabilitiesName = "best", "odds"
    made.description.metadata.author = "Ada"
    path = folder / "old.mlmodel"
    path.write_bytes(made.SerializeToString())
    return path, w, b


@pytest.mark.slow
def test_an_old_classifier_becomes_a_package(tmp_path: Path) -> None:
    path, w, b = classifier(tmp_path)
    result = tlkit.convert(path, tmp_path / "new.mlpackage")
    assert result.ok
    info = tlkit.inspect(result.path)
    assert (info.kind, info.metadata.author, info.labels) == ("mlProgram", "Ada", ("5", "6", "7"))
    x = drawn(8)
    out = tlkit.load_model(result.path).predict({"x": x})
    scores = np.exp(w @ x + b)
    assert list(out["odds"].values()) == pytest.approx((scores / scores.sum()).tolist(), rel=5e-3)
    assert out["best"] == 5 + int(scores.argmax())


def test_ports_of_an_mlprogram_have_one_shape_and_no_doubles() -> None:
    made = model([layer("add", alpha=1.0)], {"x": (3,)}, exact=False)
    kind = made.description.input[0].type.multiArrayType
    kind.dataType, kind.doubleDefaultValue = 65600, 2.5
    kind.shapeRange.sizeRanges.add(lowerBound=1, upperBound=9)
    message, program = as_mlprogram(made)
    port = message.description.input[0].type.multiArrayType
    assert (port.dataType, port.WhichOneof("ShapeFlexibility"), port.floatDefaultValue) == (65568, None, 2.5)
    assert list(message.description.output[0].type.multiArrayType.shape) == [1, 1, 3, 1, 1]
    assert [item.name for item in program.function().inputs] == ["x"]


def test_operations_of_tlkits_own_are_never_written(tmp_path: Path) -> None:
    weights = {f"{gate}Gate{part}": drawn(2, 2) for gate in ("update", "reset", "output") for part in ("WeightMatrix",)}
    weights |= {f"{gate}GateRecursionMatrix": drawn(2, 2) for gate in ("update", "reset", "output")}
    odd = [{"softsign": {}}, {"tanh": {}}]
    made = model(
        [layer("gru", inputVectorSize=2, outputVectorSize=2, activations=odd, **weights)], {"x": (1, 1, 2, 1, 1)}
    )
    with pytest.raises(ConversionError, match=r"tlkit\.gated_recurrent"):
        as_mlprogram(made)
    with pytest.raises(LoadError, match="no package can hold it"), weight_file(tmp_path) as weights_file:
        write_program(NeuralNetwork(made).program(), type(made)().mlProgram, weights_file)


def test_loops_become_blocks_of_mil() -> None:
    body = network(layer("multiply", "x", "x", alpha=2.0))
    loop = layer("loop", "", "unused", bodyNetwork=body, maxLoopIterations=3)
    message, _ = as_mlprogram(model([loop, layer("copy", "x", "y")], {"x": (2,)}))
    assert message.WhichOneof("Type") == "mlProgram"


@pytest.mark.slow
def test_an_old_network_becomes_onnx(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    w = drawn(4, 2, 3, 3)
    layers = [layer("convolution", "x", "c", outputChannels=4, kernelChannels=2, weights=w, valid={})]
    made = model([*layers, layer("activation", "c", "y", tanh={})], {"x": (2, 6, 6)}, exact=False)
    path = tmp_path / "old.mlmodel"
    path.write_bytes(made.SerializeToString())
    assert tlkit.export(path, tmp_path / "new.onnx", precision="f32").ok
    x = drawn(2, 6, 6)
    wanted = tlkit.load_model(path).predict({"x": x})["y"]
    found = onnxruntime.InferenceSession(str(tmp_path / "new.onnx")).run(None, {"x": x})[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert open_package(path).program is None


@pytest.mark.slow
def test_shapes_that_a_package_does_not_keep_are_told(tmp_path: Path) -> None:
    made = model([layer("add", alpha=1.0)], {"x": (3,)}, exact=False)
    made.description.input[0].type.multiArrayType.shapeRange.sizeRanges.add(lowerBound=1, upperBound=9)
    (tmp_path / "old.mlmodel").write_bytes(made.SerializeToString())
    result = tlkit.convert(tmp_path / "old.mlmodel", tmp_path / "new.mlpackage")
    assert "x: of several shapes only the default is kept, 3" in result.notes


@pytest.mark.slow
def test_an_old_network_becomes_a_pt2_and_a_file_of_weights(tmp_path: Path) -> None:
    """The graph runs in PyTorch by itself; the weights are those of the layers, bit for bit."""
    w = drawn(4, 2, 3, 3)
    layers = [layer("convolution", "x", "c", outputChannels=4, kernelChannels=2, weights=w, valid={}, name="conv")]
    made = model([*layers, layer("activation", "c", "y", tanh={})], {"x": (2, 6, 6)}, exact=False)
    path = tmp_path / "old.mlmodel"
    path.write_bytes(made.SerializeToString())
    assert tlkit.export(path, tmp_path / "new.pt2", precision="f32").ok
    x = drawn(2, 6, 6)
    wanted = np.tanh(torch.nn.functional.conv2d(torch.from_numpy(x)[None], torch.from_numpy(w)).numpy())
    found = torch.export.load(tmp_path / "new.pt2").module()(torch.from_numpy(x))
    (value,) = found.values() if isinstance(found, dict) else (found,)
    np.testing.assert_allclose(value.numpy().reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-5)
    tlkit.convert_weights(path, tmp_path / "new.safetensors")
    held = load_file(tmp_path / "new.safetensors")
    assert held["conv.weights"].tobytes() == w.tobytes()
