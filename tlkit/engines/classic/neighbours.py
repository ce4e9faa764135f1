"""k nearest neighbours by squared Euclidean distance, searched one by one: an index gives the same answer.

What Core ML does where votes are equal, and with distances of 0 under inverse weights, is not documented. Here the
class of the nearer neighbour wins, and a sample at distance 0 outweighs all that are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlkit.engines.classic.answers import Classification, check_sizes, labels_of
from tlkit.engines.classic.values import DAMAGED, Features, Rows, input_names, matrix
from tlkit.errors import LoadError
from tlkit.types import TensorSpec


def classifier(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return what a ``kNearestNeighborsClassifier`` computes: a label, and each label's share of the votes."""
    message = model.kNearestNeighborsClassifier
    samples, of_samples = _samples(message), labels_of(message)
    default = message.WhichOneof("DefaultClassLabel")
    wanted = int(message.numberOfNeighbors.defaultValue)
    check_sizes("labels", len(of_samples), (len(samples),))
    names = input_names(model)
    if not len(samples):
        return _untaught(model, getattr(message, default) if default else None)
    answer = Classification(model, tuple(dict.fromkeys(of_samples)))  # type: ignore[arg-type]
    place = {label: number for number, label in enumerate(answer.labels)}
    classes = np.array([place[label] for label in of_samples])
    if wanted < 1:
        raise LoadError(f"{wanted} neighbours are to vote", DAMAGED)
    inverse = message.WhichOneof("WeightingScheme") == "inverseDistanceWeighting"

    def rows(features: Sequence[Features]) -> list[dict[str, Any]]:
        # Samples are stored as f32: rounded the same way, a point equal to one is at distance 0.
        given = matrix(features, names, samples.shape[1], exact=True).astype(np.float32).astype(np.float64)
        votes = np.zeros((len(given), len(answer.labels)))
        chosen = np.zeros(len(given), np.int64)
        for row, point in enumerate(given):
            apart = ((samples - point) ** 2).sum(1)
            # Samples at the same distance keep their order.
            nearest = np.argsort(apart, kind="stable")[:wanted]
            np.add.at(votes[row], classes[nearest], _weights(np.sqrt(apart[nearest]), inverse))
            # Equal except for rounding: the weights were added up in different orders.
            best = np.flatnonzero(votes[row] >= votes[row].max() * (1 - 1e-12))
            chosen[row] = next(label for label in classes[nearest] if label in best)
        return answer.rows(chosen, votes / votes.sum(1, keepdims=True))

    return rows


def _weights(distances: Any, inverse: bool) -> Any:
    if not inverse:
        return np.ones(len(distances))
    zero = distances == 0
    return zero.astype(np.float64) if zero.any() else 1 / distances


def _samples(message: Any) -> Any:
    index = message.nearestNeighborsIndex
    width = int(index.numberOfDimensions)
    rows = [np.array(sample.vector, np.float32) for sample in index.floatSamples]
    if any(len(row) != width for row in rows):
        raise LoadError(f"samples that do not have {width} numbers", DAMAGED)
    return np.array(rows, np.float64).reshape(len(rows), width)


def _untaught(model: Any, label: str | int | None) -> Rows:
    """Return a model without samples: it answers with its default label."""
    if label is None:
        raise LoadError("neither samples nor a default label", DAMAGED)
    answer = Classification(model, (label,))  # type: ignore[arg-type]
    return lambda rows: answer.rows(np.zeros(len(rows), np.int64), np.ones((len(rows), 1)))
