"""What is told of a Core ML model is what was put into it; damage is a note or one line, never a traceback.

Covers tlkit/formats/coreml/package.py, tlkit/formats/coreml/open.py, tlkit/formats/coreml/ports.py,
tlkit/formats/coreml/weights.py, tlkit/formats/describe.py, tlkit/core/model/agreement.py.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.formats import packages
from tests.formats.packages import ARRAYS, FEATURES, MODEL, Body, Weights, immediate, stored, tensor_type
from tests.real_models import MODELS, needs_models
from tlkit.core.model.load import load_model
from tlkit.errors import LoadError
from tlkit.formats.coreml.describe import describe, weight_table
from tlkit.formats.coreml.open import open_package
from tlkit.types import ImageSpec, ModelInfo, TensorSpec

INNER = "Data/com.apple.CoreML"


def test_an_mlprogram_is_described_as_it_was_written(tmp_path: Path) -> None:
    path = packages.classifier(tmp_path / "net.mlpackage")
    info = describe(path)
    assert (info.kind, info.spec_version, info.opset, info.functions) == ("mlProgram", 8, "iOS17", ("main",))
    assert info.labels == ("zero", "one", "two")
    assert info.inputs == (TensorSpec("image", "float32", (1, 1, 2, 2), "image", image=ImageSpec("GRAYSCALE", 2, 2)),)
    assert [(port.name, port.kind) for port in info.outputs] == [("label", "string"), ("label_probs", "dictionary")]
    assert info.weights == {"F16": 15} and info.parameters == 15
    assert info.compute == {"F16": 3, "F32": 3}
    assert info.operations == {"cast": 2, "classify": 1, "linear": 1, "mul": 1, "reshape": 1, "softmax": 1}
    assert (info.metadata.format, info.metadata.quantization) == ("CoreML", "F16")
    assert (info.metadata.author, info.metadata.license) == ("A. Author", "MIT")
    assert info.metadata.user["note"] == "kept"
    assert info.details["provenance"] == {"version": "9.0", "source": "torch==2.13.0"}
    assert info.notes == ()


def test_sizes_are_those_on_disk_and_add_up(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    sizes = describe(path).sizes
    assert sizes["program"] == (path / INNER / "model.mlmodel").stat().st_size
    assert sizes["weights"] == (path / INNER / "weights/weight.bin").stat().st_size
    assert sum(sizes.values()) == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_the_weight_table_says_where_the_bytes_lie(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    matrix, bias = weight_table(open_package(path))
    assert (matrix.name, matrix.dtype, matrix.shape, matrix.bytes, matrix.offset) == ("matrix", "F16", (3, 4), 24, 64)
    data = (path / INNER / "weights/weight.bin").read_bytes()
    start = int.from_bytes(data[matrix.offset + 16 : matrix.offset + 24], "little")
    assert data[start : start + matrix.bytes] == packages.MATRIX.tobytes()
    assert (bias.name, bias.shape, bias.file, bias.offset) == ("bias", (3,), "", None)


def test_inspecting_leaves_every_file_untouched(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.rglob("*") if file.is_file()}
    describe(path)
    assert before == {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.rglob("*") if file.is_file()}


def _compressed(tmp_path: Path, fill: Callable[[Body, Weights], None], opset: str) -> ModelInfo:
    weights, body = Weights(), Body(opset)
    fill(body, weights)
    model = MODEL.Model(specificationVersion=9)
    model.mlProgram.CopyFrom(body.message)
    return describe(packages.write(tmp_path / "c.mlpackage", model, weights.done()))


DENSE = {"w": tensor_type("fp16", 8, 16)}


def _palette_ios18(body: Body, weights: Weights) -> None:
    indices = body.const("i", stored("uint4", weights.add("uint4", bytes(64)), 8, 16))
    table = body.const("t", stored("fp16", weights.add("fp16", bytes(32)), 1, 1, 16, 1))
    body.op("constexpr_lut_to_dense", DENSE, {"indices": indices, "lut": table})


def _palette_ios16(body: Body, weights: Weights) -> None:
    attributes = {
        "indices": stored("uint8", weights.add("uint8", bytes(96)), 96),  # 128 indices of 6 bits
        "lut": stored("fp16", weights.add("fp16", bytes(128)), 64),
        "shape": immediate("int32", [8, 16]),
    }
    body.op("constexpr_lut_to_dense", DENSE, {}, attributes)


def _int4(body: Body, weights: Weights) -> None:
    data = body.const("d", stored("int4", weights.add("int4", bytes(64)), 8, 16))
    scale = body.const("s", stored("fp16", weights.add("fp16", bytes(16)), 8, 1))
    body.op("constexpr_blockwise_shift_scale", DENSE, {"data": data, "scale": scale})


def _int8_ios16(body: Body, weights: Weights) -> None:
    attributes = {
        "quantized_data": stored("int8", weights.add("int8", bytes(128)), 8, 16),
        "scale": immediate("fp16", [0.5] * 8),
        "zero_point": immediate("int8", [0] * 8),
    }
    body.op("constexpr_affine_dequantize", DENSE, {}, attributes)


def _sparse_palette(body: Body, weights: Weights, mask_of: str = "mask") -> None:
    mask = body.const("m", stored("uint1", weights.add("uint1", bytes(16)), 8, 16))
    indices = body.const("i", stored("uint4", weights.add("uint4", bytes(8)), 16))
    table = body.const("t", stored("fp16", weights.add("fp16", bytes(32)), 1, 1, 16, 1))
    outputs = {"mask": tensor_type("uint1", 8, 16), "kept": tensor_type("fp16", 16)}
    body.op("constexpr_lut_to_sparse", outputs, {"indices_mask": mask, "indices_nonzero_data": indices, "lut": table})
    body.op("constexpr_sparse_to_dense", DENSE, {"nonzero_data": "kept", "mask": mask_of})


def _sparse_palette_one_mask(body: Body, weights: Weights) -> None:
    """As coremltools writes it: both operations take one mask; the mask that the first returns is left unused."""
    _sparse_palette(body, weights, "m")


@pytest.mark.parametrize(
    ("fill", "opset", "stored_as", "size"),
    [
        (_palette_ios18, "CoreML8", "PAL4", 64 + 32),
        (_palette_ios16, "CoreML6", "PAL6", 96 + 128),
        (_int4, "CoreML8", "INT4", 64 + 16),
        (_int8_ios16, "CoreML6", "INT8", 128 + 16 + 8),
        (_sparse_palette, "CoreML8", "SPARSE PAL4", 16 + 8 + 32),
        (_sparse_palette_one_mask, "CoreML8", "SPARSE PAL4", 16 + 8 + 32),
    ],
)
def test_a_compressed_weight_counts_once_expanded(
    tmp_path: Path, fill: Callable[[Body, Weights], None], opset: str, stored_as: str, size: int
) -> None:
    info = _compressed(tmp_path, fill, opset)
    assert info.weights == {stored_as: 128} and info.metadata.quantization == stored_as
    (weight,) = weight_table(open_package(tmp_path / "c.mlpackage"))
    assert (weight.name, weight.shape, weight.bytes) == ("w", (8, 16), size)
    assert info.compute == {}


def test_weights_that_share_their_zero_points_are_several(tmp_path: Path) -> None:
    """coremltools stores equal zero points once; the records of the two weights' values differ."""

    def fill(body: Body, weights: Weights) -> None:
        zeros = stored("int8", weights.add("int8", bytes(8)), 8)
        for name in ("v", "w"):
            attributes = {
                "zero_point": zeros,
                "scale": immediate("fp16", [0.5] * 8),
                "quantized_data": stored("int8", weights.add("int8", bytes([len(name)] * 128)), 8, 16),
            }
            body.op("constexpr_affine_dequantize", {name: tensor_type("fp16", 8, 16)}, {}, attributes)

    assert _compressed(tmp_path, fill, "CoreML6").weights == {"INT8": 256}
    assert [item.name for item in weight_table(open_package(tmp_path / "c.mlpackage"))] == ["v", "w"]


