"""Support vector machines, as libsvm has them.

Support vectors are grouped by class, in the order of the labels. Classes i < j are told apart by
sum(coefficient * kernel) - rho over the vectors of both, positive for i. Without ``probA`` the label is that of most
votes (the first of equal ones); with it, pairwise probabilities are joined by the second method of Wu, Lin and Weng
(2004), as libsvm does, and the label is the most probable one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from tlkit.engines.classic.answers import Classification, Regression, check_sizes, labels_of, logistic, two_columns
from tlkit.engines.classic.values import DAMAGED, Features, Matrix, Rows, check_width, input_names, matrix
from tlkit.errors import ExecutionError, LoadError
from tlkit.host import budget
from tlkit.types import TensorSpec

_LEAST = 1e-7
"""libsvm keeps pairwise probabilities this far from 0 and 1."""

Kernel = Callable[[Matrix, Matrix], Matrix]


def regressor(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return what a ``supportVectorRegressor`` computes: sum(alpha * kernel) - rho."""
    message, answer = model.supportVectorRegressor, Regression(model, outputs)
    vectors, kernel = Vectors(message), _kernel(message.kernel)
    alpha = np.array(message.coefficients.alpha)
    check_sizes("coefficients", len(alpha), (vectors.count,))
    names = input_names(model)
    vectors.check(model)

    def rows(features: Sequence[Features]) -> list[dict[str, Any]]:
        near = kernel(*vectors.beside(matrix(features, names)))
        return answer.rows((near @ alpha - message.rho)[:, None])

    return rows


