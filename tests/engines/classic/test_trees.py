"""Tree ensembles against scikit-learn's own predictions, and each branch mode against a comparison in Python."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris, make_regression
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.tree import DecisionTreeClassifier

from tests.engines.classic.specs import arrays, classifier, load, regressor, rows, shares
from tlkit.errors import LoadError

MODES = (operator.le, operator.lt, operator.ge, operator.gt, operator.eq, operator.ne)


def add_tree(parameters: Any, number: int, tree: Any, leaf: Any) -> None:
    """Append scikit-learn's ``tree``; ``leaf(values)`` is what a leaf adds, as {dimension: value}."""
    for node in range(tree.node_count):
        message = parameters.nodes.add(treeId=number, nodeId=node)
        if tree.children_left[node] < 0:
            message.nodeBehavior = 6
            for index, value in leaf(tree.value[node]).items():
                message.evaluationInfo.add(evaluationIndex=index, evaluationValue=value)
            continue
        message.branchFeatureIndex = int(tree.feature[node])
        message.branchFeatureValue = float(tree.threshold[node])
        message.trueChildNodeId, message.falseChildNodeId = tree.children_left[node], tree.children_right[node]


def test_a_forest_regresses_as_scikit_learn_does(tmp_path: Path) -> None:
    x, y = make_regression(1000, 12, random_state=0)
    forest = RandomForestRegressor(20, max_depth=9, random_state=0).fit(x, y)
    model = regressor("treeEnsembleRegressor", 12)
    parameters = model.treeEnsembleRegressor.treeEnsemble
    parameters.numPredictionDimensions = 1
    parameters.basePredictionValue.append(0)
    for number, tree in enumerate(forest.estimators_):
        add_tree(parameters, number, tree.tree_, lambda value: {0: float(value[0, 0]) / 20})
    found = [row["y"] for row in rows(model, tmp_path, arrays(x))]
    assert np.allclose(found, forest.predict(x), rtol=1e-9)


@pytest.mark.parametrize("names", [None, ("zero", "one", "two")])
def test_a_forest_of_three_classes(tmp_path: Path, names: tuple[str, ...] | None) -> None:
    x, y = load_iris(return_X_y=True)
    forest = RandomForestClassifier(15, random_state=1).fit(x, y)
    labels = names or (0, 1, 2)
    model = classifier("treeEnsembleClassifier", 4, labels)
    parameters = model.treeEnsembleClassifier.treeEnsemble
    parameters.numPredictionDimensions = 3
    parameters.basePredictionValue.extend([0, 0, 0])
    for number, tree in enumerate(forest.estimators_):
        add_tree(parameters, number, tree.tree_, lambda value: {k: float(v) / 15 for k, v in enumerate(value[0]) if v})
    found = rows(model, tmp_path, arrays(x))
    assert np.abs(shares(found, labels) - forest.predict_proba(x)).max() < 1e-9
    assert [labels.index(row["label"]) for row in found] == forest.predict(x).tolist()


def test_boosting_of_two_classes_is_logistic(tmp_path: Path) -> None:
    x, y = load_digits(n_class=2, return_X_y=True)
    boosted = GradientBoostingClassifier(n_estimators=10, random_state=0).fit(x, y)
    model = classifier("treeEnsembleClassifier", 64, ("zero", "one"))
    message = model.treeEnsembleClassifier
    message.postEvaluationTransform = 2
    message.treeEnsemble.numPredictionDimensions = 1
    prior = float(np.log(y.mean() / (1 - y.mean())))
    message.treeEnsemble.basePredictionValue.append(prior)
    for number, (tree,) in enumerate(boosted.estimators_):
        add_tree(message.treeEnsemble, number, tree.tree_, lambda value: {0: 0.1 * float(value[0, 0])})
    found = rows(model, tmp_path, arrays(x))
    assert np.abs(shares(found, ("zero", "one")) - boosted.predict_proba(x)).max() < 1e-6