def _feature(fill: Callable[[object], None]) -> TensorSpec:
    from tlkit.formats.coreml.ports import read_ports

    feature = FEATURES.FeatureType()
    fill(feature)
    description = MODEL.FeatureDescription(name="p")
    description.type.CopyFrom(feature)
    return read_ports([description])[0]


def test_ranges_enumerations_defaults_and_options() -> None:
    def ranged(feature: object) -> None:
        array = feature.multiArrayType  # type: ignore[attr-defined]
        array.dataType = ARRAYS.INT32
        array.shape.extend([1, 8])
        for low, high in ((1, 1), (2, -1)):
            array.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
        array.intDefaultValue = 7
        feature.isOptional = True  # type: ignore[attr-defined]

    spec = _feature(ranged)
    assert (spec.dtype, spec.shape, spec.ranges) == ("int32", (1, 8), ((1, 1), (2, None)))
    assert (spec.default, spec.optional, spec.flexible) == (7.0, True, True)

    def enumerated(feature: object) -> None:
        array = feature.multiArrayType  # type: ignore[attr-defined]
        array.dataType = ARRAYS.FLOAT16
        for length in (4, 8):
            array.enumeratedShapes.shapes.add().shape.extend([1, length])

    spec = _feature(enumerated)
    assert (spec.dtype, spec.shape, spec.enumerated) == ("float16", (1, 4), ((1, 4), (1, 8)))


