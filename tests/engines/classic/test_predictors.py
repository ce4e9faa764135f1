"""Linear models, support vector machines and nearest neighbours against scikit-learn; the rest against its formula.

Covers tlkit/engines/classic/linear.py, tlkit/engines/classic/kernels.py, tlkit/engines/classic/neighbours.py,
tlkit/engines/classic/answers.py, tlkit/engines/classic/ranked.py, tlkit/engines/classic/engine.py.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.datasets import load_iris, make_regression
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, SVR

from tests.engines.classic.specs import arrays, blank, classifier, load, regressor, rows, shares
from tlkit.errors import LoadError, TlkitError

X, Y = load_iris(return_X_y=True)
TWO = Y < 2


def glm(model: Any, kind: str, weights: Any, offset: Any, **settings: int) -> Any:
    message = getattr(model, kind)
    for row in np.atleast_2d(weights):
        message.weights.add().value.extend(row.tolist())
    message.offset.extend(np.atleast_1d(offset).tolist())
    for name, value in settings.items():
        setattr(message, name, value)
    return model


@pytest.mark.parametrize("transform", [0, 1, 2])
def test_a_linear_regression_and_its_links(tmp_path: Path, transform: int) -> None:
    x, y = make_regression(200, 5, noise=3, random_state=0)
    line = LinearRegression().fit(x, y / 100)
    model = regressor("glmRegressor", 5)
    glm(model, "glmRegressor", line.coef_, line.intercept_, postEvaluationTransform=transform)
    linear = line.predict(x)
    wanted = (linear, 1 / (1 + np.exp(-linear)), norm.cdf(linear))[transform]
    assert np.allclose([row["y"] for row in rows(model, tmp_path, arrays(x))], wanted, rtol=1e-9, atol=1e-12)


def test_a_logistic_regression_of_two_classes(tmp_path: Path) -> None:
    fitted = LogisticRegression().fit(X[TWO], Y[TWO])
    model = glm(classifier("glmClassifier", 4, ("a", "b")), "glmClassifier", fitted.coef_, fitted.intercept_)
    found = rows(model, tmp_path, arrays(X[TWO]))
    assert np.abs(shares(found, ("a", "b")) - fitted.predict_proba(X[TWO])).max() < 1e-9
    assert [("a", "b").index(row["label"]) for row in found] == fitted.predict(X[TWO]).tolist()


def test_softmax_with_the_first_class_as_reference(tmp_path: Path) -> None:
    fitted = LogisticRegression().fit(X, Y)
    weights, offset = fitted.coef_[1:] - fitted.coef_[0], fitted.intercept_[1:] - fitted.intercept_[0]
    model = glm(classifier("glmClassifier", 4, (0, 1, 2)), "glmClassifier", weights, offset)
    found = rows(model, tmp_path, arrays(X))
    assert np.abs(shares(found, (0, 1, 2)) - fitted.predict_proba(X)).max() < 1e-9


def test_one_class_against_the_rest(tmp_path: Path) -> None:
    fitted = OneVsRestClassifier(LogisticRegression()).fit(X, Y)
    weights = np.concatenate([one.coef_ for one in fitted.estimators_])
    offset = np.concatenate([one.intercept_ for one in fitted.estimators_])
    model = glm(classifier("glmClassifier", 4, (0, 1, 2)), "glmClassifier", weights, offset, classEncoding=1)
    found = rows(model, tmp_path, arrays(X))
    assert np.abs(shares(found, (0, 1, 2)) - fitted.predict_proba(X)).max() < 1e-9


def kernel_of(machine: Any, message: Any) -> None:
    gamma = machine._gamma
    if machine.kernel == "rbf":
        message.rbfKernel.gamma = gamma
    elif machine.kernel == "poly":
        message.polyKernel.gamma, message.polyKernel.c, message.polyKernel.degree = gamma, machine.coef0, machine.degree
    elif machine.kernel == "sigmoid":
        message.sigmoidKernel.gamma, message.sigmoidKernel.c = gamma, machine.coef0
    else:
        message.linearKernel.SetInParent()


def vectors_of(machine: Any, message: Any, sparse: bool) -> None:
    for row in machine.support_vectors_:
        if not sparse:
            message.denseSupportVectors.vectors.add().values.extend(row.tolist())
            continue
        nodes = message.sparseSupportVectors.vectors.add()
        for index, value in enumerate(row.tolist(), 1):
            if value:
                nodes.nodes.add(index=index, value=value)


@pytest.mark.parametrize("kernel", ["linear", "rbf", "poly", "sigmoid"])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_support_vector_machine_votes(tmp_path: Path, kernel: str, sparse: bool) -> None:
    machine = SVC(kernel=kernel, degree=2, coef0=0.5, gamma=0.05, decision_function_shape="ovo").fit(X, Y)
    model = classifier("supportVectorClassifier", 4, (0, 1, 2))
    model.description.predictedProbabilitiesName = ""
    del model.description.output[1]
    message = model.supportVectorClassifier
    kernel_of(machine, message.kernel)
    vectors_of(machine, message, sparse)
    message.numberOfSupportVectorsPerClass.extend(machine.n_support_.tolist())
    for row in machine.dual_coef_:
        message.coefficients.add().alpha.extend(row.tolist())
    message.rho.extend((-machine.intercept_).tolist())
    found = rows(model, tmp_path, arrays(X))
    assert [row["label"] for row in found] == machine.predict(X).tolist()
    assert "shares" not in found[0]


@pytest.mark.parametrize("kernel", ["linear", "rbf", "poly", "sigmoid"])
def test_support_vector_regression(tmp_path: Path, kernel: str) -> None:
    x, y = make_regression(150, 6, noise=5, random_state=2)
    machine = SVR(kernel=kernel, gamma=0.1, coef0=0.3, degree=2).fit(x, y)
    model = regressor("supportVectorRegressor", 6)
    message = model.supportVectorRegressor
    kernel_of(machine, message.kernel)
    vectors_of(machine, message, False)
    message.coefficients.alpha.extend(machine.dual_coef_[0].tolist())
    message.rho = -float(machine.intercept_[0])
    found = [row["y"] for row in rows(model, tmp_path, arrays(x))]
    assert np.allclose(found, machine.predict(x), rtol=1e-7, atol=1e-7)


def pairwise(model: Any, a: list[float], b: list[float]) -> Any:
    message = model.supportVectorClassifier
    message.kernel.linearKernel.SetInParent()
    for value in (1.0, 2.0, 4.0):
        message.denseSupportVectors.vectors.add().values.append(value)
    message.numberOfSupportVectorsPerClass.extend([1, 1, 1])
    for row in ((0.5, -0.3, -0.4), (0.2, 0.6, -0.1)):
        message.coefficients.add().alpha.extend(row)
    message.rho.extend([0.1, -0.2, 0.3])
    message.probA.extend(a)
    message.probB.extend(b)
    return model


def test_pairwise_probabilities_are_joined_at_their_least(tmp_path: Path) -> None:
    """What is minimised has its minimum there: the closed form of the linear system that Wu, Lin and Weng give."""
    model = pairwise(classifier("supportVectorClassifier", 1, (0, 1, 2)), [-1.0, -0.5, -2.0], [0.1, 0.2, -0.1])
    found = shares(rows(model, tmp_path, arrays([[0.7], [-1.5], [3.0]])), (0, 1, 2))
    for x, got in zip((0.7, -1.5, 3.0), found, strict=True):
        near = np.array([1.0, 2.0, 4.0]) * x
        decisions = (
            0.5 * near[0] - 0.3 * near[1] - 0.1,
            0.2 * near[0] - 0.4 * near[2] + 0.2,
            0.6 * near[1] - 0.1 * near[2] - 0.3,
        )
        r = np.zeros((3, 3))
        for (i, j), d, a, b in zip(
            ((0, 1), (0, 2), (1, 2)), decisions, (-1.0, -0.5, -2.0), (0.1, 0.2, -0.1), strict=True
        ):
            r[i, j] = 1 / (1 + math.exp(a * d + b))
            r[j, i] = 1 - r[i, j]
        q = np.diag((r.T**2).sum(1)) - r.T * r
        system = np.block([[q, np.ones((3, 1))], [np.ones((1, 3)), np.zeros((1, 1))]])
        best = np.linalg.solve(system, [0, 0, 0, 1])[:3]
        assert np.abs(got - best).max() < 0.005 and abs(got.sum() - 1) < 1e-9


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_nearest_neighbours(tmp_path: Path, weights: str) -> None:
    x, held = X.astype(np.float32)[::2], X.astype(np.float32)[1::2]
    fitted = KNeighborsClassifier(5, weights=weights, algorithm="brute").fit(x, Y[::2])
    model = classifier("kNearestNeighborsClassifier", 4, ("0",))
    message = model.kNearestNeighborsClassifier
    del message.stringClassLabels.vector[:]
    message.stringClassLabels.vector.extend(map(str, Y[::2]))
    message.nearestNeighborsIndex.numberOfDimensions = 4
    for row in x:
        message.nearestNeighborsIndex.floatSamples.add().vector.extend(row.tolist())
    message.numberOfNeighbors.defaultValue = 5
    (message.uniformWeighting if weights == "uniform" else message.inverseDistanceWeighting).SetInParent()
    found = shares(rows(model, tmp_path, arrays(held)), ("0", "1", "2"))
    assert np.abs(found - fitted.predict_proba(held)).mean() < 0.01  # neighbours at equal distances may differ
    assert np.median(np.abs(found - fitted.predict_proba(held))) < 1e-6


def test_no_samples_give_the_default_label(tmp_path: Path) -> None:
    model = classifier("kNearestNeighborsClassifier", 4, ("x",))
    message = model.kNearestNeighborsClassifier
    del message.stringClassLabels.vector[:]
    message.nearestNeighborsIndex.numberOfDimensions = 4
    message.numberOfNeighbors.defaultValue = 3
    message.defaultStringLabel = "nobody"
    assert load(model, tmp_path).predict({"x": np.zeros(4)})["label"] == "nobody"


def test_a_recommender_scores_what_is_similar(tmp_path: Path) -> None:
    model = blank(
        "itemSimilarityRecommender",
        {"seen": "text to double", "k": "int64"},
        {"items": "texts", "scores": "text to double"},
    )
    message = model.itemSimilarityRecommender
    message.itemStringIds.vector.extend(["a", "b", "c", "d"])
    for item, near in ((0, {1: 0.5, 2: 0.25}), (1, {0: 0.5, 3: 1.0}), (2, {}), (3, {})):
        row = message.itemItemSimilarities.add(itemId=item, itemScoreAdjustment=0.5 if item == 3 else 0.0)
        for other, score in near.items():
            row.similarItemList.add(itemId=other, similarityScore=score)
    message.itemInputFeatureName, message.numRecommendationsInputFeatureName = "seen", "k"
    message.recommendedItemListOutputFeatureName, message.recommendedItemScoreOutputFeatureName = "items", "scores"
    found = load(model, tmp_path).predict({"seen": {"a": 2.0, "b": 4.0}, "k": 1})
    assert found == {"items": ["d"], "scores": {"d": 1.0 * (4.0 - 0.5)}}
    assert load(model, tmp_path).predict({"seen": {"a": 2.0}, "k": 3})["items"] == ["b", "c", "d"]


def test_gaussian_weights_add_up(tmp_path: Path) -> None:
    model = blank("bayesianProbitRegressor", {"x": "int to double"}, {"mean": "double", "variance": "double"})
    message = model.bayesianProbitRegressor
    message.bias.mean, message.bias.precision = 0.5, 2.0
    entry = message.features.add(featureId=3).weights.add(featureValue=7)
    entry.featureWeight.mean, entry.featureWeight.precision = -1.5, 4.0
    message.regressionInputFeatureName, message.meanOutputFeatureName = "x", "mean"
    message.varianceOutputFeatureName = "variance"
    loaded = load(model, tmp_path)
    assert loaded.predict({"x": {3: 7.0, 4: 1.0}}) == {"mean": -1.0, "variance": 0.75}


def test_models_that_contradict_themselves(tmp_path: Path) -> None:
    short = glm(classifier("glmClassifier", 4, (0, 1, 2)), "glmClassifier", np.zeros((1, 4)), [0.0])
    lost = pairwise(classifier("supportVectorClassifier", 1, (0, 1)), [], [])
    wide = glm(regressor("glmRegressor", 3), "glmRegressor", np.ones((1, 4)), [0.0])  # weights for 4 of 3 numbers
    for model in (short, lost, classifier("glmClassifier", 4, ("a", "b")), wide):
        with pytest.raises(LoadError):
            load(model, tmp_path).prepare()


def test_an_input_of_another_width(tmp_path: Path) -> None:
    model = glm(regressor("glmRegressor", 0), "glmRegressor", np.zeros((1, 4)), [0.0])
    del model.description.input[0].type.multiArrayType.shape[:]
    with pytest.raises(TlkitError, match="4"):
        load(model, tmp_path).predict({"x": np.zeros(3)})


def test_a_vector_machine_without_a_border_gives_libsvms_least_probability(tmp_path: Path) -> None:
    """libsvm trains some with a rho of NaN; its max() takes 1e-7 then, and coremltools' tests compare with that."""
    model = classifier("supportVectorClassifier", 2, ("a", "b"))
    message = model.supportVectorClassifier
    message.kernel.linearKernel.SetInParent()
    for vector in ((1.0, 0.0), (0.0, 1.0)):
        message.denseSupportVectors.vectors.add().values.extend(vector)
    message.numberOfSupportVectorsPerClass.extend([1, 1])
    message.coefficients.add().alpha.extend([1, -1])
    for field, value in ((message.rho, math.nan), (message.probA, 0.0), (message.probB, 0.5)):
        field.append(value)
    (found,) = rows(model, tmp_path, arrays([[1.0, 2.0]]))
    assert found == {"label": "b", "shares": pytest.approx({"a": 1e-7, "b": 1 - 1e-7}, rel=1e-9)}


def test_a_kernel_that_overflows_says_nothing_of_it(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    model = regressor("supportVectorRegressor", 2)
    message = model.supportVectorRegressor
    message.kernel.polyKernel.gamma, message.kernel.polyKernel.degree = 1.0, 2**31 - 1
    message.denseSupportVectors.vectors.add().values.extend([2.0, 3.0])
    message.coefficients.alpha.append(1.0)
    assert load(model, tmp_path).predict({"x": [1.0, 1.0]})["y"] == np.inf
    assert not list(recwarn)