def test_softmax_over_classes(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    boosted = GradientBoostingClassifier(n_estimators=5, random_state=0).fit(x, y)
    model = classifier("treeEnsembleClassifier", 4, (0, 1, 2))
    message = model.treeEnsembleClassifier
    message.postEvaluationTransform = 1
    message.treeEnsemble.numPredictionDimensions = 3
    message.treeEnsemble.basePredictionValue.extend(np.log(np.bincount(y) / len(y)).tolist())
    for step in range(5):
        for k in range(3):
            tree = boosted.estimators_[step, k].tree_
            add_tree(message.treeEnsemble, 3 * step + k, tree, lambda value, k=k: {k: 0.1 * float(value[0, 0])})
    found = rows(model, tmp_path, arrays(x))
    assert np.abs(shares(found, (0, 1, 2)) - boosted.predict_proba(x)).max() < 1e-6


def branch(mode: int, missing: bool, threshold: float) -> Any:
    model = regressor("treeEnsembleRegressor", 1)
    parameters = model.treeEnsembleRegressor.treeEnsemble
    parameters.numPredictionDimensions = 1
    root = parameters.nodes.add(treeId=7, nodeId=3, nodeBehavior=mode, branchFeatureValue=threshold)
    root.trueChildNodeId, root.falseChildNodeId, root.missingValueTracksTrueChild = 1, 2, missing
    for number, value in ((1, 10.0), (2, -5.0)):
        leaf = parameters.nodes.add(treeId=7, nodeId=number, nodeBehavior=6)
        leaf.evaluationInfo.add(evaluationIndex=0, evaluationValue=value)
    return model


@pytest.mark.parametrize("mode", range(6))
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("threshold", [0.5, 0.1, -3.0, 0.0])
def test_every_way_to_branch(tmp_path: Path, mode: int, missing: bool, threshold: float) -> None:
    exact = float(np.float32(threshold)) == threshold
    near = np.array(
        [threshold, np.nextafter(threshold, 9), np.nextafter(threshold, -9), 0.3, -7.0, np.inf, -np.inf, np.nan]
    )
    found = [row["y"] for row in rows(branch(mode, missing, threshold), tmp_path, arrays(near[:, None]))]
    compared = near.astype(np.float32).astype(np.float64) if exact else near  # f32 where thresholds are f32 numbers
    true = [missing if np.isnan(x) else bool(MODES[mode](x, threshold)) for x in compared]
    assert found == [10.0 if it else -5.0 for it in true]


def test_one_value_for_two_classes(tmp_path: Path) -> None:
    x, y = load_digits(n_class=2, return_X_y=True)
    tree = DecisionTreeClassifier(max_depth=1, random_state=0).fit(x, y)
    model = classifier("treeEnsembleClassifier", 64, (0, 1))
    parameters = model.treeEnsembleClassifier.treeEnsemble
    parameters.numPredictionDimensions = 1
    add_tree(parameters, 0, tree.tree_, lambda value: {0: float(value[0, 1])})
    found = rows(model, tmp_path, arrays(x))
    assert np.abs(shares(found, (0, 1)) - tree.predict_proba(x)).max() < 1e-12


def broken(what: str) -> Any:
    model = branch(0, False, 0.5)
    parameters = model.treeEnsembleRegressor.treeEnsemble
    root, left, right = parameters.nodes
    if what == "child":
        root.trueChildNodeId = 99
    elif what == "circle":
        left.nodeBehavior, left.trueChildNodeId, left.falseChildNodeId = 0, 3, 2
    elif what == "itself":
        root.trueChildNodeId = 3
    elif what == "twice":
        right.nodeId = 1
    elif what == "dimension":
        left.evaluationInfo[0].evaluationIndex = 5
    elif what == "many":
        parameters.numPredictionDimensions = 2**40
    elif what == "none":
        parameters.numPredictionDimensions = 0
    elif what == "base":
        parameters.basePredictionValue.extend([1, 2])
    return model


@pytest.mark.parametrize("what", ["child", "circle", "itself", "twice", "dimension", "many", "none", "base"])
def test_a_damaged_tree_is_refused(tmp_path: Path, what: str) -> None:
    with pytest.raises(LoadError) as caught:
        load(broken(what), tmp_path).prepare()
    assert "model.mlmodel" in str(caught.value)


def test_a_feature_that_is_not_there(tmp_path: Path) -> None:
    model = branch(0, False, 0.5)
    model.treeEnsembleRegressor.treeEnsemble.nodes[0].branchFeatureIndex = 2**50
    with pytest.raises(LoadError, match="have 1 numbers, and it computes with 1125899906842625"):
        load(model, tmp_path).prepare()


def test_as_many_votes_of_several_trees_are_the_first_classs(tmp_path: Path) -> None:
    """As in scikit-learn, where both probabilities are 0.5 then; sums of tenths may miss it by their rounding."""
    model = classifier("treeEnsembleClassifier", 1, ("no", "yes"))
    parameters = model.treeEnsembleClassifier.treeEnsemble
    parameters.numPredictionDimensions = 1
    for tree, value in enumerate([0.1, 0.1, 0.3 - 0.1, 0.1 + 1e-17, 0.0]):
        parameters.nodes.add(treeId=tree, nodeId=0, nodeBehavior=6).evaluationInfo.add(evaluationValue=value)
    (found,) = rows(model, tmp_path, arrays([[0.0]]))
    assert found["shares"]["yes"] == pytest.approx(0.5, abs=1e-12) and found["label"] == "no"
    parameters.nodes[4].evaluationInfo[0].evaluationValue = 1e-7
    assert load(model, tmp_path).predict({"x": [0.0]})["label"] == "yes"
