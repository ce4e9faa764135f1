"""Every kind of model in Core ML's protobuf says something for itself; pipelines are trees.

Covers tlkit/formats/coreml/legacy.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.real_models import MODELS, needs_models
from tlkit.formats.coreml.describe import describe
from tlkit.formats.coreml.legacy_kinds import facts, tree
from tlkit.mil import coreml_proto

Model = coreml_proto.module("Model_pb2").Model
KINDS = [field.name for field in Model.DESCRIPTOR.oneofs_by_name["Type"].fields]


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_model_of_each_kind_is_described(kind: str) -> None:
    model = Model()
    getattr(model, kind).SetInParent()
    assert tree(model)["kind"] == kind
    assert isinstance(facts(model), dict)


def made(kind: str, **values: Any) -> Any:
    model = Model()
    message = getattr(model, kind)
    message.SetInParent()
    for path, value in values.items():
        *parents, last = path.split("__")
        holder = message
        for name in parents:
            holder = getattr(holder, name)
        if isinstance(value, list):
            getattr(holder, last).extend(value)
        else:
            setattr(holder, last, value)
    return model


SAID = [
    (made("normalizer", normType=2), {"norm": "L2"}),
    (made("oneHotEncoder", stringCategories__vector=["a", "b"]), {"categories": 2, "unknown": "ErrorOnUnknown"}),
    (made("dictVectorizer", int64ToIndex__vector=[4, 5, 6]), {"vocabulary": 3}),
    (made("scaler", shiftValue=[1.0], scaleValue=[1.0, 2.0]), {"shifts": 1, "scales": 2}),
    (made("arrayFeatureExtractor", extractIndex=[1, 2]), {"indices": 2}),
    (made("wordEmbedding", language="en", revision=2), {"language": "en", "revision": 2}),
    (made("gazetteer", modelParameterData=b"xyz"), {"data_bytes": 3}),
    (made("wordTagger", stringTags__vector=["a", "b", "c"]), {"classes": 3}),
    (made("textClassifier", stringClassLabels__vector=["a"]), {"classes": 1}),
    (made("customModel", className="Mine"), {"class": "Mine"}),
    (made("linkedModel", linkedModelFile__linkedModelFileName__defaultValue="o.mlmodel"), {"file": "o.mlmodel"}),
    (made("visionFeaturePrint", scene__version=2), {"version": "SCENE_VERSION_2", "built_in": True}),
    (made("audioFeaturePrint", sound__version=1), {"extractor": "sound", "version": "SOUND_VERSION_1"}),
    (made("serializedModel", identifier="id", model=b"12"), {"identifier": "id", "bytes": 2}),
    (made("supportVectorClassifier", kernel__rbfKernel__gamma=0.5), {"kernel_settings": {"gamma": 0.5}}),
    (made("kNearestNeighborsClassifier", numberOfNeighbors__defaultValue=5), {"neighbours": 5}),
    (made("bayesianProbitRegressor", numberOfFeatures=7), {"features": 7}),
]


@pytest.mark.parametrize(("model", "expected"), SAID, ids=[model.WhichOneof("Type") for model, _ in SAID])
def test_what_a_kind_says(model: Any, expected: dict[str, Any]) -> None:
    assert expected.items() <= facts(model).items()


def test_an_unknown_enumeration_is_shown_by_number() -> None:
    model = Model()
    model.normalizer.ParseFromString(b"\x08\x63")
    assert facts(model) == {"norm": "value 99"}


def test_networks_show_preprocessing_custom_layers_and_training() -> None:
    model = Model(isUpdatable=True)
    network = model.neuralNetwork
    scaler = network.preprocessing.add(featureName="image").scaler
    scaler.channelScale, scaler.redBias = 0.5, -1.0
    network.preprocessing.add().meanImage.meanImage.extend([1.0])
    network.layers.add(name="magic").custom.className = "Magic"
    network.layers.add(name="dense", isUpdatable=True).innerProduct.SetInParent()
    network.updateParams.lossLayers.add().meanSquaredErrorLossLayer.SetInParent()
    network.updateParams.optimizer.sgdOptimizer.SetInParent()
    network.updateParams.epochs.defaultValue = 9
    model.description.trainingInput.add(name="truth")
    assert facts(model) == {
        "layers": 2,
        "custom_layers": ["Magic"],
        "preprocessing": ["image: pixel x 0.5 + (red -1)", "minus a mean image"],
        "updatable_layers": ["dense"],
        "loss": ["meanSquaredErrorLossLayer"],
        "optimizer": "sgdOptimizer",
        "epochs": 9,
        "updatable": True,
        "training_inputs": ["truth"],
    }


def test_pipelines_are_trees_with_names() -> None:
    model = Model()
    pipeline = model.pipelineClassifier.pipeline
    pipeline.names.extend(["first", "second"])
    inner = pipeline.models.add().pipeline
    inner.models.add().scaler.SetInParent()
    pipeline.models.add().glmClassifier.SetInParent()
    found = tree(model)
    assert [node["name"] for node in found["models"]] == ["first", "second"]
    assert found["models"][0]["models"][0]["kind"] == "scaler" and "models" not in found["models"][1]


@needs_models
def test_a_real_pipeline_in_a_pipeline() -> None:
    found = describe(MODELS / "mlmodel/GenderByName.mlmodel").details["model"]
    first, second = found["models"]
    assert [node["kind"] for node in first["models"]] == ["dictVectorizer", "featureVectorizer"]
    assert second["facts"]["nodes"] == 19005 and second["facts"]["classes"] == 2