@pytest.mark.parametrize(("layout", "channels"), [("RGB", 3), ("BGR", 3), ("GRAYSCALE", 1), ("GRAYSCALE_FLOAT16", 1)])
def test_image_layouts_and_sizes(layout: str, channels: int) -> None:
    def fill(feature: object) -> None:
        image = feature.imageType  # type: ignore[attr-defined]
        image.width, image.height = 6, 4
        image.colorSpace = getattr(FEATURES.ImageFeatureType, layout)
        image.imageSizeRange.widthRange.upperBound = -1
        image.imageSizeRange.widthRange.lowerBound = 2
        image.imageSizeRange.heightRange.lowerBound = image.imageSizeRange.heightRange.upperBound = 4

    spec = _feature(fill)
    assert spec.shape == (1, channels, 4, 6)
    assert spec.image == ImageSpec(layout, 6, 4, (), (2, None), (4, 4))  # type: ignore[arg-type]


def _manifest(path: Path, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    manifest = json.loads((path / "Manifest.json").read_text())
    change(manifest)
    (path / "Manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("outside", ["../../../secret", "/etc/passwd", "com.apple.CoreML/../../../secret", ""])
def test_a_manifest_that_points_outside_is_refused(tmp_path: Path, outside: str) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    shutil.copy(path / INNER / "model.mlmodel", tmp_path / "secret")
    _manifest(path, lambda m: m["itemInfoEntries"]["A"].update(path=outside))
    with pytest.raises(LoadError, match="outside the package"):
        describe(path)


def test_a_link_that_leaves_the_package_is_refused(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    model = path / INNER / "model.mlmodel"
    model.rename(tmp_path / "elsewhere")
    model.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LoadError, match="outside the package"):
        describe(path)


def test_a_package_in_hugging_faces_cache_opens_through_its_links(tmp_path: Path) -> None:
    original = packages.linear(tmp_path / "net.mlpackage")
    cache = tmp_path / "models--someone--net"
    blobs = cache / "blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(f for f in original.rglob("*") if f.is_file()):
        link = cache / "snapshots/abc/net.mlpackage" / file.relative_to(original)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blobs / str(number))
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    info = describe(cache / "snapshots/abc/net.mlpackage")
    assert info.notes == () and info.weights == describe(original).weights


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("rootModelIdentifier"),
        lambda m: m.update(rootModelIdentifier="Z"),
        lambda m: m.update(itemInfoEntries=[]),
        lambda m: m["itemInfoEntries"].update(A=3),
    ],
)
def test_a_manifest_without_a_root_model_is_refused(
    tmp_path: Path,
    change: Callable[[dict], object],  # type: ignore[type-arg]
) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    _manifest(path, change)
    with pytest.raises(LoadError, match=r"Manifest\.json"):
        describe(path)


def test_a_manifest_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    (path / "Manifest.json").write_text("[" * 200_000)
    with pytest.raises(LoadError):
        describe(path)


@pytest.mark.parametrize("name", ["@model_path/../../../secret", "/etc/passwd", "@model_path/weights/\0"])
def test_a_weight_file_outside_the_package_is_never_opened(tmp_path: Path, name: str) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    shutil.copy(path / INNER / "weights/weight.bin", tmp_path / "secret")
    model = MODEL.Model.FromString((path / INNER / "model.mlmodel").read_bytes())
    for operation in model.mlProgram.functions["main"].block_specializations["CoreML7"].operations:
        if "val" in operation.attributes and operation.attributes["val"].HasField("blobFileValue"):
            operation.attributes["val"].blobFileValue.fileName = name
    (path / INNER / "model.mlmodel").write_bytes(model.SerializeToString())
    package = open_package(path)
    assert package.program is not None
    assert len(package.faults) == 1 and "secret" not in str(package.faults[0].hint)
    with pytest.raises(LoadError):
        package.require_weights()


