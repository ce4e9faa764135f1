"""Two rare predictors: an item recommender by similarities, and a Bayesian probit regression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tlkit.engines.classic.values import DAMAGED, Features, Rows, each, given, scalar, to_port
from tlkit.errors import ExecutionError, LoadError
from tlkit.host import budget
from tlkit.types import TensorSpec


def recommender(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return ``itemSimilarityRecommender``: the items of the highest scores, best first, and their scores.

    The score of item k is the sum over the given items i of similarity(k, i) * (score(i) - adjustment(k)). Items that
    were given are left out unless an exclusion list says otherwise.
    """
    message = model.itemSimilarityRecommender
    similar = {int(row.itemId): row for row in message.itemItemSimilarities}
    known = list(message.itemStringIds.vector) or list(message.itemInt64Ids.vector)
    # Without a list of items these are numbered from 0.
    count = 1 + max(_numbers(message), default=-1)
    said = None if known else budget.over(count)
    if said:
        raise LoadError(f"items: {said[0]}", said[1])
    names = known or list(range(count))
    if any(number >= len(names) for number in _numbers(message)):
        raise LoadError("a similarity of an item that is not in the list of items", DAMAGED)
    places = {name: place for place, name in enumerate(names)}

    def step(features: Features) -> dict[str, Any]:
        seen = _scores(given(features, message.itemInputFeatureName), message.itemInputFeatureName)
        rated = {places[item]: score for item, score in seen.items() if item in places}
        scores = _predicted(similar, rated)
        left_out = _items(features, message.itemExclusionInputFeatureName, seen)
        only = _items(features, message.itemRestrictionInputFeatureName, names)
        allowed = [place for place, item in enumerate(names) if item not in left_out and item in only]
        # Ties go to the item that is listed first.
        best = sorted(allowed, key=lambda place: (-scores.get(place, 0.0), place))
        count = message.numRecommendationsInputFeatureName
        best = best[: int(scalar(features[count]))] if count and count in features else best
        found = {
            message.recommendedItemListOutputFeatureName: [names[place] for place in best],
            message.recommendedItemScoreOutputFeatureName: {names[place]: scores.get(place, 0.0) for place in best},
        }
        return {name: value for name, value in found.items() if name}

    return each(step)


def _predicted(similar: Mapping[int, Any], rated: Mapping[int, float]) -> dict[int, float]:
    scores: dict[int, float] = {}
    for item, score in rated.items():
        row = similar.get(item)
        for other in row.similarItemList if row is not None else ():
            adjustment = similar[other.itemId].itemScoreAdjustment if other.itemId in similar else 0.0
            scores[other.itemId] = scores.get(other.itemId, 0.0) + other.similarityScore * (score - adjustment)
    return scores


def _numbers(message: Any) -> list[int]:
    rows = message.itemItemSimilarities
    return [int(row.itemId) for row in rows] + [int(item.itemId) for row in rows for item in row.similarItemList]


def _scores(value: Any, name: str) -> dict[Any, float]:
    """Return what was given as {item: score}: a list of items has scores of 1."""
    if isinstance(value, Mapping):
        return {key: float(number) for key, number in value.items()}
    if isinstance(value, str):
        raise ExecutionError(f"the input '{name}' is a text, not items", "give it a list or a dictionary")
    return dict.fromkeys(value.tolist() if isinstance(value, np.ndarray) else value, 1.0)


def _items(features: Features, name: str, otherwise: Any) -> set[Any]:
    value = features[name] if name and name in features else otherwise
    return set(value.tolist() if isinstance(value, np.ndarray) else value)


def probit(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return ``bayesianProbitRegressor``: the sum of Gaussian weights, its mean and variance.

    The bias and each feature's weight for its value are independent Gaussians of a mean and a precision (1/variance),
    so means and variances add up. How Core ML derives the pessimistic and the sampled probability is not documented:
    those two outputs are left out.
    """
    message = model.bayesianProbitRegressor
    weights = {
        (int(feature.featureId), int(entry.featureValue)): entry.featureWeight
        for feature in message.features
        for entry in feature.weights
    }
    for gaussian in (message.bias, *weights.values()):
        if not gaussian.precision > 0:
            raise LoadError(f"a weight of precision {gaussian.precision}", DAMAGED)

    def step(features: Features) -> dict[str, Any]:
        value = given(features, message.regressionInputFeatureName)
        chosen = value.items() if isinstance(value, Mapping) else enumerate(np.asarray(value).reshape(-1).tolist())
        gaussians = [message.bias] + [weights[key] for key in ((int(f), int(v)) for f, v in chosen) if key in weights]
        found = {
            message.meanOutputFeatureName: sum(gaussian.mean for gaussian in gaussians),
            message.varianceOutputFeatureName: sum(1 / gaussian.precision for gaussian in gaussians),
        }
        return {name: to_port(outputs.get(name), number) for name, number in found.items() if name}

    return each(step)
