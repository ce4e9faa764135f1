"""Whole compiled networks: preprocessing, labels, outputs, what is missing, and beside their sources."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tlkit
from tests.frontends.espresso.bundles import Blobs, coremldata, text, write_bundle
from tests.real_models import MODELS, needs_models
from tlkit.errors import LoadError
from tlkit.formats.coreml.open import open_package
from tlkit.mil import coreml_proto

RNG = np.random.default_rng(8)
COPY = {"type": "activation", "mode": 6, "alpha": 1, "name": "copy", "bottom": "image", "top": "found"}


def description(colour: int = 20, output: str = "found") -> Any:
    made = coreml_proto.module("Model_pb2").ModelDescription()
    image = made.input.add(name="image").type.imageType
    image.width, image.height, image.colorSpace = 6, 7, colour
    made.output.add(name=output).type.multiArrayType.dataType = 65568
    return made


def picture() -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (7, 6, 3), dtype=np.uint8))


@pytest.mark.parametrize(("colour", "order"), [(20, (0, 1, 2)), (30, (2, 1, 0))])
def test_pixels_are_scaled_and_shifted_by_colour(tmp_path: Path, colour: int, order: tuple[int, int, int]) -> None:
    steps = {"image": {"scale": 0.5, "bias_r": 1, "bias_g": -2, "bias_b": 3, "is_network_bgr": colour == 30}}
    said = coremldata(500, description(colour), struct.pack("<Q", 1), text("found"))
    shapes = {"image": (3, 7, 6), "found": (3, 7, 6)}
    path = write_bundle(tmp_path / "net.mlmodelc", [COPY], shapes, model=said, transform_params=steps)
    shown = picture()
    pixels = np.asarray(shown, np.float32).transpose(2, 0, 1) * 0.5 + np.array([1, -2, 3], np.float32)[:, None, None]
    found = tlkit.load_model(path).predict({"image": shown})["found"]
    np.testing.assert_allclose(found.reshape(3, 7, 6), pixels[list(order)], rtol=1e-6)


def test_an_output_may_have_another_name_than_its_value(tmp_path: Path) -> None:
    said = coremldata(500, description(output="answer"), struct.pack("<Q", 1), text("found"))
    shapes = {"image": (3, 7, 6), "found": (3, 7, 6)}
    path = write_bundle(tmp_path / "net.mlmodelc", [COPY], shapes, model=said)
    shown = picture()
    found = tlkit.load_model(path).predict({"image": shown})["answer"]
    np.testing.assert_array_equal(found.reshape(3, 7, 6), np.asarray(shown).transpose(2, 0, 1))


@pytest.mark.parametrize("labels", [("cat", "dog", "Füchsin"), (7, -1, 4)])
def test_a_classifier_has_its_labels_in_the_order_of_the_file(tmp_path: Path, labels: tuple[Any, ...]) -> None:
    made = coreml_proto.module("Model_pb2").ModelDescription()
    made.input.add(name="x").type.multiArrayType.shape.append(4)
    made.input[0].type.multiArrayType.dataType = 65568
    texts = isinstance(labels[0], str)
    table = made.output.add(name="shares").type.dictionaryType
    (table.stringKeyType if texts else table.int64KeyType).SetInParent()
    kind = made.output.add(name="label").type
    (kind.stringType if texts else kind.int64Type).SetInParent()
    made.predictedFeatureName, made.predictedProbabilitiesName = "label", "shares"
    listed = b"".join(text(item) if texts else struct.pack("<q", item) for item in labels)
    tail = struct.pack("<QQ", 100 if texts else 101, 3) + listed + text("p") + struct.pack("<Q", 1) + text("p")
    matrix, blobs = RNG.standard_normal((3, 4)).astype(np.float32), Blobs()
    layers = [
        {
            "type": "inner_product",
            "name": "a",
            "bottom": "x",
            "top": "s",
            "nB": 4,
            "nC": 3,
            "blob_weights": blobs.add(matrix),
        },
        {"type": "softmax", "name": "b", "bottom": "s", "top": "p", "C": 2},
    ]
    shapes = {"x": (4, 1, 1), "s": (3, 1, 1), "p": (3, 1, 1)}
    path = write_bundle(tmp_path / "net.mlmodelc", layers, shapes, blobs, model=coremldata(403, made, tail))
    x = RNG.standard_normal(4).astype(np.float32)
    powers = np.exp((matrix @ x).astype(np.float64))
    found = tlkit.load_model(path).predict({"x": x})
    assert list(found["shares"]) == list(labels)
    assert list(found["shares"].values()) == pytest.approx((powers / powers.sum()).tolist(), rel=1e-5)
    assert found["label"] == labels[int(powers.argmax())]
    assert tlkit.inspect(path).labels == tuple(map(str, labels))


def test_a_bundle_without_its_description_has_the_ports_of_its_network(tmp_path: Path) -> None:
    layers = [COPY, {"type": "activation", "mode": 0, "name": "r", "bottom": "found", "top": "y"}]
    shapes = {"image": (3, 7, 6), "found": (3, 7, 6), "y": (3, 7, 6)}
    plain = tlkit.load_model(write_bundle(tmp_path / "a.mlmodelc", layers, shapes))
    assert [(spec.name, spec.shape) for spec in plain.inputs] == [("image", (3, 7, 6))]
    assert [spec.name for spec in plain.outputs] == ["y"]
    x = RNG.standard_normal((3, 7, 6)).astype(np.float32)
    np.testing.assert_array_equal(plain.predict({"image": x})["y"].reshape(3, 7, 6), np.maximum(x, 0))
    seen = write_bundle(tmp_path / "b.mlmodelc", layers, shapes, transform_params={"image": {"scale": 2}})
    shown = picture()
    found = tlkit.load_model(seen).predict({"image": shown})["y"]
    np.testing.assert_array_equal(found.reshape(3, 7, 6), np.asarray(shown, np.float32).transpose(2, 0, 1) * 2)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "net.mlmodelc", [COPY], {"image": (3, 7, 6), "found": (3, 7, 6)})
    (path / "model.espresso.weights").unlink()
    with pytest.raises(LoadError, match=r"model\.espresso\.weights: the weight file is missing"):
        tlkit.load_model(path).predict({"image": np.zeros((3, 7, 6), np.float32)})


@needs_models
def test_a_compiled_network_computes_what_its_source_does() -> None:
    """Its own description is a git-lfs pointer, so that its port is an array of three sizes, as the source's is."""
    source, compiled = (
        tlkit.load_model(MODELS / folder / f"waifu2x_anime_noise0_model.{folder}") for folder in ("mlmodel", "mlmodelc")
    )
    x = RNG.uniform(0, 1, (3, 142, 142)).astype(np.float32)
    wanted, found = (model.predict({"input": x})["conv7"] for model in (source, compiled))
    assert found.shape == wanted.shape and wanted.std() > 0.1
    np.testing.assert_array_equal(found, wanted)


@needs_models
def test_a_compiled_network_of_the_same_weights_computes_them_on_its_own_preprocessing() -> None:
    """The source has no scale where the bundle has 1/255; the convolution is linear."""
    source = tlkit.load_model(MODELS / "mlmodel/identity_model_varvara.mlmodel")
    compiled = tlkit.load_model(MODELS / "mlmodelc/identity_model_varvara.mlmodelc")
    shown = Image.fromarray(RNG.integers(0, 256, (416, 416, 3), dtype=np.uint8))
    wanted, found = (model.predict({"image": shown})["output1"] for model in (source, compiled))
    np.testing.assert_allclose(found, wanted / 255, rtol=1e-5, atol=1e-6)
    assert found.max() > 0.9


@needs_models
@pytest.mark.slow
def test_a_compiled_network_becomes_a_package(tmp_path: Path) -> None:
    made = tlkit.convert(
        str(MODELS / "mlmodelc/waifu2x_anime_noise0_model.mlmodelc"), output=str(tmp_path / "new.mlpackage")
    )
    assert made.ok
    assert open_package(tmp_path / "new.mlpackage").model.WhichOneof("Type") == "mlProgram"
