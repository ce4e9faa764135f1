"""Generalised linear models in MIL: a product, and the link; see :mod:`tlkit.engines.classic.linear`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tlkit.engines.classic.answers import labels_of
from tlkit.engines.classic.linear import Line
from tlkit.engines.classic.linear import classifier as reads
from tlkit.engines.classic.linear import regressor as reads_regressor
from tlkit.errors import LoadError
from tlkit.frontends.network.kit.blob import Blob
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.weights import array_value

_DAMAGED = "the file is damaged: fetch it again"


def regressor(g: Graph, x: Blob, model: Any) -> tuple[Blob, bool]:
    """The values of a regressor, through its link."""
    reads_regressor(model, {})  # which refuses what contradicts itself
    scores = _scores(g, x, Line(model, model.glmRegressor))
    link = model.glmRegressor.postEvaluationTransform
    return (scores if link == 0 else logistic(g, scores) if link == 1 else normal(g, scores)), False


def classifier(g: Graph, x: Blob, model: Any) -> tuple[Blob, bool]:
    """The probability of each class."""
    message = model.glmClassifier
    reads(model, {})
    count, link = len(labels_of(message)), normal if message.postEvaluationTransform == 1 else logistic
    scores = _scores(g, x, Line(model, message))
    if count == 2:
        return two(g, link(g, scores)), False
    if message.classEncoding == 1:
        found = link(g, scores)
        total = g.op("reduce_sum", (1,), x=found, axes=[0], keep_dims=True)
        return g.op("real_div", found.shape, x=found, y=total), False
    return referenced(g, scores), False


def referenced(g: Graph, scores: Blob) -> Blob:
    """Return the softmax of ``scores`` behind a score of 0, that of the first class."""
    count, zero = (scores.shape[0] or 0) + 1, g.tensor(array_value(np.zeros(1, np.float32)), "zero")
    whole = g.op("concat", (count,), values=[zero, scores], axis=0, interleave=False)
    return g.op("softmax", (count,), x=whole, axis=0)


def two(g: Graph, second: Blob) -> Blob:
    """Return the probabilities of two classes, given [1] of the second."""
    first = g.op("sub", (1,), x=1.0, y=second)
    return g.op("concat", (2,), values=[first, second], axis=0, interleave=False)


def logistic(g: Graph, x: Blob) -> Blob:
    """Return 1 / (1 + exp(-x))."""
    return g.op("sigmoid", x.shape, x=x)


def normal(g: Graph, x: Blob) -> Blob:
    """Return the normal distribution's cumulative probability: (1 + erf(x / sqrt(2))) / 2."""
    inner = g.op("erf", x.shape, x=g.op("mul", x.shape, x=x, y=math.sqrt(0.5)))
    return g.op("mul", x.shape, x=g.op("add", x.shape, x=inner, y=1.0), y=0.5)


def product(g: Graph, x: Blob, weights: Any, offset: Any) -> Blob:
    """Return weights [rows, columns] . x [columns] + offset [rows]."""
    rows, columns = weights.shape
    if x.shape != (columns,):
        raise LoadError(f"{x.shape[0]} features, where the model has weights for {columns}", _DAMAGED)
    row = g.op("expand_dims", (1, columns), x=x, axes=[0])
    held = [array_value(np.ascontiguousarray(part, np.float32)) for part in (weights, offset)]
    return g.op("squeeze", (rows,), x=g.op("linear", (1, rows), x=row, weight=held[0], bias=held[1]), axes=[0])


def _scores(g: Graph, x: Blob, line: Line) -> Blob:
    return product(g, x, line.weights, line.offset)
