"""An Espresso bundle's weights: equal to those of the model it was compiled from; each byte is a tensor's or named."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from tests.real_models import MODELS, needs_models
from tlkit.core.weights.weights import convert_weights
from tlkit.errors import LoadError
from tlkit.formats.coreml.espresso.network import read_network
from tlkit.formats.coreml.espresso.weights import EspressoWeights
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.tensors import CoreMLTensors

CONV = {"type": "convolution", "name": "c", "K": 4, "C": 2, "n_groups": 2, "Nx": 1, "Ny": 3}


def stored(blobs: dict[int, bytes]) -> bytes:
    """A weight file with these blobs, as the documented layout has it."""
    table = b"".join(struct.pack("<QQ", number, len(data)) for number, data in blobs.items())
    return struct.pack("<Q", len(blobs)) + table + b"".join(blobs.values())


def bundle(folder: Path, layers: list[dict[str, Any]], blobs: dict[int, bytes] | None) -> EspressoWeights:
    (folder / "model.espresso.net").write_text(json.dumps({"layers": layers}))
    if blobs is not None:
        (folder / "model.espresso.weights").write_bytes(stored(blobs))
    network = read_network(folder)
    assert network is not None
    return EspressoWeights(network)


def floats(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape) / 8


def test_a_tensor_has_its_layers_shape_and_is_shorter_than_its_blob(tmp_path: Path) -> None:
    kernel, bias = floats(2, 2, 3, 1), floats(2)
    layer = {**CONV, "blob_weights": 3, "blob_biases": 1}
    found = bundle(tmp_path, [layer], {0: bytes(56), 1: bias.tobytes() + bytes(24), 2: b"", 3: kernel.tobytes()})
    weights, second = found.blobs
    assert (weights.name, weights.dtype, second.name, second.dtype) == ("c.weights", "F32", "c.bias", "F32")
    np.testing.assert_array_equal(found.values(weights), kernel)
    np.testing.assert_array_equal(found.values(second), bias)
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("layer", "key", "name", "dtype", "shape"),
    [
        ({**CONV, "type": "deconvolution"}, "blob_weights", "weights", "f4", (4, 1, 3, 1)),
        (CONV, "blob_weights_f16", "weights", "f2", (2, 2, 3, 1)),
        ({"type": "inner_product", "nB": 3, "nC": 2}, "blob_weights", "weights", "f4", (2, 3)),
        ({"type": "inner_product", "nB": 3, "nC": 2}, "w_f16_t", "w_f16_t", "f2", (3, 2)),
        ({"type": "batchnorm", "C": 3}, "blob_batchnorm_params", "params", "f4", (3, 4)),
        ({"type": "load_constant", "n": 1, "k": 2, "h": 3, "w": 4}, "constant_blob", "data", "f4", (1, 1, 2, 3, 4)),
        ({"type": "load_constant", "w": 4, "h": 3, "nd_rank": 2}, "constant_blob", "data", "f4", (3, 4)),
        ({"type": "activation"}, "alpha", "alpha", "f4", (5,)),
        ({"type": "conv3d"}, "blob_weights", "weights", "f4", (6,)),
        ({"type": "rnn_arch", "input_size": 2, "hidden_size": 3, "lstm_forget_bias": 0}, "W_x", "W_x", "f2", (24,)),
        ({"type": "rnn_arch", "input_size": 2, "hidden_size": 3, "lstm_forget_bias": 0}, "W_h", "W_h", "f4", (36,)),
    ],
)
def test_each_kind_of_tensor(
    tmp_path: Path, layer: dict[str, Any], key: str, name: str, dtype: str, shape: tuple[int, ...]
) -> None:
    values = floats(*shape).astype(dtype)
    at = {key: 1} if "blob" in key else {"weights": {key: 1}}
    found = bundle(tmp_path, [{**layer, "name": "l", **at}], {1: values.tobytes()})
    (blob,) = found.blobs
    assert blob.name == f"l.{name}"
    np.testing.assert_array_equal(found.values(blob), values, strict=True)


def test_codes_with_scales_are_one_quantized_tensor(tmp_path: Path) -> None:
    codes, scale, bias = np.arange(12, dtype=np.uint8).reshape(2, 2, 3, 1), floats(2), floats(2) - 1
    roles = {"W_U8": 1, "per_ch_qscale": 3, "per_ch_qbias": 5}
    blobs = {number: array.tobytes() for number, array in ((1, codes), (3, scale), (5, bias))}
    bundle(tmp_path, [{**CONV, "weights": roles}], blobs)
    (tmp_path / "coremldata.bin").write_bytes(b"?")
    tensors = CoreMLTensors(open_package(tmp_path))
    (entry,) = tensors.entries()
    assert (entry.name, entry.dtype, entry.shape, entry.nbytes) == ("c.weights", "INT8", (2, 2, 3, 1), 28)
    expected = codes * scale.reshape(2, 1, 1, 1) + bias.reshape(2, 1, 1, 1)
    np.testing.assert_array_equal(tensors.array(entry), expected.astype(np.float32))
    assert set(tensors.parts(entry)) == {"data", "scale", "bias"} and tensors.is_compressed(entry)


def test_a_compiled_networks_weights_become_safetensors(tmp_path: Path) -> None:
    kernel, bias = floats(2, 2, 3, 1).astype(np.float16), floats(2)
    folder = tmp_path / "net.mlmodelc"
    folder.mkdir()
    bundle(folder, [{**CONV, "blob_weights_f16": 1, "blob_biases": 3}], {1: kernel.tobytes(), 3: bias.tobytes()})
    (folder / "coremldata.bin").write_bytes(b"?")
    convert_weights(folder, tmp_path / "net.safetensors")
    made = load_file(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(made["c.weights"], kernel, strict=True)
    np.testing.assert_array_equal(made["c.bias"], bias, strict=True)


def test_what_is_not_a_tensor_is_named_with_its_bytes(tmp_path: Path) -> None:
    layers = [
        {"type": "rnn_arch", "name": "r", "weights": {"peepholes": 1, "alpha": 99}},
        {**CONV, "blob_biases": 3},
        {"type": "inner_product", "name": "i", "nB": 2, "nC": 2, "blob_weights": 5},
    ]
    blobs = {1: bytes(8), 3: floats(2).tobytes() + b"\1" * 4, 5: bytes(12), 7: bytes(64), 8: bytes(63)}
    bundle(tmp_path, layers, blobs)
    with (tmp_path / "model.espresso.weights").open("ab") as file:
        file.write(b"tail")
    network = read_network(tmp_path)
    assert network is not None
    left = {(item.name, item.bytes, item.kind) for item in EspressoWeights(network).left_out}
    assert left == {
        ("r.peepholes", 8, "unread"),
        ("r.alpha", None, "missing"),
        ("i.weights", 12, "unread"),
        ("model.espresso.weights: blob 3", 4, "unnamed"),
        ("model.espresso.weights: blob 7", 64, "unnamed"),
        ("model.espresso.weights: past its blobs", 4, "unnamed"),
    }


def test_without_the_weight_file_the_layers_tell_the_shapes(tmp_path: Path) -> None:
    found = bundle(tmp_path, [{**CONV, "blob_weights": 3, "weights": {"alpha": 1}}], None)
    assert [(blob.name, blob.shape, blob.nbytes) for blob in found.blobs] == [("c.weights", (2, 2, 3, 1), 48)]
    with pytest.raises(LoadError, match="the weight file is missing"):
        found.raw(found.blobs[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"1234", "does not fit"),
        (struct.pack("<Q", 2**60), "does not fit"),
        (struct.pack("<5Q", 2, 1, 0, 1, 0), "blob 1 is there twice"),
        (struct.pack("<3Q", 1, 1, 2**63), "past the end"),
    ],
)
def test_damage_is_a_fault_that_inspect_names(tmp_path: Path, content: bytes, message: str) -> None:
    bundle(tmp_path, [{**CONV, "blob_weights": 1}], None)
    (tmp_path / "model.espresso.weights").write_bytes(content)
    package = open_package(tmp_path)
    assert message in package.faults[0].message and len(package.weights) == 1
    tensors = CoreMLTensors(package)
    with pytest.raises(LoadError, match=message):
        tensors.array(tensors.entries()[0])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 200), min_size=1, max_size=8),
    st.lists(st.tuples(st.sampled_from(["blob_weights", "blob_biases", "W_U8", "odd"]), st.integers(0, 9)), max_size=6),
    st.integers(0, 70),
)
def test_every_byte_is_a_tensors_or_named_or_padding(
    tmp_path: Path, sizes: list[int], named: list[tuple[str, int]], more: int
) -> None:
    layers = [{"type": "other", "name": str(n), "weights": {key: at}} for n, (key, at) in enumerate(named)]
    blobs = {number: b"\7" * size for number, size in enumerate(sizes)}
    (tmp_path / "model.espresso.net").write_text(json.dumps({"layers": layers}))
    (tmp_path / "model.espresso.weights").write_bytes(stored(blobs) + bytes(more))
    network = read_network(tmp_path)
    assert network is not None
    found = EspressoWeights(network)
    spans = ((blob.offset, blob.nbytes) for blob in found.blobs if blob.offset is not None)
    covered = {at for offset, nbytes in spans for at in range(offset, offset + nbytes)}
    unnamed = sum(item.bytes or 0 for item in found.left_out if item.kind == "unnamed")
    unread = {number for key, number in named if key == "odd" and number in blobs}
    assert {item.bytes for item in found.left_out if item.kind == "unread"} == {len(blobs[n]) for n in unread}
    rest = sum(sizes) + more - len(covered) - unnamed
    assert 0 <= rest <= sum(len(blobs[number]) for number in unread)


@needs_models
def test_real_weights_equal_those_of_the_models_they_were_compiled_from() -> None:
    for name in ("waifu2x_anime_noise0_model", "identity_model_varvara"):
        compiled = CoreMLTensors(open_package(MODELS / f"mlmodelc/{name}.mlmodelc"))
        source = CoreMLTensors(open_package(MODELS / f"mlmodel/{name}.mlmodel"))
        pairs = list(zip(compiled.entries(), source.entries(), strict=True))  # one pair names its layers differently
        assert pairs and not compiled.left_out
        for one, other in pairs:
            assert one.name.partition(".")[2] == other.name.partition(".")[2]
            np.testing.assert_array_equal(compiled.array(one).ravel(), source.array(other), err_msg=one.name)
