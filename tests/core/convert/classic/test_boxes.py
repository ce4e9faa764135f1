"""A suppression of boxes as a program, beside greedy suppression by hand and beside the stage itself.

Covers tlkit/core/convert/classic/check.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlkit
from tests.core.convert.classic.test_pipelines import dense
from tests.engines.classic.specs import blank, load
from tests.engines.classic.test_nms import by_hand
from tlkit.core.convert.classic.boxes import suppression
from tlkit.core.convert.classic.making import as_mlprogram
from tlkit.core.convert.classic.program import open_program
from tlkit.engines.torch.engine import TorchEngine
from tlkit.errors import ConversionError, LoadError
from tlkit.frontends.network.kit.blob import Blob
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.network import needed
from tlkit.mil.program import Block, Function, NamedType, TensorType
from tlkit.mil.types import DType

COUNT, CLASSES = 30, 3
RNG = np.random.default_rng(8)
BOXES = np.concatenate([RNG.random((COUNT, 2)), 0.1 + RNG.random((COUNT, 2)) * 0.4], 1).astype(np.float32)
SCORES = RNG.random((COUNT, CLASSES)).astype(np.float32)
ROWS = {"open": (0, -1), "few": (0, 4), "fixed": (6, 6), "more than boxes": (40, 40), "at least": (12, 20)}


def stage(rows: tuple[int, int], per_class: bool = True, described: bool = True) -> Any:
    """A suppression of ``scores`` and ``boxes`` to ``kept`` and ``where``."""
    inputs = {"scores": COUNT * CLASSES, "boxes": COUNT * 4}
    made = blank("nonMaximumSuppression", inputs | ({"iou": "double", "least": "double"} if described else {}), {})
    for port in list(made.description.input)[2:]:
        port.type.isOptional = True
    for name, width in (("kept", CLASSES), ("where", 4)):
        array = made.description.output.add(name=name).type.multiArrayType
        array.dataType = 65568
        if rows[0] == rows[1]:
            array.shape.extend((rows[0], width))
            continue
        for low, high in (rows, (width, width)):
            array.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
    message = made.nonMaximumSuppression
    message.confidenceInputFeatureName, message.coordinatesInputFeatureName = "scores", "boxes"
    message.confidenceOutputFeatureName, message.coordinatesOutputFeatureName = "kept", "where"
    message.iouThresholdInputFeatureName, message.confidenceThresholdInputFeatureName = "iou", "least"
    message.iouThreshold, message.confidenceThreshold, message.pickTop.perClass = 0.2, 0.6, per_class
    message.stringClassLabels.vector.extend(["cat", "dog", "bird"])
    return made


def expected(rows: tuple[int, int], least: float, per_class: bool) -> tuple[Any, Any]:
    """The rows that suppression by hand gives, cut and filled up as the outputs say."""
    kept = by_hand(SCORES, BOXES, 0.2, least, per_class)
    kept = kept if rows[1] < 0 else kept[: rows[1]]
    filled = ((0, max(rows[0] - len(kept), 0)), (0, 0))
    return np.pad(SCORES[kept], filled), np.pad(BOXES[kept], filled)


@pytest.mark.parametrize("opset", ["CoreML5", "CoreML7"])
@pytest.mark.parametrize("per_class", [True, False])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_both_forms_of_the_operation_give_what_suppression_by_hand_gives(
    rows: tuple[int, int], per_class: bool, opset: str
) -> None:
    counts = set()
    for given in (False, True):
        shapes = {"scores": (COUNT * CLASSES,), "boxes": (COUNT * 4,)} | ({"least": (1,)} if given else {})
        g = Graph(set(shapes))
        made = suppression(
            g, {name: Blob(name, shape) for name, shape in shapes.items()}, stage(rows, per_class), opset
        )
        names = (made["kept"].name, made["where"].name)
        inputs = tuple(NamedType(name, TensorType(DType.FP32, shape)) for name, shape in shapes.items())
        block = Block((), names, tuple(needed(g.operations, names)))
        engine = TorchEngine(Function(inputs, opset, {opset: block}))
        for least in (0.3, 0.9, 2.0) if given else (0.6,):
            arrays = {"scores": SCORES.reshape(-1), "boxes": BOXES.reshape(-1)}
            found = engine.run(arrays | ({"least": np.array([least], np.float32)} if given else {}))
            kept, where = expected(rows, least, per_class)
            np.testing.assert_array_equal(found[names[0]], kept)
            np.testing.assert_array_equal(found[names[1]], where)
            counts.add(int((kept > 0).any(1).sum()))
    assert 0 in counts and len(counts) > 1


def behind(rows: tuple[int, int] = (0, -1), described: bool = True) -> Any:
    """A network that gives boxes and scores, and their suppression, as exporters write it."""
    outer = blank("pipeline", {"x": 5, "iou": "double", "least": "double"}, {})
    for port in list(outer.description.input)[1:]:
        port.type.isOptional = True
    last = stage(rows, described=described)
    outer.description.output.extend(last.description.output)
    outer.pipeline.models.extend([dense("x", "scores", COUNT * CLASSES, 5), dense("x", "boxes", COUNT * 4, 5), last])
    return outer


@pytest.mark.parametrize("described", [True, False], ids=["described", "as exporters do"])
def test_a_detectors_thresholds(described: bool, tmp_path: Path) -> None:
    """The one for confidences stays an input with the stage's own as its default; the other becomes a constant."""
    whole = behind(described=described)
    loaded = load(whole, tmp_path)
    opened = open_program(tmp_path / "model.mlmodel")
    assert any("'iou' is gone" in note and "0.2" in note for note in opened.notes) and opened.half
    described_inputs = {port.name: port.type.multiArrayType for port in opened.package.model.description.input}
    assert set(described_inputs) == {"x", "least"}
    assert described_inputs["least"].floatDefaultValue == pytest.approx(0.6)
    assert opened.package.model.description.metadata.userDefined["classes"] == "cat,dog,bird"
    engine, sizes = TorchEngine(opened.program.function()), set()
    for seed, least in ((0, None), (1, 0.1), (2, 1.5)):
        x = np.random.default_rng(seed).standard_normal(5).astype(np.float32)
        wanted = loaded.predict({"x": x} | ({} if least is None else {"least": least}))
        found = engine.run({"x": x, "least": np.array([0.6 if least is None else least], np.float32)})
        for name in ("kept", "where"):
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6)
        sizes.add(len(wanted["kept"]))
    assert len(sizes) == 3