def test_missing_weights_are_a_note_and_still_counted(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    whole = describe(path)
    shutil.rmtree(path / INNER / "weights")
    info = describe(path)
    assert (info.weights, info.operations, info.inputs) == (whole.weights, whole.operations, whole.inputs)
    assert len(info.notes) == 1 and "weight.bin: the weight file is missing" in info.notes[0]


@pytest.mark.parametrize(("what", "where"), [("input", "description"), ("output", "program")])
def test_a_description_of_other_ports_than_the_programs_is_refused(tmp_path: Path, what: str, where: str) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    model = MODEL.Model.FromString((path / INNER / "model.mlmodel").read_bytes())
    (port,) = getattr(model.description, what)
    name, port.name = port.name, "other"
    (path / INNER / "model.mlmodel").write_bytes(model.SerializeToString())
    with pytest.raises(
        LoadError, match=f"'{name if what == 'input' else 'other'}' is missing from the model's {where}"
    ):
        load_model(path).prepare()


def test_weights_cut_short_are_a_note(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    weights = path / INNER / "weights/weight.bin"
    weights.write_bytes(weights.read_bytes()[:140])
    (note,) = describe(path).notes
    assert "past the end" in note
    with pytest.raises(LoadError, match="past the end"):
        open_package(path).require_weights()


def test_weights_that_are_a_pointer_are_named_with_their_size(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    (path / INNER / "weights/weight.bin").write_text(
        "version https://git-lfs.github.com/spec/v1\noid x\nsize 1234567\n"
    )
    (note,) = describe(path).notes
    assert "git-lfs pointer in place of the 1,234,567 bytes" in note


def _error(path: Path) -> str | None:
    """What a LoadError says, None where the model could be described; any other exception is the test's failure."""
    try:
        describe(path)
    except LoadError as error:
        return error.message
    return None


def test_a_model_cut_short_anywhere_is_one_error(tmp_path: Path) -> None:
    path = packages.classifier(tmp_path / "net.mlpackage")
    file = path / INNER / "model.mlmodel"
    whole = file.read_bytes()
    said = []
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        said.append(_error(path))
    errors = [message for message in said if message]
    assert len(errors) > 0.9 * len(said)  # a cut between two fields can leave a readable message
    assert all(str(path) in message and "\n" not in message for message in errors)


def test_flipped_bits_never_end_in_anything_but_a_load_error(tmp_path: Path) -> None:
    path = packages.classifier(tmp_path / "net.mlpackage")
    draw = random.Random(0)
    for file in (path / INNER / "model.mlmodel", path / INNER / "weights/weight.bin", path / "Manifest.json"):
        whole = file.read_bytes()
        for _ in range(200):
            damaged = bytearray(whole)
            for _ in range(draw.randint(1, 3)):
                damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
            file.write_bytes(damaged)
            message = _error(path)
            assert message is None or (str(path) in message and "\n" not in message)
        file.write_bytes(whole)


def test_a_legacy_network_is_described_too(tmp_path: Path) -> None:
    model = MODEL.Model(specificationVersion=1)
    packages.array_feature(model.description.input.add(), "x", ARRAYS.DOUBLE, 3)
    packages.array_feature(model.description.output.add(), "y", ARRAYS.DOUBLE, 2)
    network = model.neuralNetworkClassifier
    layer = network.layers.add(name="fc", input=["x"], output=["y"])
    layer.innerProduct.weights.float16Value = np.zeros((2, 3), np.float16).tobytes()
    layer.innerProduct.bias.floatValue.extend([0.0, 0.0])
    network.int64ClassLabels.vector.extend([4, 5])
    path = tmp_path / "old.mlmodel"
    path.write_bytes(model.SerializeToString())
    info = describe(path)
    assert (info.kind, info.labels, info.operations) == ("neuralNetworkClassifier", ("4", "5"), {"innerProduct": 1})
    assert info.weights == {"F16": 6, "F32": 2} and info.sizes == {"model": path.stat().st_size}


@needs_models
@pytest.mark.parametrize("folder", ["mlpackage", "mlmodel"])
def test_every_real_model_is_described(folder: str) -> None:
    for path in sorted((MODELS / folder).iterdir()):
        info = describe(path)
        assert info.kind != "unknown" and info.inputs and info.outputs and sum(info.sizes.values()) > 0, path.name


@needs_models
@pytest.mark.parametrize(
    ("name", "quantization"),
    [
        ("mlmodel/carn.mlmodel", "F32"),
        ("mlmodel/DeepLabV3Int8LUT.mlmodel", "PAL8"),
        ("mlmodel/PoseNetMobileNet075S16FP16.mlmodel", "F16"),
        ("incomplete/HiFiGAN_int8_range1.mlpackage", "INT8"),
    ],
)
def test_real_precisions(name: str, quantization: str) -> None:
    assert describe(MODELS / name).metadata.quantization == quantization


@needs_models
def test_parameters_agree_with_the_onnx_twin() -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(MODELS / "oracle/my_network_vincentg.onnx").graph
    expected = sum(onnx.numpy_helper.to_array(tensor).size for tensor in graph.initializer)
    assert describe(MODELS / "mlmodel/my_network_vincentg.mlmodel").parameters == expected


@needs_models
@pytest.mark.parametrize("name", ["HiFiGAN_int8_range1.mlpackage", "koush_scrypted_yolov8n_320.mlpackage"])
def test_incomplete_models_show_what_is_there(name: str) -> None:
    info = describe(MODELS / "incomplete" / name)
    assert info.operations and info.parameters > 1e6 and len(info.notes) == 1
