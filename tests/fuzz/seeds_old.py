"""Sound models of before mlprograms to damage: networks, classic models, and compiled networks."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.engines.classic.specs import blank, classifier, regressor
from tests.formats.coreml.compiled import compiled
from tests.frontends.espresso.bundles import Blobs, write_bundle
from tests.frontends.network.nets import layer, model, network, packed
from tests.fuzz.target import pack
from tlkit.mil import coreml_proto

_RNG = np.random.default_rng(0)


def _drawn(*shape: int) -> Any:
    return _RNG.standard_normal(shape).astype(np.float32)


def networks() -> list[bytes]:
    """Networks of both mappings: windows, norms, recurrences, codes, loops, branches, classes."""
    weights = coreml_proto.module("NeuralNetwork_pb2").WeightParams(rawValue=packed(list(range(8)), 4))
    weights.quantization.numberOfBits = 4
    weights.quantization.lookupTableQuantization.floatValue.extend(_drawn(16).tolist())
    conv = {"outputChannels": 2, "kernelChannels": 2, "nGroups": 1, "kernelSize": [2, 1], "weights": weights}
    images = [
        layer("convolution", "x", "a", **conv, same={}),
        layer("pooling", "a", "b", type=1, kernelSize=[2, 2], stride=[2, 1], valid={}),
        layer(
            "batchnorm", "b", "c", channels=2, gamma=_drawn(2), beta=_drawn(2), mean=_drawn(2), variance=_drawn(2) ** 2
        ),
        layer("upsample", "c", "d", scalingFactor=[2, 2], mode=1),
        layer("reshape", "d", "e", targetShape=[4, 6, 2], mode=1),
        layer("softmax", "e", "y"),
    ]
    shifted = network(layer("add", "t", "t", alpha=-1.0))
    loop = [
        layer("loadConstant", "", "t", shape=[1, 1, 1], data=np.ones(1, np.float32)),
        layer("loop", "", "", name="loop", maxLoopIterations=5, conditionVar="t", bodyNetwork=shifted),
        layer("branch", "t", "", name="branch", ifBranch=shifted, elseBranch=network(layer("copy", "x", "q"))),
        layer("add", "x t", "y"),
    ]
    gates = {
        f"{gate}{part}": _drawn(*size)
        for gate in ("inputGate", "forgetGate", "blockInput", "outputGate")
        for part, size in (("WeightMatrix", (3, 2)), ("RecursionMatrix", (3, 3)))
    }
    steps = {"inputVectorSize": 2, "outputVectorSize": 3, "params": {"sequenceOutput": True}}
    recurrent = layer(
        "uniDirectionalLSTM", activations=[{"sigmoid": {}}, {"tanh": {}}, {"tanh": {}}], weightParams=gates, **steps
    )
    exact = [
        layer("splitND", "x", "a b", axis=1, numSplits=2),
        layer("gather", "a i", "c", axis=0),
        layer("topK", "c", "d e", axis=-1, K=1),
        layer("tile", "d", "f", reps=[2, 2]),
        layer("concatND", "f b", "g", axis=0),
        layer("whereNonZero", "g", "h"),
        layer(
            "sliceStatic",
            "g",
            "y",
            beginIds=[0, 0],
            endIds=[1, 1],
            beginMasks=[False] * 2,
            endMasks=[False] * 2,
            strides=[1, 1],
        ),
    ]
    made = [
        model(images, {"x": (2, 4, 4)}, exact=False),
        model(loop, {"x": (2, 1, 1)}, exact=False),
        model([recurrent], {"x": (2,)}, exact=False),
        model(exact, {"x": (2, 4), "i": (2,)}),
    ]
    return [item.SerializeToString() for item in made]


def _trees(parameters: Any, dimensions: int) -> None:
    parameters.numPredictionDimensions = dimensions
    for tree in range(2):
        for node in range(3):
            held = parameters.nodes.add(treeId=tree, nodeId=node, nodeBehavior=tree if node == 0 else 6)
            held.branchFeatureValue, held.trueChildNodeId, held.falseChildNodeId = 0.5, 1, 2
            if node:
                held.evaluationInfo.add(evaluationIndex=node % dimensions, evaluationValue=0.25)


def classics() -> list[bytes]:
    """Trees, linear models, vector machines, neighbours, and what makes their features."""
    forest = classifier("treeEnsembleClassifier", 2, ["a", "b", "c"])
    _trees(forest.treeEnsembleClassifier.treeEnsemble, 3)
    trees = regressor("treeEnsembleRegressor", 2)
    _trees(trees.treeEnsembleRegressor.treeEnsemble, 1)
    line = classifier("glmClassifier", 2, [3, 5, 7])
    for _ in range(2):
        line.glmClassifier.weights.add().value.extend([0.5, -1])
        line.glmClassifier.offset.append(0.1)
    machine = classifier("supportVectorClassifier", 2, ["a", "b"])
    vectors = machine.supportVectorClassifier
    vectors.kernel.rbfKernel.gamma = 0.5
    for index in (1, 2):
        vectors.sparseSupportVectors.vectors.add().nodes.add(index=index, value=0.5)
    vectors.numberOfSupportVectorsPerClass.extend([1, 1])
    vectors.coefficients.add().alpha.extend([1, -1])
    for field in (vectors.rho, vectors.probA, vectors.probB):
        field.append(-0.5)
    near = classifier("kNearestNeighborsClassifier", 2, ["a", "b", "b"])
    index = near.kNearestNeighborsClassifier.nearestNeighborsIndex
    index.numberOfDimensions = 2
    for _ in range(3):
        index.floatSamples.add().vector.extend(_drawn(2).tolist())
    near.kNearestNeighborsClassifier.numberOfNeighbors.defaultValue = 2
    hot = blank("oneHotEncoder", {"x": "string"}, {"y": 3})
    hot.oneHotEncoder.stringCategories.vector.extend(["a", "b", "c"])
    words = blank("dictVectorizer", {"x": "text to double"}, {"y": 2})
    words.dictVectorizer.stringToIndex.vector.extend(["a", "b"])
    filled = blank("imputer", {"x": 2}, {"y": 2})
    filled.imputer.imputedDoubleArray.vector.extend([1, 2])
    line_of = blank("pipelineClassifier", {"a": "double", "x": 1}, {"label": "string", "shares": "text to double"})
    line_of.description.predictedFeatureName = "label"
    line_of.description.predictedProbabilitiesName = "shares"
    joined = blank("featureVectorizer", {"a": "double", "x": 1}, {"x": 2})
    for name in ("a", "x"):
        joined.featureVectorizer.inputList.add(inputColumn=name, inputDimensions=1)
    line_of.pipelineClassifier.pipeline.models.extend([joined, forest])
    boxes = blank("nonMaximumSuppression", {"c": 4, "b": 8}, {"conf": 4, "box": 8})
    boxes.nonMaximumSuppression.confidenceInputFeatureName, boxes.nonMaximumSuppression.coordinatesInputFeatureName = (
        "c",
        "b",
    )
    boxes.nonMaximumSuppression.confidenceOutputFeatureName = "conf"
    boxes.nonMaximumSuppression.coordinatesOutputFeatureName = "box"
    boxes.nonMaximumSuppression.pickTop.perClass = True
    made = [forest, trees, line, machine, near, hot, words, filled, line_of, boxes]
    return [item.SerializeToString() for item in made] + [mixed()]


def mixed() -> bytes:
    """A pipeline of a network, an encoder, what joins them, and trees."""
    given = {"outputChannels": 2, "inputChannels": 2, "weights": _drawn(2, 2)}
    net = model([layer("innerProduct", "x", "f", **given)], {"x": (2,)}, ("f",), exact=False)
    net.description.output[0].type.multiArrayType.shape.append(2)
    picked = blank("arrayFeatureExtractor", {"x": 2}, {"c": "int64"})
    picked.arrayFeatureExtractor.extractIndex.append(1)
    hot = blank("oneHotEncoder", {"c": "int64"}, {"h": 2})
    hot.oneHotEncoder.int64Categories.vector.extend([0, 1])
    hot.oneHotEncoder.handleUnknown = 1
    joined = blank("featureVectorizer", {"f": 2, "h": 2}, {"v": 4})
    for name in ("f", "h"):
        joined.featureVectorizer.inputList.add(inputColumn=name, inputDimensions=2)
    trees = regressor("treeEnsembleRegressor", 4)
    trees.description.input[0].name = "v"
    _trees(trees.treeEnsembleRegressor.treeEnsemble, 1)
    whole = blank("pipelineRegressor", {"x": 2}, {"y": "double"})
    whole.description.predictedFeatureName = "y"
    whole.pipelineRegressor.pipeline.models.extend([net, picked, hot, joined, trees])
    made: bytes = whole.SerializeToString()
    return made


def _folder(path: Path) -> bytes:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return pack({f"{path.name}/{file.relative_to(path)}": file.read_bytes() for file in files})


def _compiled(folder: Path) -> list[bytes]:
    """A linear model, trees and a pipeline of them, compiled."""
    read = coreml_proto.module("Model_pb2").Model.FromString
    several = [read(data) for data in classics()]
    kinds = ("glmClassifier", "treeEnsembleClassifier", "pipelineClassifier")
    chosen = [item for item in several if item.WhichOneof("Type") in kinds]
    return [_folder(compiled(item, folder / f"c{number}.mlmodelc")) for number, item in enumerate(chosen)]


def bundles() -> list[bytes]:
    """Compiled networks and classic models, packed as folders."""
    blobs = Blobs()
    layers: list[Mapping[str, Any]] = [
        {"type": "convolution", "name": "c", "bottom": "x", "top": "a", "K": 2, "C": 3, "Nx": 2, "Ny": 1, "pad_mode": 1}
        | {"has_biases": 1, "blob_biases": blobs.add(_drawn(3)), "blob_weights": blobs.add(_drawn(3, 2, 1, 2))},
        {
            "type": "batchnorm",
            "name": "n",
            "bottom": "a",
            "top": "b",
            "C": 3,
            "blob_batchnorm_params": blobs.add(np.ones((3, 4))),
        },
        {
            "type": "pool",
            "name": "p",
            "bottom": "b",
            "top": "d",
            "avg_or_max": 1,
            "size_x": 2,
            "size_y": 2,
            "stride_x": 2,
        },
        {"type": "activation", "name": "r", "bottom": "d", "top": "e", "mode": 2, "alpha": 0.1},
        {"type": "elementwise", "name": "m", "bottom": "e,e", "top": "f", "operation": 1, "fused_relu": 1},
        {"type": "softmax", "name": "s", "bottom": "f", "top": "y", "C": 2},
    ]
    shapes = {
        "x": (2, 4, 4),
        "a": (3, 4, 4),
        "b": (3, 4, 4),
        "d": (3, 3, 2),
        "e": (3, 3, 2),
        "f": (3, 3, 2),
        "y": (3, 3, 2),
    }
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = write_bundle(Path(folder) / "m.mlmodelc", layers, shapes, blobs, transform_params={"z": {"scale": 0.5}})
        found.append(_folder(path))
        turned = {"type": "transpose", "name": "t", "bottom": "x", "top": "a", "axis_w": 1, "axis_h": 0}
        parted = {
            "type": "split_nd",
            "name": "p",
            "bottom": "a",
            "top": "y,z",
            "nd_axis": 1,
            "num_splits": 2,
            "begin_0": 1,
            "begin_1": 2,
        }
        sizes = {"x": (3, 2), "a": (2, 3), "y": (2, 1), "z": (2, 2)}
        path = write_bundle(Path(folder) / "n.mlmodelc", [turned, parted], sizes, exact=True)
        found.append(_folder(path))
        found += _compiled(Path(folder))
    return found