def test_what_a_suppression_says_that_mil_cannot(tmp_path: Path) -> None:
    asked = behind()
    asked.description.input[1].type.isOptional = False
    with pytest.raises(ConversionError, match=r"'iou' is an IoU threshold that has to be given, .* as a constant"):
        as_mlprogram(asked)
    computed = behind()
    computed.pipeline.models.insert(0, dense("x", "iou", 1, 5))
    with pytest.raises(ConversionError, match="stage 0 computes with 'iou', the IoU threshold"):
        as_mlprogram(computed)
    two = behind()
    second = stage((0, -1))
    second.nonMaximumSuppression.confidenceThreshold = 0.25
    two.pipeline.models.append(second)
    with pytest.raises(ConversionError, match=r"'least' is 0.6 in one stage and 0.25 in another"):
        as_mlprogram(two)
    uneven = behind()
    uneven.pipeline.models[2].description.output[0].type.multiArrayType.shapeRange.sizeRanges[0].lowerBound = 3
    with pytest.raises(ConversionError, match="different numbers of rows"):
        as_mlprogram(uneven)
    odd = behind()
    odd.pipeline.models[1].neuralNetwork.layers[0].innerProduct.outputChannels = 119
    del odd.pipeline.models[1].neuralNetwork.layers[0].innerProduct.weights.floatValue[119 * 5 :]
    with pytest.raises(LoadError, match="90 confidences for 119 coordinates"):
        as_mlprogram(odd)


def test_what_chooses_boxes_is_not_exported_and_what_comes_before_it_is(tmp_path: Path) -> None:
    """The advice is followed."""
    load(behind(), tmp_path)
    source, goal = tmp_path / "model.mlmodel", tmp_path / "new.pt2"
    with pytest.raises(ConversionError, match=r"torch.export cannot take a non_maximum_suppression") as refused:
        tlkit.convert(str(source), output=str(goal))
    assert refused.value.hint == "export the stage before it: --stage 1"
    assert tlkit.convert(str(source), output=str(goal), stage=1).ok


@pytest.mark.slow
def test_a_detector_becomes_an_f16_package_whose_boxes_are_chosen_in_f32(tmp_path: Path) -> None:
    load(behind(described=False), tmp_path)
    result = tlkit.convert(str(tmp_path / "model.mlmodel"), output=str(tmp_path / "new.mlpackage"))
    assert result.ok and result.precision == "f16"
    assert result.verification is not None and result.verification.outputs["kept"].max_abs == 0
    assert result.verification.outputs["scores before"].max_abs > 0
    made = tlkit.load_model(tmp_path / "new.mlpackage", engine="eager")
    kinds = {item.type: item for item in made.function().block.operations}
    (kept,) = (item for item in kinds["non_maximum_suppression"].outputs if item.type.shape[-1] == CLASSES)
    (passing,) = kinds["reduce_max"].outputs
    assert kept.type.dtype is passing.type.dtype is DType.FP32
    assert kinds["linear"].outputs[0].type.dtype is DType.FP16
    assert made.predict({"x": np.ones(5, np.float32)})["kept"].shape[1:] == (CLASSES,)
