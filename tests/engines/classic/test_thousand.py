"""A thousand rows against scikit-learn: labels the same, probabilities within 1e-6; neighbours and whole pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, OneHotEncoder, StandardScaler

from tests.engines.classic.specs import arrays, blank, classifier, load, shares
from tlkit.errors import ExecutionError

ROWS = 1000
LABELS = ["blue", "grün", "red"]


def drawn(seed: int, width: int) -> tuple[Any, Any]:
    """Rows of f32 numbers, and labels that depend on them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((ROWS + 300, width)).astype(np.float32).astype(np.float64)
    score = x[:, 0] * 2 + x[:, 1] ** 2 + 0.2 * rng.standard_normal(len(x))
    return x, np.array(LABELS)[np.digitize(score, np.quantile(score, [0.3, 0.7]))]


def agree(found: list[dict[str, Any]], fitted: Any, rows: Any) -> None:
    assert [row["label"] for row in found] == fitted.predict(rows).tolist()
    assert len({row["label"] for row in found}) == len(LABELS)
    np.testing.assert_allclose(shares(found, fitted.classes_), fitted.predict_proba(rows), atol=1e-6, rtol=0)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("tree", [False, True])
def test_neighbours(tmp_path: Path, weights: str, tree: bool) -> None:
    x, y = drawn(1, 5)
    kept, asked = x[ROWS:], x[:ROWS]
    asked[:20] = kept[:20]  # at a distance of 0
    fitted = KNeighborsClassifier(7, weights=weights, algorithm="kd_tree" if tree else "brute").fit(kept, y[ROWS:])
    model = classifier("kNearestNeighborsClassifier", 5, LABELS)
    message = model.kNearestNeighborsClassifier
    message.stringClassLabels.vector[:] = y[ROWS:].tolist()
    index = message.nearestNeighborsIndex
    index.numberOfDimensions = 5
    index.squaredEuclideanDistance.SetInParent()
    (index.singleKdTreeIndex if tree else index.linearIndex).SetInParent()
    for row in kept:
        index.floatSamples.add().vector.extend(row.tolist())
    message.numberOfNeighbors.defaultValue = 7
    (message.uniformWeighting if weights == "uniform" else message.inverseDistanceWeighting).SetInParent()
    found = load(model, tmp_path).predict_rows(arrays(asked))
    np.testing.assert_allclose(shares(found, fitted.classes_), fitted.predict_proba(asked), atol=1e-6, rtol=0)
    # Of classes with as many votes scikit-learn takes the first, here the nearer one is taken.
    votes = np.sort(fitted.predict_proba(asked), 1)
    clear = votes[:, -1] - votes[:, -2] > 1e-9
    assert clear.sum() > ROWS // 2
    assert np.array_equal(np.array([row["label"] for row in found])[clear], fitted.predict(asked)[clear])


def multinomial(fitted: Any, width: int) -> Any:
    """A fitted LogisticRegression as a GLM: scores over that of the first class."""
    model = classifier("glmClassifier", width, fitted.classes_.tolist())
    for row, offset in zip(
        fitted.coef_[1:] - fitted.coef_[0], fitted.intercept_[1:] - fitted.intercept_[0], strict=True
    ):
        model.glmClassifier.weights.add().value.extend(row.tolist())
        model.glmClassifier.offset.append(offset)
    return model


def test_a_pipeline_in_a_pipeline_of_imputer_scaler_and_normalizer(tmp_path: Path) -> None:
    x, y = drawn(2, 4)
    x[np.random.default_rng(0).random(x.shape) < 0.1] = np.nan
    steps = SimpleImputer(), StandardScaler(), Normalizer(), LogisticRegression()
    fitted = make_pipeline(*steps).fit(x, y)
    filled, scaled = blank("imputer", {"x": 4}, {"f": 4}), blank("scaler", {"f": 4}, {"s": 4})
    filled.imputer.imputedDoubleArray.vector.extend(steps[0].statistics_.tolist())
    filled.imputer.replaceDoubleValue = np.nan
    scaled.scaler.shiftValue.extend((-steps[1].mean_).tolist())
    scaled.scaler.scaleValue.extend((1 / steps[1].scale_).tolist())
    normal = blank("normalizer", {"s": 4}, {"x": 4})  # which gives the input's name to what it makes
    normal.normalizer.normType = 2
    inner = blank("pipeline", {"x": 4}, {"x": 4})
    inner.pipeline.models.extend([filled, scaled, normal])
    whole = classifier("glmClassifier", 4, LABELS)
    whole.ClearField("glmClassifier")
    whole.pipelineClassifier.pipeline.models.extend([inner, multinomial(steps[-1], 4)])
    agree(load(whole, tmp_path).predict_rows(arrays(x[:ROWS])), fitted, x[:ROWS])


def test_a_pipeline_of_one_hot_categories_and_numbers(tmp_path: Path) -> None:
    x, y = drawn(3, 2)
    sizes = np.random.default_rng(1).choice([3, 5, 8], len(x)).astype(float)
    table = np.column_stack([sizes, x])
    encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), [0]), remainder="passthrough")
    fitted = make_pipeline(encoder, LogisticRegression()).fit(table, y)
    asked = table[:ROWS].copy()
    asked[::10, 0] = 4.0  # a category that was never seen
    hot = blank("oneHotEncoder", {"size": "int64"}, {"hot": "int to double"})
    hot.oneHotEncoder.int64Categories.vector.extend([3, 5, 8])
    hot.oneHotEncoder.outputSparse, hot.oneHotEncoder.handleUnknown = True, 1
    joined = blank("featureVectorizer", {"hot": "int to double", "x": 2}, {"all": 5})
    joined.featureVectorizer.inputList.add(inputColumn="hot", inputDimensions=3)
    joined.featureVectorizer.inputList.add(inputColumn="x", inputDimensions=2)
    last = multinomial(fitted[-1], 5)
    last.description.input[0].name = "all"
    model = classifier("glmClassifier", 2, LABELS)
    model.description.input.add(name="size").type.int64Type.SetInParent()
    model.ClearField("glmClassifier")
    model.pipelineClassifier.pipeline.models.extend([hot, joined, last])
    loaded = load(model, tmp_path)
    agree(loaded.predict_rows([{"size": int(row[0]), "x": row[1:]} for row in asked]), fitted, asked)
    hot.oneHotEncoder.handleUnknown = 0
    del model.pipelineClassifier.pipeline.models[:]
    model.pipelineClassifier.pipeline.models.extend([hot, joined, last])
    with pytest.raises(ExecutionError, match="4, which is not a category"):
        load(model, tmp_path).predict({"size": 4, "x": [0.0, 0.0]})
