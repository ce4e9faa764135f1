"""Pipelines of an mlprogram and a nonMaximumSuppression model, as detectors are exported: walked, run, stage by stage.

Covers tlkit/engines/pipeline.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import tlkit
from tests.real_models import MODELS, needs_models
from tlkit.core.run.run import run
from tlkit.core.weights.weights import convert_weights
from tlkit.engines.classic.nms import NonMaximumSuppression
from tlkit.errors import TlkitError, UsageError
from tlkit.formats.coreml.open import open_package
from tlkit.types import TensorSpec

CLASSES, BOXES = 3, 40


class Detector(torch.nn.Module):
    """An image to confidences (boxes x classes) and centre-size boxes, both 0 to 1."""

    def __init__(self, plain: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.features = torch.nn.Conv2d(3, 8, 3, 2, 1)
        self.head = torch.nn.Linear(8 * 16 * 16 if plain else 8, BOXES * (CLASSES + 4))
        self.plain = plain

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = torch.relu(self.features(image))
        found = found.flatten(1) if self.plain else found.mean((2, 3))
        rows = torch.sigmoid(self.head(found)).reshape(BOXES, CLASSES + 4)
        boxes = torch.cat([rows[:, CLASSES : CLASSES + 2], rows[:, CLASSES + 2 :] * 0.4], 1)
        return rows[:, :CLASSES], boxes


def nms_model(per_class: bool, overlap: float, least: float) -> Any:
    """The second stage, in the form in which exporters write it."""
    spec = ct.proto.Model_pb2.Model()
    spec.specificationVersion = 5
    for name in ("raw_confidence", "raw_coordinates"):
        port = spec.description.input.add(name=name)
        port.type.multiArrayType.dataType = ct.proto.FeatureTypes_pb2.ArrayFeatureType.FLOAT32
    for name, width in (("confidence", CLASSES), ("coordinates", 4)):
        array = spec.description.output.add(name=name).type.multiArrayType
        array.dataType = ct.proto.FeatureTypes_pb2.ArrayFeatureType.DOUBLE
        array.shapeRange.sizeRanges.add(lowerBound=0, upperBound=-1)
        array.shapeRange.sizeRanges.add(lowerBound=width, upperBound=width)
    nms = spec.nonMaximumSuppression
    nms.confidenceInputFeatureName, nms.coordinatesInputFeatureName = "raw_confidence", "raw_coordinates"
    nms.confidenceOutputFeatureName, nms.coordinatesOutputFeatureName = "confidence", "coordinates"
    nms.iouThresholdInputFeatureName, nms.confidenceThresholdInputFeatureName = "iouThreshold", "confidenceThreshold"
    nms.iouThreshold, nms.confidenceThreshold, nms.pickTop.perClass = overlap, least, per_class
    nms.stringClassLabels.vector.extend(["cat", "dog", "bird"])
    for name in ("iouThreshold", "confidenceThreshold"):
        port = spec.description.input.add(name=name)
        port.type.doubleType.SetInParent()
        port.type.isOptional = True
    return spec


def pipeline(
    folder: Path, plain: bool = True, per_class: bool = True, rows: int | None = None
) -> tuple[Path, Detector]:
    """Write a package whose model is a pipeline of an mlprogram and an NMS model."""
    net = Detector(plain).eval()
    traced = torch.jit.trace(net, torch.rand(1, 3, 32, 32))
    first = ct.convert(
        traced,
        inputs=[ct.ImageType("image", (1, 3, 32, 32), scale=1 / 255)],
        outputs=[ct.TensorType("raw_confidence"), ct.TensorType("raw_coordinates")],
        compute_precision=ct.precision.FLOAT32,
        minimum_deployment_target=ct.target.iOS16,
        skip_model_load=True,
    )
    second = nms_model(per_class, 0.45, 0.5)
    spec = ct.proto.Model_pb2.Model()
    spec.specificationVersion = 7
    spec.pipeline.models.add().CopyFrom(first.get_spec())
    spec.pipeline.models.add().CopyFrom(second)
    spec.pipeline.names.extend(["detector", "suppression"])
    spec.description.input.add().CopyFrom(first.get_spec().description.input[0])
    for port in second.description.input[2:]:
        spec.description.input.add().CopyFrom(port)
    for port in second.description.output:
        spec.description.output.add().CopyFrom(port)
    goal = folder / "detector.mlpackage"
    ct.models.MLModel(spec, weights_dir=first.weights_dir, skip_model_load=True).save(str(goal))
    return goal, net


def iou(box: Any, other: Any) -> float:
    """Intersection over union of two centre-size boxes, in f64."""
    common = 1.0
    for axis in (0, 1):
        low = max(box[axis] - box[axis + 2] / 2, other[axis] - other[axis + 2] / 2)
        high = min(box[axis] + box[axis + 2] / 2, other[axis] + other[axis + 2] / 2)
        common *= max(high - low, 0)
    return float(common / (box[2] * box[3] + other[2] * other[3] - common))


def by_hand(scores: Any, boxes: Any, overlap: float, least: float, per_class: bool) -> list[int]:
    """Greedy suppression, box by box."""
    kept: list[int] = []
    for index in np.argsort(-scores.max(-1), kind="stable"):
        rivals = [k for k in kept if not per_class or scores[k].argmax() == scores[index].argmax()]
        if scores[index].max() >= least and all(iou(boxes[k], boxes[index]) <= overlap for k in rivals):
            kept.append(int(index))
    return kept


@pytest.fixture(scope="module", params=[(True, True), (True, False), (False, True)], ids=str)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Detector, bool]:
    plain, per_class = request.param
    return (*pipeline(tmp_path_factory.mktemp("p"), plain, per_class), per_class)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8))


def test_a_pipeline_gives_what_its_network_and_suppression_by_hand_give(made: tuple[Path, Detector, bool]) -> None:
    path, net, per_class = made
    model = tlkit.load_model(path, precision="f32")
    counts = []
    for seed, given in ((0, {}), (1, {"iouThreshold": 0.2}), (2, {"confidenceThreshold": 0.51, "iouThreshold": 0.9})):
        image = picture(seed)
        found = model.predict({"image": image, **given})
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            scores, boxes = (value.numpy() for value in net(pixels))
        kept = by_hand(scores, boxes, given.get("iouThreshold", 0.45), given.get("confidenceThreshold", 0.5), per_class)
        counts.append(len(kept))
        np.testing.assert_allclose(found["confidence"], scores[kept], atol=1e-5)
        np.testing.assert_allclose(found["coordinates"], boxes[kept], atol=1e-5)
    assert 1 < max(counts) < BOXES and len(set(counts)) > 1


def test_nothing_is_kept_where_nothing_passes(made: tuple[Path, Detector, bool]) -> None:
    found = tlkit.load_model(made[0]).predict({"image": picture(0), "confidenceThreshold": 1.0})
    assert found["confidence"].shape == (0, CLASSES) and found["coordinates"].shape == (0, 4)


def test_inspect_walks_the_stages(made: tuple[Path, Detector, bool]) -> None:
    path, net, _ = made
    info = tlkit.inspect(path)
    count = sum(value.numel() for value in net.parameters())
    assert (info.kind, info.parameters, info.spec_version, info.opset) == ("pipeline", count, 7, "iOS16")
    assert info.weights == {"F32": count} and info.operations["conv"] == 1 and info.compute["F32"] > 3
    assert info.labels == ("cat", "dog", "bird") and not info.notes
    kinds = [(stage["kind"], stage["parameters"]) for stage in info.details["stages"]]
    assert kinds == [("mlProgram", count), ("nonMaximumSuppression", 0)]


def test_inspect_shows_one_stage_by_itself(made: tuple[Path, Detector, bool], tmp_path: Path) -> None:
    path, net, _ = made
    count = sum(value.numel() for value in net.parameters())
    first, second = (tlkit.inspect(path, stage=stage, stats=True) for stage in (0, "suppression"))
    assert (first.kind, first.parameters, first.opset) == ("mlProgram", count, "iOS16")
    assert [port.name for port in first.outputs] == ["raw_confidence", "raw_coordinates"]
    assert {item.name for item in first.stats or ()} == {name.replace(".", "_") for name, _ in net.named_parameters()}
    assert (second.kind, second.parameters, second.stats) == ("nonMaximumSuppression", 0, ())
    assert not first.left_out and not second.left_out  # the weights that the second does not name are the first's
    zipped = Path(shutil.make_archive(str(tmp_path / "net"), "zip", path.parent, path.name))
    assert tlkit.inspect(zipped, stage=0, stats=True).stats == first.stats
    assert not tlkit.inspect(zipped, stage=1).left_out
    with pytest.raises(UsageError, match="no stage"):
        tlkit.inspect(path, stage=2)


def test_the_weights_of_a_stage_are_given(made: tuple[Path, Detector, bool], tmp_path: Path) -> None:
    path, net, _ = made
    convert_weights(path, tmp_path / "x.safetensors")
    stored = load_file(tmp_path / "x.safetensors")
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(stored[name.replace(".", "_")], value.numpy())


def test_missing_weights_of_a_stage_are_noticed(tmp_path: Path) -> None:
    path, _ = pipeline(tmp_path)
    next(path.rglob("weight.bin")).unlink()
    info = tlkit.inspect(path)
    assert info.details["weights_missing"] and "the weight file is missing" in info.notes[0]
    with pytest.raises(TlkitError, match="the weight file is missing"):
        tlkit.load_model(path).predict({"image": picture(0)})


def test_a_stage_runs_by_itself(made: tuple[Path, Detector, bool]) -> None:
    path, _, per_class = made
    first = tlkit.load_model(path, stage=0, precision="f32")
    raw = first.predict({"image": picture(4)})
    second = tlkit.load_model(path, stage="suppression")
    found = second.predict(raw)
    kept = by_hand(raw["raw_confidence"], raw["raw_coordinates"], 0.45, 0.5, per_class)
    np.testing.assert_array_equal(found["confidence"], raw["raw_confidence"][kept])
    assert [summary.name for summary in run(str(path), stage="0").summaries] == ["raw_confidence", "raw_coordinates"]
    for wrong in (2, "nothing", "-1"):
        with pytest.raises(UsageError, match="no stage"):
            tlkit.load_model(path, stage=wrong)


def test_random_inputs_leave_the_thresholds_alone(made: tuple[Path, Detector, bool]) -> None:
    result = run(str(made[0]))
    assert [port.name for port in result.inputs] == ["image"]


@pytest.mark.parametrize(("rows", "wanted"), [((2, 2), (2, 4)), ((10, 10), (10, 4)), ((0, 1), (1, 4))])
def test_fixed_outputs_are_cut_and_filled(rows: tuple[int, int], wanted: tuple[int, int]) -> None:
    message = nms_model(False, 0.5, 0.1).nonMaximumSuppression
    ranges = (rows, (4, 4)) if rows[0] != rows[1] else ()
    specs = [
        TensorSpec(name, "float64", (rows[1], width), ranges=ranges)
        for name, width in (("confidence", 3), ("coordinates", 4))
    ]
    boxes = np.array([[0.1, 0.1, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1], [0.9, 0.9, 0.1, 0.1]], np.float32)
    scores = np.array([[0.3, 0, 0], [0.9, 0, 0], [0.6, 0, 0]], np.float32)
    found = NonMaximumSuppression(message, specs).run({"raw_confidence": scores, "raw_coordinates": boxes})[
        "coordinates"
    ]
    assert found.shape == wanted
    np.testing.assert_array_equal(found[:3], boxes[[1, 2, 0]][: wanted[0]])
    assert not found[3:].any()


def test_a_pipeline_in_a_pipeline_is_walked(tmp_path: Path) -> None:
    path, _ = pipeline(tmp_path)
    file = open_package(path).file
    outer = ct.proto.Model_pb2.Model()
    outer.ParseFromString(file.read_bytes())
    inner = ct.proto.Model_pb2.Model()
    inner.CopyFrom(outer)
    del outer.pipeline.models[:], outer.pipeline.names[:]
    outer.pipeline.models.add().CopyFrom(inner)
    file.write_bytes(outer.SerializeToString())
    info = tlkit.inspect(path)
    assert [stage["kind"] for stage in info.details["stages"]] == ["mlProgram", "nonMaximumSuppression"]
    assert len(tlkit.load_model(path).predict({"image": picture(0)})["confidence"]) > 1


@needs_models
def test_the_suppression_of_a_real_detector(tmp_path: Path) -> None:
    """The second stage of a detector from before mlprograms, on boxes of our own."""
    model = tlkit.load_model(MODELS / "mlmodel/blazeface_pipeline.mlmodel", stage=1)
    rng = np.random.default_rng(5)
    boxes = rng.uniform(0.1, 0.4, (896, 4)).astype(np.float32)
    scores = rng.uniform(0, 1, (896, 1)).astype(np.float32)
    found = model.predict({"box_confidence": scores, "boxes": boxes})
    kept = by_hand(scores, boxes, 0.5, 0.75, per_class=False)
    np.testing.assert_array_equal(found["coordinates"], boxes[kept])
    stages = tlkit.inspect(MODELS / "mlmodel/blazeface_pipeline.mlmodel").details["stages"]
    assert [stage["kind"] for stage in stages] == ["neuralNetwork", "nonMaximumSuppression"]
