"""Core ML's weights as tensors: coremltools decompresses and dequantizes beside them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats import packages
from tests.real_models import MODELS, needs_models
from tlkit.errors import LoadError
from tlkit.formats.base.tensors import TensorFile, Tensors
from tlkit.formats.coreml import legacy
from tlkit.formats.coreml.describe import describe
from tlkit.formats.coreml.legacy import values
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.tensors import CoreMLTensors
from tlkit.formats.describe import open_tensors
from tlkit.mil import coreml_proto


def opened(path: Path) -> CoreMLTensors:
    return CoreMLTensors(open_package(path))


def test_blobs_and_constants_are_tensors(tmp_path: Path) -> None:
    found = opened(packages.classifier(tmp_path / "net.mlpackage"))
    assert isinstance(found, TensorFile)
    tensors = Tensors(found)
    assert tensors["matrix"].shape == (3, 4) and tensors["matrix"].dtype == "F16"
    entry = tensors["matrix"].entry
    data = Path(entry.file).read_bytes()
    assert entry.offset is not None and bytes(tensors["matrix"].raw()) == data[entry.offset : entry.offset + 24]
    np.testing.assert_array_equal(
        tensors["matrix"].numpy(), np.frombuffer(tensors["matrix"].raw(), "<f2").reshape(3, 4)
    )
    assert tensors["bias"].numpy().shape == (3,) and len(tensors["bias"].raw()) == 6


def test_missing_weights_say_so(tmp_path: Path) -> None:
    package = packages.classifier(tmp_path / "net.mlpackage")
    next(package.rglob("weight.bin")).unlink()
    found = opened(package)
    with pytest.raises(LoadError, match="the weight file is missing"):
        found.array(next(entry for entry in found.entries() if entry.name == "matrix"))


@needs_models
@pytest.mark.parametrize("name", ["basic_pitch_nmp", "cifar10_netmps4", "crepe_tiny", "rockpaperscissor_createml"])
def test_every_weight_of_a_real_package_can_be_read(name: str) -> None:
    found = opened(MODELS / f"mlpackage/{name}.mlpackage")
    assert found.entries()
    for entry in found.entries():
        assert found.array(entry).shape == entry.shape
        assert np.isfinite(found.array(entry).astype(np.float64)).all(), entry.name


def params(bits: int, data: bytes, table: list[float] | None, scale: list[float], bias: list[float]) -> Any:
    message = coreml_proto.module("NeuralNetwork_pb2").WeightParams(rawValue=data)
    message.quantization.numberOfBits = bits
    if table:
        message.quantization.lookupTableQuantization.floatValue.extend(table)
    else:
        message.quantization.linearQuantization.scale.extend(scale)
        message.quantization.linearQuantization.bias.extend(bias)
    return message


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("table", [True, False])
def test_legacy_quantized_weights_are_what_coremltools_makes_of_them(bits: int, table: bool) -> None:
    from coremltools.models.neural_network.quantization_utils import (
        _convert_array_to_nbit_quantized_bytes,
        _dequantize_linear,
        _dequantize_lut,
    )

    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 2**bits, (8, 15)).astype(np.uint8)
    entries = rng.standard_normal(2**bits).astype(np.float32)
    scale, bias = rng.standard_normal((2, 8)).astype(np.float32)
    packed = _convert_array_to_nbit_quantized_bytes(codes.ravel(), bits).tobytes() if bits < 8 else codes.tobytes()
    found = values(params(bits, packed, entries.tolist() if table else None, scale.tolist(), bias.tolist()))
    theirs = _dequantize_lut(codes, entries) if table else _dequantize_linear(codes, scale, bias, axis=0)
    np.testing.assert_allclose(found.reshape(8, 15), theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("table", [True, False])
def test_legacy_quantized_weights_have_parts(tmp_path: Path, table: bool) -> None:
    codes = np.arange(16, dtype=np.uint8)
    packed = bytes(int(high) << 4 | int(low) for high, low in codes.reshape(-1, 2))  # highest bits first
    entries, scale, bias = [float(2**code) for code in range(16)], [0.5, 2.0], [1.0, -1.0]
    model = packages.MODEL.Model(specificationVersion=4)
    layer = model.neuralNetwork.layers.add(name="dense")
    layer.innerProduct.weights.CopyFrom(params(4, packed, entries if table else None, scale, bias))
    (tmp_path / "x.mlmodel").write_bytes(model.SerializeToString())
    found = opened(tmp_path / "x.mlmodel")
    (entry,) = found.entries()
    parts = {name: part.numpy().tolist() for name, part in found.parts(entry).items()}
    wanted = {"indices": codes.tolist(), "lut": entries} if table else {"data": codes.tolist(), "scale": scale}
    assert parts == wanted | ({} if table else {"bias": bias})


def test_an_index_past_its_table_is_refused() -> None:
    with pytest.raises(LoadError, match="past its look-up table"):
        values(params(8, b"\x05", [1.0, 2.0], [], []))


def test_scales_that_do_not_divide_are_refused() -> None:
    with pytest.raises(LoadError, match="do not divide"):
        values(params(8, b"\x05\x06\x07", None, [1.0, 2.0], [0.0, 0.0]))


def test_weight_files_that_no_program_names_are_left_out(tmp_path: Path) -> None:
    package = packages.classifier(tmp_path / "net.mlpackage")
    folder = package / "Data/com.apple.CoreML/weights"
    assert describe(package).left_out == ()
    (folder / "old.bin").write_bytes(bytes(192))
    (folder / ".DS_Store").write_bytes(b"not a weight")
    (package / "Data/com.apple.CoreML/extra.weights").write_bytes(bytes(7))
    path = tmp_path / "net.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(package.rglob("*")):
            archive.write(file, f"net.mlpackage/{file.relative_to(package)}")
    wanted = [("Data/com.apple.CoreML/extra.weights", 7), ("Data/com.apple.CoreML/weights/old.bin", 192)]
    for source in (package, path):
        assert [(item.name, item.bytes) for item in describe(source).left_out] == wanted
        assert [(item.name, item.bytes) for item in open_tensors(source).left_out] == wanted


def test_bytes_behind_the_last_constant_are_left_out_in_a_zip_too(tmp_path: Path) -> None:
    package = packages.classifier(tmp_path / "net.mlpackage")
    file = package / "Data/com.apple.CoreML/weights/weight.bin"
    file.write_bytes(file.read_bytes() + bytes(300))
    path = tmp_path / "net.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for item in sorted(package.rglob("*")):
            archive.write(item, item.relative_to(package))
    for source in (package, path):
        (left,) = describe(source).left_out
        assert (left.name, left.bytes, left.kind) == ("weight.bin", 300, "unnamed")


def test_a_quantized_weights_bytes_include_its_table() -> None:
    model = coreml_proto.module("Model_pb2").Model()
    layer = model.neuralNetwork.layers.add(name="l")
    layer.innerProduct.weights.rawValue = bytes(4)
    layer.innerProduct.weights.quantization.numberOfBits = 4
    layer.innerProduct.weights.quantization.lookupTableQuantization.floatValue.extend(range(16))
    (weight,) = legacy.weights(model)
    assert (weight.dtype, weight.elements, weight.bytes) == ("PAL4", 8, 4 + 64)
