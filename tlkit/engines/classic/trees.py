"""Tree ensembles: each row's way down every tree, and the sum of the leaves' values.

A branch compares one feature with a number; a missing value (NaN) goes where the branch says, whatever the comparison.
Converters round thresholds to f32 for the sake of models that compared in f32 themselves, so features are compared in
f32 where all thresholds are f32 numbers: it decides values at a border.

coremltools 9 does not divide the leaves of scikit-learn's forests of three and more classes by the number of trees:
their "probabilities" add up to that number, with Core ML, too (apple/coremltools#1541). The labels are right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.engines.classic.answers import Classification, Regression, labels_of, logistic, softmax, two_columns
from tlkit.engines.classic.values import DAMAGED, Features, Matrix, Rows, check_width, input_names, matrix
from tlkit.errors import LoadError
from tlkit.host import budget
from tlkit.types import TensorSpec

_LEAF = 6  # TreeNodeBehavior; below it are <=, <, >=, >, == and !=
_NONE, _SOFTMAX, _LOGISTIC, _REFERENCE = range(4)
_BLOCK, _ROWS = 1 << 13, 1 << 10
"""Ways down, and rows, that are followed together: their features and nodes fit into a core's cache."""

Places = NDArray[np.int64]


def regressor(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return what a ``treeEnsembleRegressor`` computes."""
    message, answer = model.treeEnsembleRegressor, Regression(model, outputs)
    ensemble = Ensemble(message.treeEnsemble)
    names = input_names(model)
    check_width(model, ensemble.least)

    def rows(features: Sequence[Features]) -> list[dict[str, Any]]:
        values = ensemble.values(matrix(features, names, ensemble.least))
        return answer.rows(_transformed(values, message.postEvaluationTransform))

    return rows


def classifier(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return what a ``treeEnsembleClassifier`` computes."""
    message = model.treeEnsembleClassifier
    answer, ensemble = Classification(model, labels_of(message)), Ensemble(message.treeEnsemble)
    names = input_names(model)
    check_width(model, ensemble.least)
    # A trial run, so that sizes that do not fit are reported when the model is loaded.
    _probabilities(np.zeros((1, ensemble.dimensions)), message.postEvaluationTransform, len(answer.labels))

    def rows(features: Sequence[Features]) -> list[dict[str, Any]]:
        values = ensemble.values(matrix(features, names, ensemble.least))
        found = _probabilities(values, message.postEvaluationTransform, len(answer.labels))
        if ensemble.dimensions == 1 and len(answer.labels) == 2:
            chosen = (found[:, 1] >= ensemble.half).astype(np.int64)
        else:
            chosen = found.argmax(1)
        return answer.rows(chosen, found)

    return rows


def _transformed(values: Matrix, transform: int) -> Matrix:
    """Return a regressor's values after its transform."""
    if transform == _SOFTMAX:
        return softmax(values)
    return logistic(values) if transform == _LOGISTIC else values


def _probabilities(values: Matrix, transform: int, classes: int) -> Matrix:
    """Return a column of probabilities for each class; LoadError where the model's sizes do not say how."""
    dimensions = values.shape[1]
    if dimensions == 1 and classes == 2:
        if transform == _SOFTMAX:
            raise LoadError("a softmax over one value for two classes", DAMAGED)
        # With class 0 as the reference, softmax([0, x]) is the logistic function of x.
        return two_columns(values[:, 0] if transform == _NONE else logistic(values)[:, 0])
    if transform == _REFERENCE and dimensions == classes - 1:
        return softmax(np.concatenate([np.zeros((len(values), 1)), values], 1))
    if dimensions != classes or transform == _REFERENCE:
        raise LoadError(f"{dimensions} values for {classes} classes", DAMAGED)
    return _transformed(values, transform)


class Ensemble:
    """All trees in arrays of one entry a node; a leaf's children are itself.

    A row goes from the ``roots`` to ``children[2 * node]`` where its ``feature`` is at most the threshold (where
    ``equal``: is it; where ``missing``: is NaN), else to ``children[2 * node + 1]``, ``depth`` times.
    """

    def __init__(self, parameters: Any) -> None:
        nodes = parameters.nodes
        self.dimensions = int(parameters.numPredictionDimensions)
        said = budget.over(self.dimensions)
        if not self.dimensions or said:
            raise LoadError(f"trees of {self.dimensions} values", said[1] if said else DAMAGED)
        self.base = _base(list(parameters.basePredictionValue), self.dimensions)
        places = _places(nodes)
        self.children, self.roots = _linked(nodes, places)
        self.depth = _depth(self.children, self.roots, len(nodes))
        self._read_branches(nodes)
        self._read_leaves(nodes)

    def _read_branches(self, nodes: Any) -> None:
        branches = np.array([node.nodeBehavior != _LEAF for node in nodes], bool)
        modes = np.array([node.nodeBehavior for node in nodes], np.int64)
        # A leaf reads feature 0: whichever way its comparison goes, it leads back to the leaf.
        self.feature = np.array([int(node.branchFeatureIndex) for node in nodes], np.int64) * branches
        self.least = int(self.feature.max(initial=-1)) + 1
        thresholds = np.array([node.branchFeatureValue for node in nodes], np.float64) * branches
        kept = thresholds.astype(np.float32)
        exact = np.array_equal(kept.astype(np.float64), thresholds)
        self.thresholds: NDArray[Any] = kept if exact else thresholds
        missing = np.array([node.missingValueTracksTrueChild for node in nodes], bool)
        # x >= t is not x < t, x > t not x <= t, x != t not x == t: those take the other child.
        swapped = np.isin(modes, (2, 3, 5))
        self.children = np.where(swapped[:, None], self.children[:, ::-1], self.children).reshape(-1)
        self.missing = missing ^ swapped
        # x < t is x <= the number before t, in the type that is compared.
        before = np.nextafter(self.thresholds, np.array(-np.inf, self.thresholds.dtype))
        self.thresholds = np.where(np.isin(modes, (1, 2)), before, self.thresholds)
        self.equal = np.isin(modes, (4, 5))
        self._any_equal = bool(self.equal.any())

    def _read_leaves(self, nodes: Any) -> None:
        infos = [node.evaluationInfo for node in nodes]
        self._counts = np.array([len(info) for info in infos], np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        self._where = np.array([int(item.evaluationIndex) for info in infos for item in info], np.int64)
        self._what = np.array([item.evaluationValue for info in infos for item in info], np.float64)
        if self._where.size and int(self._where.max()) >= self.dimensions:
            raise LoadError(f"a leaf names value {self._where.max()} of {self.dimensions}", DAMAGED)
        # The sum of a leaf's entries, for trees of one value.
        self._single = np.zeros(len(nodes))
        np.add.at(self._single, np.repeat(np.arange(len(nodes)), self._counts), self._what)

    @property
    def half(self) -> float:
        """From which probability on the second of two classes is the answer.

        0.5 for a single tree: coremltools writes a leaf of 0.5 as 0.5 - 1e-7 lest Core ML choose the second. Of several
        trees as many votes for both, within the rounding of their sum, are the first's, as in the libraries.
        """
        return 0.5 if len(self.roots) == 1 else 0.5 + 1e-9

    def leaves(self) -> Matrix:
        """Return what each node adds [nodes, dimensions], zeros where it is not a leaf."""
        said = budget.over(len(self._counts) * self.dimensions)
        if said:
            raise LoadError(f"its leaves' values have {said[0]}", said[1])
        found = np.zeros((len(self._counts), self.dimensions))
        np.add.at(found, (np.repeat(np.arange(len(self._counts)), self._counts), self._where), self._what)
        return found

    def values(self, features: Matrix) -> Matrix:
        """Return the values [rows, dimensions] of ``features`` [rows, features]."""
        compared = np.ascontiguousarray(features.astype(self.thresholds.dtype))
        found = np.tile(self.base, (len(features), 1))
        together = max(1, _BLOCK // min(_ROWS, max(1, len(features))))
        gaps = bool(np.isnan(compared).any())
        for first in range(0, len(features), _ROWS):
            part, sums = compared[first : first + _ROWS], found[first : first + _ROWS]
            for begin in range(0, len(self.roots), together):
                leaves = self._walk(part, self.roots[begin : begin + together], gaps)
                if self.dimensions == 1:
                    sums[:, 0] += self._single[leaves].sum(1)
                else:
                    sums += self._summed(leaves)
        return found

    def _walk(self, features: NDArray[Any], roots: Places, gaps: bool) -> Places:
        """Return the leaf [rows, trees] at which each row arrives in each of some trees."""
        nodes = np.broadcast_to(roots, (len(features), len(roots))).copy()
        # Where each row begins in the flattened features.
        rows = np.arange(len(features))[:, None] * features.shape[1]
        flat = features.reshape(-1)
        # A way that has ended stays at its leaf.
        for _ in range(self.depth):
            places = self.feature.take(nodes)
            places += rows
            values = flat.take(places) if flat.size else np.zeros(nodes.shape)
            thresholds = self.thresholds.take(nodes)
            true = values <= thresholds
            if self._any_equal:
                true = np.where(self.equal.take(nodes), values == thresholds, true)
            if gaps:
                true = np.where(np.isnan(values), self.missing.take(nodes), true)
            # Children are stored in pairs: the true one at 2 * node, the false one after it.
            nodes *= 2
            nodes += ~true
            nodes = self.children.take(nodes)
        return nodes

    def _summed(self, leaves: Places) -> Matrix:
        """Return the sums [rows, dimensions] of what the leaves [rows, trees] add."""
        counts = self._counts[leaves]
        total = counts.sum(1)
        flat = counts.reshape(-1)
        begins = np.cumsum(flat) - flat
        # The index of every entry: where its leaf's entries begin, plus a count from 0 within the leaf.
        entries = np.repeat(self._starts[leaves].reshape(-1) - begins, flat) + np.arange(int(flat.sum()))
        rows = np.repeat(np.arange(len(leaves)), total)
        size = len(leaves) * self.dimensions
        found = np.bincount(rows * self.dimensions + self._where[entries], self._what[entries], size)
        return found.astype(np.float64, copy=False).reshape(-1, self.dimensions)


def _base(values: list[float], dimensions: int) -> Matrix:
    """Return what the leaves' values are added to: 0 where the model does not say."""
    if len(values) not in (0, dimensions):
        raise LoadError(f"{len(values)} base values for {dimensions} values", DAMAGED)
    return np.array(values or [0.0] * dimensions)


def _places(nodes: Any) -> dict[tuple[int, int], int]:
    places = {(node.treeId, node.nodeId): place for place, node in enumerate(nodes)}
    if len(places) != len(nodes):
        raise LoadError("a tree has two nodes of one number", DAMAGED)
    return places


def _linked(nodes: Any, places: dict[tuple[int, int], int]) -> tuple[Places, Places]:
    """Return the true and the false child of each node, and the nodes that are no child."""
    children = np.empty((len(nodes), 2), np.int64)
    for place, node in enumerate(nodes):
        if not 0 <= node.nodeBehavior <= _LEAF:
            raise LoadError(f"node {node.nodeId} of tree {node.treeId} is of unknown kind {node.nodeBehavior}", DAMAGED)
        if node.nodeBehavior == _LEAF:
            children[place] = place
            continue
        try:
            children[place] = [places[node.treeId, child] for child in (node.trueChildNodeId, node.falseChildNodeId)]
        except KeyError:
            said = f"node {node.nodeId} of tree {node.treeId} has a child that is not there"
            raise LoadError(said, DAMAGED) from None
        if place in children[place]:
            raise LoadError(f"node {node.nodeId} of tree {node.treeId} is its own child", DAMAGED)
    # A leaf is stored as its own child, which does not count here.
    below = children[children[:, 0] != np.arange(len(nodes))] if len(nodes) else children
    parents = np.bincount(below.reshape(-1), minlength=len(nodes))
    if parents.max(initial=0) > 1:
        raise LoadError("a node of a tree is the child of two", DAMAGED)
    return children, np.flatnonzero(parents == 0)


def _depth(children: Places, roots: Places, nodes: int) -> int:
    """Return the length of the longest way down; LoadError where nodes hang in a circle."""
    level, depth, seen = roots, 0, len(roots)
    while level.size:
        below = children[level]
        level = below[below[:, 0] != level].reshape(-1)
        depth += bool(level.size)
        seen += len(level)
    if seen != nodes:
        raise LoadError("nodes of a tree hang in a circle", DAMAGED)
    return depth