def classifier(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return what a ``supportVectorClassifier`` computes."""
    message = model.supportVectorClassifier
    answer, vectors, kernel = Classification(model, labels_of(message)), Vectors(message), _kernel(message.kernel)
    pairs = Pairs(message, len(answer.labels), vectors.count)
    names = input_names(model)
    vectors.check(model)

    def rows(features: Sequence[Features]) -> list[dict[str, Any]]:
        decisions = pairs.decisions(kernel(*vectors.beside(matrix(features, names))))
        probabilities = pairs.probabilities(decisions)
        votes = pairs.votes(decisions) if probabilities is None else probabilities
        return answer.rows(votes.argmax(1), probabilities)

    return rows


class Vectors:
    """The support vectors: dense ones as they are, sparse ones (numbered from 1) once the input's width is known."""

    def __init__(self, message: Any) -> None:
        self._sparse = message.WhichOneof("supportVectors") == "sparseSupportVectors"
        given = message.sparseSupportVectors.vectors if self._sparse else message.denseSupportVectors.vectors
        self.count = len(given)
        if not self.count:
            raise LoadError("a support vector machine without support vectors", DAMAGED)
        if self._sparse:
            self._nodes = [[(node.index, node.value) for node in row.nodes] for row in given]
            self._width = max((index for row in self._nodes for index, _ in row), default=0)
            if any(index < 1 for row in self._nodes for index, _ in row):
                raise LoadError("a support vector has an index below 1", DAMAGED)
            return
        dense = [list(row.values) for row in given]
        if len({len(row) for row in dense}) > 1:
            raise LoadError("support vectors of different lengths", DAMAGED)
        self._dense = np.array(dense)
        self._width = self._dense.shape[1]

    def check(self, model: Any) -> None:
        """Raise LoadError where a model's ports have another width; sparse vectors may leave trailing zeros out."""
        check_width(model, self._width, exact=not self._sparse)

    def beside(self, features: Matrix) -> tuple[Matrix, Matrix]:
        """Return the features [rows, width] and the support vectors [vectors, width]."""
        width = features.shape[1]
        # Sparse vectors leave out zeros, trailing ones included.
        if len(features) and (width < self._width or (width > self._width and not self._sparse)):
            raise ExecutionError(f"{width} features; its support vectors have {self._width}", "give it as many")
        if not self._sparse:
            return features, self._dense
        said = budget.over(self.count * width)
        if said:
            raise ExecutionError(f"its support vectors have {said[0]}", said[1])
        dense = np.zeros((self.count, width))
        for row, nodes in enumerate(self._nodes):
            for index, value in nodes:
                dense[row, index - 1] = value
        return features, dense


class Pairs:
    """The decisions between every two classes."""

    def __init__(self, message: Any, classes: int, vectors: int) -> None:
        counts = list(message.numberOfSupportVectorsPerClass)
        check_sizes("counts of support vectors", len(counts), (classes,))
        check_sizes("support vectors", vectors, (sum(counts),))
        self._coefficients = [np.array(row.alpha) for row in message.coefficients]
        check_sizes("rows of coefficients", len(self._coefficients), (classes - 1,))
        for row in self._coefficients:
            check_sizes("coefficients", len(row), (vectors,))
        self._pairs = list(combinations(range(classes), 2))
        self._rho = np.array(message.rho)
        check_sizes("rho", len(self._rho), (len(self._pairs),))
        self._a, self._b = np.array(message.probA), np.array(message.probB)
        check_sizes("probA", len(self._a), (0, len(self._pairs)))
        check_sizes("probB", len(self._b), (len(self._a),))
        ends = np.cumsum(counts)
        self._parts = [slice(int(end - count), int(end)) for end, count in zip(ends, counts, strict=True)]
        self._classes = classes

    def decisions(self, near: Matrix) -> Matrix:
        """Return the decision [rows, pairs] of ``near`` [rows, vectors], the kernel's values."""
        found = np.empty((len(near), len(self._pairs)))
        for column, (i, j) in enumerate(self._pairs):
            first, second = self._parts[i], self._parts[j]
            # libsvm keeps one row of coefficients per other class, so rows after a class's own move up by one.
            found[:, column] = (
                near[:, first] @ self._coefficients[j - 1][first] + near[:, second] @ self._coefficients[i][second]
            )
        found -= self._rho
        return found

    def votes(self, decisions: Matrix) -> Matrix:
        """Return how many decisions each class won."""
        found = np.zeros((len(decisions), self._classes))
        for column, (i, j) in enumerate(self._pairs):
            won = decisions[:, column] > 0
            found[:, i] += won
            found[:, j] += ~won
        return found

    def probabilities(self, decisions: Matrix) -> Matrix | None:
        """Return the probability [rows, classes] of each class, or None for a model that does not know them."""
        if not self._a.size:
            return None
        first = np.clip(logistic(-(self._a * decisions + self._b)), _LEAST, 1 - _LEAST)
        first[np.isnan(first)] = _LEAST  # as libsvm's comparisons have it, for a machine whose training came to nothing
        # Two classes make one pair: there is nothing to combine.
        if self._classes == 2:
            return two_columns(1 - first[:, 0])
        apart = np.zeros((len(decisions), self._classes, self._classes))
        for column, (i, j) in enumerate(self._pairs):
            apart[:, i, j], apart[:, j, i] = first[:, column], 1 - first[:, column]
        return np.stack([_joined(row) for row in apart]) if len(apart) else np.empty((0, self._classes))


def _joined(apart: Matrix) -> Matrix:
    """Return the probabilities p that minimise the sum over pairs of (apart[j, i] p[i] - apart[i, j] p[j])^2.

    The fixed-point iteration of Wu, Lin and Weng, "Probability estimates for multi-class classification by pairwise
    coupling" (2004), algorithm 2, ended where libsvm ends it: within 0.005 / classes, or after 100 rounds.
    """
    classes = len(apart)
    # The paper's Q: what is minimised is p'Qp.
    q = -apart.T * apart
    np.fill_diagonal(q, (apart.T**2).sum(1))
    p = np.full(classes, 1 / classes)
    for _ in range(max(100, classes)):
        product = q @ p
        whole = p @ product
        if np.abs(product - whole).max() < 0.005 / classes:
            break
        for t in range(classes):
            # The minimum along p[t]; p'Qp, Qp and p then follow the step and the division that makes the sum 1 again.
            step = (whole - product[t]) / q[t, t]
            p[t] += step
            whole = (whole + step * (step * q[t, t] + 2 * product[t])) / (1 + step) ** 2
            product = (product + step * q[t]) / (1 + step)
            p /= 1 + step
    return p


def _kernel(message: Any) -> Kernel:
    """Return the kernel: features [rows, width] and vectors [vectors, width] to [rows, vectors]."""
    which = message.WhichOneof("kernel") or "linearKernel"
    chosen = getattr(message, which)
    if which == "rbfKernel":
        return lambda x, v: np.exp(-chosen.gamma * _distances(x, v))
    if which == "polyKernel":
        return lambda x, v: _power(chosen.gamma * (x @ v.T) + chosen.c, chosen.degree)
    if which == "sigmoidKernel":
        return lambda x, v: np.tanh(chosen.gamma * (x @ v.T) + chosen.c)
    return lambda x, v: x @ v.T


def _power(x: Matrix, degree: int) -> Matrix:
    """Return x to the power of ``degree``: infinite past f64, which is no reason for a warning of numpy's."""
    with np.errstate(over="ignore"):
        found: Matrix = x**degree
    return found


def _distances(x: Matrix, v: Matrix) -> Matrix:
    """Return the squared Euclidean distances [rows, vectors]; without cancellation, a row at a time."""
    return np.stack([((row - v) ** 2).sum(1) for row in x]) if len(x) else np.empty((0, len(v)))
