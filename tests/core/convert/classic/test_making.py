"""The mlprogram of a classic model beside the classic model, on rows that reach borders, ties and missing values.

Covers tlkit/core/convert/classic/linear.py, tlkit/core/convert/classic/trees.py, tlkit/core/convert/classic/kernels.py,
tlkit/core/convert/classic/features.py, tlkit/core/convert/classic/check.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.svm import SVC, SVR

import tlkit
from tests.engines.classic.specs import arrays, blank, classifier, load, regressor
from tlkit.core.convert.classic.making import as_mlprogram
from tlkit.engines.torch.engine import TorchEngine
from tlkit.errors import ConversionError, LoadError
from tlkit.formats.coreml.open import open_package

RNG = np.random.default_rng(3)
ROWS = 64


@pytest.fixture(autouse=True)
def each_from_the_same_numbers() -> None:
    RNG.bit_generator.state = np.random.default_rng(3).bit_generator.state


def made(model: Any, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run the program on rows."""
    engine = TorchEngine(as_mlprogram(model)[1].function())
    return [engine.run({name: np.asarray(v, np.float32).reshape(-1) for name, v in row.items()}) for row in rows]


def agree(model: Any, folder: Path, rows: Sequence[dict[str, Any]], rtol: float = 2e-6) -> None:
    """Compare the two on all rows: labels the same, numbers within ``rtol`` of the largest."""
    wanted = load(model, folder).predict_rows(rows)
    found = made(model, rows)
    for name in wanted[0]:
        then, now = [row[name] for row in wanted], [row[name] for row in found]
        if isinstance(then[0], dict):
            assert then[0].keys() == now[0].keys()
            now = [[row[label] for label in then[0]] for row in now]
            then = [list(row.values()) for row in then]
        elif isinstance(then[0], str | int):
            assert then == now and len(set(then)) > 1
            continue
        numbers = np.array(then, np.float64).reshape(len(rows), -1)
        assert numbers.std() > 0
        np.testing.assert_allclose(
            np.reshape(now, numbers.shape), numbers, rtol=rtol, atol=rtol * np.abs(numbers).max()
        )


def grown(parameters: Any, trees: int, dimensions: int, features: int, modes: Sequence[int]) -> None:
    """Trees of random shape, whose branches compare by ``modes`` with halves and thirds, and send NaN both ways."""
    parameters.numPredictionDimensions = dimensions
    parameters.basePredictionValue.extend(RNG.standard_normal(dimensions).tolist())
    for tree in range(trees):
        count = int(RNG.integers(3, 12))
        for node in range(2 * count + 1):
            message = parameters.nodes.add(treeId=tree, nodeId=node)
            if node >= count:
                message.nodeBehavior = 6
                for index in range(dimensions):
                    message.evaluationInfo.add(evaluationIndex=index, evaluationValue=float(RNG.standard_normal()))
                continue
            message.nodeBehavior = int(RNG.choice(modes))
            message.branchFeatureIndex = int(RNG.integers(features))
            message.branchFeatureValue = float(RNG.choice([0.5, -0.5, 1 / 3, 0.1, 0.0, 1.0]))
            message.trueChildNodeId, message.falseChildNodeId = 2 * node + 1, 2 * node + 2
            message.missingValueTracksTrueChild = bool(RNG.integers(2))


def at_borders(features: int) -> list[dict[str, Any]]:
    """Rows of numbers that branches compare with, as f32 holds them, the numbers beside them, and some missing."""
    values = np.array([0.5, -0.5, 1 / 3, 0.1, 0.0, 1.0, -1.0], np.float32)
    near = np.concatenate([values, np.nextafter(values, np.float32(9)), np.nextafter(values, np.float32(-9)), [np.nan]])
    # Beside 0 the nearest normal numbers: what flushes denormals, as runtimes do, takes those for 0.
    least = np.finfo(np.float32).smallest_normal
    near = np.where((near != 0) & (abs(near) < least), np.copysign(least, near), near)
    return arrays(RNG.choice(near, (ROWS, features)).astype(np.float32))


@pytest.mark.parametrize("modes", [(0,), (1, 2), (3,), (4, 5), (0, 1, 2, 3, 4, 5)])
@pytest.mark.parametrize("dimensions", [1, 3])
def test_trees_of_every_branch(tmp_path: Path, modes: tuple[int, ...], dimensions: int) -> None:
    model = regressor("treeEnsembleRegressor", 4)
    grown(model.treeEnsembleRegressor.treeEnsemble, 6, dimensions, 4, modes)
    if dimensions > 1:
        model.description.output[0].type.multiArrayType.dataType = 65600
    agree(model, tmp_path, at_borders(4))


