"""Generalised linear models: weights and an offset for each value, then a link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlkit.engines.classic.answers import (
    Classification,
    Regression,
    check_sizes,
    labels_of,
    logistic,
    normal,
    softmax,
    two_columns,
)
from tlkit.engines.classic.values import DAMAGED, Features, Matrix, Rows, check_width, input_names, matrix
from tlkit.errors import LoadError
from tlkit.types import TensorSpec


def regressor(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return what a ``glmRegressor`` computes: no link, the logistic function, or the normal distribution's."""
    message, answer = model.glmRegressor, Regression(model, outputs)
    line = Line(model, message)
    link = {0: lambda scores: scores, 1: logistic, 2: normal}.get(message.postEvaluationTransform)
    if link is None:
        raise LoadError(f"unknown transform {message.postEvaluationTransform}", DAMAGED)
    return lambda rows: answer.rows(link(line.scores(rows)))


def classifier(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return what a ``glmClassifier`` computes.

    Two classes have one row of weights, which gives the second one's probability. ``ReferenceClass``: a row for each
    class but the first, whose score is 0, and softmax. ``OneVsRest``: a row for each class, each by the link and
    divided by their sum.
    """
    message = model.glmClassifier
    answer, line = Classification(model, labels_of(message)), Line(model, message)
    count = len(answer.labels)
    probit, apart = message.postEvaluationTransform == 1, message.classEncoding == 1  # 1 is Probit, and OneVsRest
    check_sizes("rows of weights", line.rows, (1,) if count == 2 else (count,) if apart else (count - 1,))
    if probit and count > 2 and not apart:
        raise LoadError("a probit of more than two classes with one as reference", DAMAGED)
    link = normal if probit else logistic

    def rows(features: Sequence[Features]) -> list[dict[str, Any]]:
        scores = line.scores(features)
        if count == 2:
            found = two_columns(link(scores)[:, 0])
        elif apart:
            found = link(scores)
            found = found / found.sum(1, keepdims=True)
        else:
            found = softmax(np.concatenate([np.zeros((len(scores), 1)), scores], 1))
        return answer.rows(found.argmax(1), found)

    return rows


class Line:
    """``weights`` [values, features] . features + ``offset`` [values]."""

    def __init__(self, model: Any, message: Any) -> None:
        self._names = input_names(model)
        weights = [list(row.value) for row in message.weights]
        if not weights or len({len(row) for row in weights}) > 1:
            raise LoadError("weights that are missing or of different lengths", DAMAGED)
        check_sizes("offsets", len(message.offset), (len(weights),))
        self.weights, self.offset = np.array(weights), np.array(message.offset)
        check_width(model, self.weights.shape[1], exact=True)

    @property
    def rows(self) -> int:
        """How many values it gives."""
        return len(self.weights)

    def scores(self, rows: Sequence[Features]) -> Matrix:
        """Return the values [rows, values]."""
        features = matrix(rows, self._names, self.weights.shape[1], exact=True)
        found: Matrix = features @ self.weights.T + self.offset
        return found
