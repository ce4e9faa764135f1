"""Pipelines with neural networks and encoders as one mlprogram, beside the stages run one after another.

Covers tlkit/core/convert/classic/ends.py, tlkit/core/convert/classic/making.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tlkit
from tests.core.convert.classic.test_making import agree, at_borders, grown, linear, made
from tests.engines.classic.specs import blank, classifier, load, regressor
from tests.frontends.network.nets import layer, model
from tlkit.core.convert.classic.check import categories, check_made
from tlkit.core.convert.classic.making import as_mlprogram
from tlkit.core.convert.classic.program import as_program, open_program
from tlkit.errors import ConversionError, LoadError

RNG = np.random.default_rng(12)


def drawn(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def piped(inputs: Mapping[str, Any], outputs: Mapping[str, Any], *stages: Any, kind: str = "pipeline") -> Any:
    whole = blank(kind, inputs, outputs)
    pipeline = whole.pipeline if kind == "pipeline" else getattr(whole, kind).pipeline
    pipeline.models.extend(stages)
    if kind == "pipelineClassifier":
        whole.description.predictedFeatureName, whole.description.predictedProbabilitiesName = "label", "shares"
    return whole


def dense(source: str, target: str, outer: int, inner: int, **how: Any) -> Any:
    """A network of one product."""
    given = {"outputChannels": outer, "inputChannels": inner, "weights": drawn(outer, inner)}
    made = model([layer("innerProduct", source, target, **given)], {source: (inner,)}, (target,), exact=False, **how)
    made.description.output[0].type.multiArrayType.shape.append(outer)
    return made


def renamed(stage: Any, old: str, new: str) -> Any:
    (port,) = [port for port in stage.description.input if port.name == old]
    port.name = new
    return stage


def test_a_network_between_a_scaler_and_a_linear_classifier(tmp_path: Path) -> None:
    scaled = blank("scaler", {"x": 6}, {"s": 6})
    scaled.scaler.shiftValue.extend(drawn(6).tolist())
    scaled.scaler.scaleValue.append(0.5)
    last = linear(classifier("glmClassifier", 4, ["a", "b", "c"]), "glmClassifier", 2, 4)
    whole = piped(
        {"x": 6},
        {"label": "string", "shares": "text to double"},
        scaled,
        dense("s", "f", 4, 6),
        renamed(last, "x", "f"),
        kind="pipelineClassifier",
    )
    agree(whole, tmp_path, [{"x": row.astype(np.float64)} for row in drawn(40, 6)], 1e-5)
    assert as_mlprogram(whole)[0].WhichOneof("Type") == "mlProgram"


def test_a_network_that_classifies_behind_an_encoder(tmp_path: Path) -> None:
    hot = blank("oneHotEncoder", {"kind": "int64"}, {"h": 3})
    hot.oneHotEncoder.int64Categories.vector.extend([7, -1, 300])
    joined = blank("featureVectorizer", {"h": 3, "v": 2}, {"x": 5})
    for name, size in (("h", 3), ("v", 2)):
        joined.featureVectorizer.inputList.add(inputColumn=name, inputDimensions=size)
    net = dense("x", "scores", 3, 5, kind="neuralNetworkClassifier")
    del net.description.output[:]
    net.description.output.add(name="label").type.int64Type.SetInParent()
    net.description.output.add(name="shares").type.dictionaryType.int64KeyType.SetInParent()
    net.description.predictedFeatureName, net.description.predictedProbabilitiesName = "label", "shares"
    net.neuralNetworkClassifier.int64ClassLabels.vector.extend([4, 5, 6])
    net.neuralNetworkClassifier.labelProbabilityLayerName = "scores"
    whole = piped(
        {"kind": "int64", "v": 2},
        {"label": "int64", "shares": "int to double"},
        hot,
        joined,
        net,
        kind="pipelineClassifier",
    )
    rows = [{"kind": int(RNG.choice([7, -1, 300])), "v": drawn(2).astype(np.float64)} for _ in range(30)]
    agree(whole, tmp_path, rows, 1e-5)


def test_a_picture_enters_through_the_networks_own_preprocessing(tmp_path: Path) -> None:
    net = model(
        [layer("pooling", "image", "p", type=1, globalPooling=True, valid={}), layer("flatten", "p", "f")],
        {"image": (3, 5, 4)},
        ("f",),
        exact=False,
    )
    scaler = net.neuralNetwork.preprocessing.add(featureName="image").scaler
    scaler.channelScale, scaler.redBias, scaler.blueBias = 1 / 64, -1.0, 0.5
    net.description.output[0].type.multiArrayType.shape.append(3)
    line = linear(regressor("glmRegressor", 3), "glmRegressor", 1, 3)
    whole = piped({"image": 1}, {"y": "double"}, net, renamed(line, "x", "f"))
    for described in (
        whole.description.input[0],
        net.description.input[0],
        whole.pipeline.models[0].description.input[0],
    ):
        described.type.Clear()
        picture = described.type.imageType
        picture.width, picture.height, picture.colorSpace = 4, 5, 20
    load(whole, tmp_path)
    shown = Image.fromarray(RNG.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    wanted = tlkit.load_model(tmp_path / "model.mlmodel").predict({"image": shown})["y"]
    with as_program(tmp_path / "model.mlmodel") as path:
        again = tlkit.load_model(path, engine="eager")
        assert again.inputs[0].image is not None
        found = again.predict({"image": shown})["y"]
        assert check_made(tmp_path / "model.mlmodel", path, "f32", 0).ok
    np.testing.assert_allclose(found, [wanted], rtol=1e-5)


def test_features_alone_and_what_passes_by_a_stage(tmp_path: Path) -> None:
    """Elements of an array: one of them a category; the value of a stage before is an output, too."""
    picked = blank("arrayFeatureExtractor", {"x": 4}, {"c": "int64"})
    picked.arrayFeatureExtractor.extractIndex.append(2)
    hot = blank("oneHotEncoder", {"c": "int64"}, {"h": 3})
    hot.oneHotEncoder.int64Categories.vector.extend([3, 1, 2])
    hot.oneHotEncoder.handleUnknown = 1
    rest = blank("arrayFeatureExtractor", {"x": 4}, {"r": 3})
    rest.arrayFeatureExtractor.extractIndex.extend([3, 0, 3])
    whole = piped({"x": 4}, {"h": 3, "r": 3}, picked, hot, rest)
    rows = drawn(40, 4).astype(np.float64)
    rows[:, 2] = RNG.integers(0, 5, 40)
    agree(whole, tmp_path, [{"x": row} for row in rows])
    assert categories(whole) == {"x": {2: [3, 1, 2]}}
    hot_rows = np.array([row["h"] for row in made(whole, [{"x": row} for row in rows])])
    np.testing.assert_array_equal(hot_rows, rows[:, 2:3] == np.array([3, 1, 2]))


def test_trees_on_categories_are_verified_on_these(tmp_path: Path) -> None:
    """The original stops at numbers that are no categories, so that only these are drawn."""
    hot = blank("oneHotEncoder", {"k": "int64"}, {"x": 4})
    hot.oneHotEncoder.int64Categories.vector.extend([10, 20, 30, 40])
    trees = regressor("treeEnsembleRegressor", 4)
    grown(trees.treeEnsembleRegressor.treeEnsemble, 6, 1, 4, (0, 1))
    load(piped({"k": "int64"}, {"y": "double"}, hot, trees, kind="pipelineRegressor"), tmp_path)
    opened = open_program(tmp_path / "model.mlmodel")
    assert not opened.half and any("zeros" in note for note in opened.notes)
    with as_program(tmp_path / "model.mlmodel") as path:
        assert check_made(tmp_path / "model.mlmodel", path, "f32", 0).passed


def test_a_stage_and_those_after_it_are_made_by_themselves(tmp_path: Path) -> None:
    """The head of a classifier behind a network that is not there."""
    eyes = blank("visionFeaturePrint", {"image": 1}, {"f": 4})
    last = renamed(linear(classifier("glmClassifier", 4, ["a", "b", "c"]), "glmClassifier", 2, 4), "x", "f")
    whole = piped({"image": 1}, {"label": "string", "shares": "text to double"}, eyes, last, kind="pipelineClassifier")
    load(whole, tmp_path)
    path, x = tmp_path / "model.mlmodel", drawn(4)
    with pytest.raises(ConversionError, match="visionFeaturePrint: a network that only Apple's") as refused:
        open_program(path)
    assert "--stage 1 (its glmClassifier)" in refused.value.hint
    message = last.glmClassifier
    scores = np.array([0.0, *(np.array([row.value for row in message.weights]) @ x + np.array(message.offset))])
    wanted = np.exp(scores) / np.exp(scores).sum()
    for stage in (1, "1.."):
        assert [spec.name for spec in tlkit.load_model(path, stage=stage).inputs] == ["f"]
        with as_program(path, stage) as head:
            found = tlkit.load_model(head, engine="eager").predict({"f": x})
            np.testing.assert_allclose(list(found["shares"].values()), wanted, rtol=1e-5)
            assert check_made(path, head, "f32", 0, stage).passed
    with pytest.raises(LoadError, match="only Apple") as unrun:
        tlkit.load_model(path).prepare()
    assert "--from 1 --input f=FILE" in unrun.value.hint


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (blank("oneHotEncoder", {"x": 1}, {"y": 1}), "categories"),
        (blank("arrayFeatureExtractor", {"x": 1}, {"y": 1}), "features, of which"),
    ],
)
def test_what_contradicts_itself_is_one_line(stage: Any, said: str) -> None:
    with pytest.raises(LoadError, match=said):
        as_mlprogram(stage)


def test_what_one_program_cannot_be_is_said() -> None:
    texts = blank("oneHotEncoder", {"x": 1}, {"y": 1})
    texts.oneHotEncoder.stringCategories.vector.append("a")
    wide = blank("oneHotEncoder", {"x": 1}, {"y": 1})
    wide.oneHotEncoder.int64Categories.vector.append(1 << 40)
    sparse = blank("oneHotEncoder", {"x": 1}, {"y": "int to double"})
    sparse.oneHotEncoder.int64Categories.vector.append(1)
    same = blank("identity", {"x": 2}, {"x": 2})
    for stage, said in (
        (texts, "no texts"),
        (wide, "1099511627776"),
        (sparse, "no output like 'y'"),
        (same, "'x' is an"),
    ):
        with pytest.raises(ConversionError, match=said):
            as_mlprogram(stage)


@pytest.mark.slow
def test_a_pipeline_of_a_network_becomes_an_f16_package_and_onnx(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    last = renamed(linear(classifier("glmClassifier", 4, ["a", "b", "c"]), "glmClassifier", 2, 4), "x", "f")
    whole = piped(
        {"x": 6},
        {"label": "string", "shares": "text to double"},
        dense("x", "f", 4, 6),
        last,
        kind="pipelineClassifier",
    )
    load(whole, tmp_path)
    path = tmp_path / "model.mlmodel"
    result = tlkit.convert(path, tmp_path / "new.mlpackage")
    assert result.ok and result.precision == "f16"
    head = tlkit.convert(path, tmp_path / "head.mlpackage", stage=1)
    assert "--precision f32 rounds nothing" in result.notes[-1] and "--precision f16 rounds these" in head.notes[-1]
    assert head.ok and head.precision == "f32" and tlkit.inspect(head.path).inputs[0].name == "f"
    x = drawn(6)
    wanted = tlkit.load_model(path).predict({"x": x})["shares"]
    assert tlkit.load_model(result.path).predict({"x": x})["shares"] == pytest.approx(wanted, abs=5e-3)
    assert tlkit.convert(path, tmp_path / "new.onnx").ok
    found = onnxruntime.InferenceSession(str(tmp_path / "new.onnx")).run(["shares"], {"x": x})[0]
    np.testing.assert_allclose(found.ravel(), list(wanted.values()), atol=1e-5)


def test_borders_stay_where_a_network_comes_first(tmp_path: Path) -> None:
    """Trees behind a network that hands on its input compare as by themselves, in f32."""
    net = model([layer("activation", "x", "f", linear={"alpha": 1.0})], {"x": (4,)}, ("f",), exact=False)
    net.description.output[0].type.multiArrayType.shape.append(4)
    trees = renamed(regressor("treeEnsembleRegressor", 4), "x", "f")
    grown(trees.treeEnsembleRegressor.treeEnsemble, 6, 1, 4, (0, 1))
    whole = piped({"x": 4}, {"y": "double"}, net, trees, kind="pipelineRegressor")
    agree(whole, tmp_path, at_borders(4))