@pytest.mark.parametrize(
    ("classes", "dimensions", "transform"), [(2, 1, 0), (2, 1, 2), (3, 3, 1), (3, 2, 3), (3, 3, 0)]
)
@pytest.mark.parametrize("texts", [False, True])
def test_trees_that_classify(tmp_path: Path, classes: int, dimensions: int, transform: int, texts: bool) -> None:
    model = classifier("treeEnsembleClassifier", 4, [f"c{n}" if texts else 10 * n for n in range(classes)])
    model.treeEnsembleClassifier.postEvaluationTransform = transform
    grown(model.treeEnsembleClassifier.treeEnsemble, 5, dimensions, 4, (0, 1))
    agree(model, tmp_path, at_borders(4), 5e-6)


def test_of_two_classes_at_one_half_the_second_is_the_answer(tmp_path: Path) -> None:
    model = classifier("treeEnsembleClassifier", 1, ["no", "yes"])
    parameters = model.treeEnsembleClassifier.treeEnsemble
    parameters.numPredictionDimensions = 1
    parameters.nodes.add(treeId=0, nodeId=0, branchFeatureValue=0, trueChildNodeId=1, falseChildNodeId=2)
    for node, value in ((1, 0.5), (2, 0.25)):
        parameters.nodes.add(treeId=0, nodeId=node, nodeBehavior=6).evaluationInfo.add(evaluationValue=value)
    agree(model, tmp_path, arrays([[-1.0], [1.0]]))
    assert [row["label"] for row in made(model, arrays([[-1.0], [1.0]]))] == ["yes", "no"]


def linear(model: Any, kind: str, rows: int, features: int, **settings: int) -> Any:
    message = getattr(model, kind)
    for _ in range(rows):
        message.weights.add().value.extend(RNG.standard_normal(features).tolist())
        message.offset.append(float(RNG.standard_normal()))
    for name, value in settings.items():
        setattr(message, name, value)
    return model


@pytest.mark.parametrize("link", [0, 1, 2])
def test_linear_models_that_regress(tmp_path: Path, link: int) -> None:
    model = linear(regressor("glmRegressor", 5), "glmRegressor", 1, 5, postEvaluationTransform=link)
    agree(model, tmp_path, arrays(RNG.standard_normal((ROWS, 5)).astype(np.float32)))


@pytest.mark.parametrize(
    ("classes", "rows", "encoding", "link"), [(2, 1, 0, 0), (2, 1, 0, 1), (4, 3, 0, 0), (4, 4, 1, 0)]
)
def test_linear_models_that_classify(tmp_path: Path, classes: int, rows: int, encoding: int, link: int) -> None:
    model = classifier("glmClassifier", 5, [f"c{n}" for n in range(classes)])
    linear(model, "glmClassifier", rows, 5, classEncoding=encoding, postEvaluationTransform=link)
    agree(model, tmp_path, arrays(RNG.standard_normal((ROWS, 5)).astype(np.float32)), 1e-5)


KERNELS = {"linear": "linearKernel", "rbf": "rbfKernel", "poly": "polyKernel", "sigmoid": "sigmoidKernel"}
X = RNG.standard_normal((60, 4)).astype(np.float32).astype(np.float64)


def machine(message: Any, fitted: Any, kernel: str) -> None:
    chosen = getattr(message.kernel, KERNELS[kernel])
    chosen.SetInParent()
    for name in ("gamma", "degree", "c"):
        if name in {field.name for field in chosen.DESCRIPTOR.fields}:
            setattr(chosen, name, {"gamma": 0.3, "degree": 3, "c": 0.5}[name])
    for vector in fitted.support_vectors_:
        message.denseSupportVectors.vectors.add().values.extend(vector.tolist())


@pytest.mark.parametrize("kernel", KERNELS)
def test_support_vector_machines(tmp_path: Path, kernel: str) -> None:
    given = {"kernel": kernel, "gamma": 0.3, "degree": 3, "coef0": 0.5}
    fitted = SVR(**given).fit(X, X[:, 0] ** 2 + X[:, 1])
    model = regressor("supportVectorRegressor", 4)
    machine(model.supportVectorRegressor, fitted, kernel)
    model.supportVectorRegressor.coefficients.alpha.extend(fitted.dual_coef_[0].tolist())
    model.supportVectorRegressor.rho = -float(fitted.intercept_[0])
    agree(model, tmp_path, arrays(X), 1e-5)
    labels = (X[:, 0] * X[:, 1] > 0).astype(int)
    chosen = SVC(**given).fit(X, labels)
    model = classifier("supportVectorClassifier", 4, ["no", "yes"])
    message = model.supportVectorClassifier
    machine(message, chosen, kernel)
    message.numberOfSupportVectorsPerClass.extend(chosen.n_support_.tolist())
    message.coefficients.add().alpha.extend((-chosen.dual_coef_[0]).tolist())
    message.rho.append(float(chosen.intercept_[0]))
    with pytest.raises(ConversionError, match="without probabilities"):
        as_mlprogram(model)
    message.probA.append(-1.7)
    message.probB.append(0.2)
    agree(model, tmp_path, arrays(X), 2e-5)
    message.coefficients[0].alpha.append(1.0)
    with pytest.raises(LoadError, match=f"has {len(chosen.support_vectors_) + 1} coefficients"):
        as_mlprogram(model)


def test_a_pipeline_from_numbers_to_a_tree(tmp_path: Path) -> None:
    """Numbers and an array become one vector, without gaps, scaled, of length 1; then trees."""
    inputs = {"a": "double", "b": "int64", "v": 2}
    model = blank("pipelineRegressor", inputs, {"price": "double"})
    model.description.predictedFeatureName = "price"
    stages = model.pipelineRegressor.pipeline.models
    vector = blank("featureVectorizer", inputs, {"f": 4})
    for name, size in (("a", 1), ("v", 2), ("b", 1)):
        vector.featureVectorizer.inputList.add(inputColumn=name, inputDimensions=size)
    filled = blank("imputer", {"f": 4}, {"g": 4})
    filled.imputer.imputedDoubleArray.vector.extend([1, 2, 3, 4])
    scaled = blank("scaler", {"g": 4}, {"h": 4})
    scaled.scaler.shiftValue.append(0.25)
    scaled.scaler.scaleValue.extend([1, 2, 0.5, 0.125])
    normal = blank("normalizer", {"h": 4}, {"x": 4})
    normal.normalizer.normType = 2
    trees = regressor("treeEnsembleRegressor", 4)
    grown(trees.treeEnsembleRegressor.treeEnsemble, 6, 1, 4, (0, 1))
    stages.extend([vector, filled, scaled, normal, trees])
    drawn = RNG.standard_normal((ROWS, 4)).astype(np.float32).astype(np.float64)
    drawn[::7, 0], drawn[::11, 1] = np.nan, np.nan
    rows = [{"a": float(r[0]), "v": r[1:3], "b": round(float(r[3]))} for r in drawn]
    agree(model, tmp_path, rows)
    described = as_mlprogram(model)[0].description
    assert [list(port.type.multiArrayType.shape) for port in described.input] == [[1], [1], [2]]
    assert [port.name for port in described.output] == ["price"]


@pytest.mark.parametrize(
    ("kind", "inputs", "said"),
    [
        ("kNearestNeighborsClassifier", {"x": 4}, "computes a kNearestNeighborsClassifier"),
        ("treeEnsembleRegressor", {"name": "string"}, "no input like 'name', a string"),
        ("wordTagger", {"text": "string"}, "computes a wordTagger"),
    ],
)
def test_what_mil_cannot_say_is_named(kind: str, inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(ConversionError, match=said) as refused:
        as_mlprogram(blank(kind, inputs, {"y": "double"}))
    assert ("tlkit inspect" if kind == "wordTagger" else "tlkit run") in refused.value.hint


@pytest.mark.slow
def test_a_package_is_written_and_verified(tmp_path: Path) -> None:
    model = classifier("treeEnsembleClassifier", 4, ["a", "b", "c"])
    model.treeEnsembleClassifier.postEvaluationTransform = 1
    grown(model.treeEnsembleClassifier.treeEnsemble, 8, 3, 4, (0, 1, 4))
    load(model, tmp_path)
    result = tlkit.convert(str(tmp_path / "model.mlmodel"), output=str(tmp_path / "new.mlpackage"))
    assert result.ok and result.precision == "f32"
    assert open_package(tmp_path / "new.mlpackage").model.WhichOneof("Type") == "mlProgram"
