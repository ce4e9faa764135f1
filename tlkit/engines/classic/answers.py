"""A predictor's numbers to its outputs: a regressor's value, a classifier's label and probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.engines.classic.values import DAMAGED, Matrix, only_output, to_port
from tlkit.errors import LoadError
from tlkit.types import TensorSpec

Labels = tuple[str, ...] | tuple[int, ...]


class Regression:
    """The value of a regressor, under the name that its description gives."""

    def __init__(self, model: Any, outputs: Mapping[str, TensorSpec]) -> None:
        self._name = model.description.predictedFeatureName or only_output(model)
        self._spec = outputs.get(self._name)

    def rows(self, values: Matrix) -> list[dict[str, Any]]:
        """Return the outputs of each row of ``values`` [rows, dimensions]."""
        return [{self._name: to_port(self._spec, row)} for row in values]


class Classification:
    """The label and probabilities of a classifier, under the names that its description gives."""

    def __init__(self, model: Any, labels: Labels) -> None:
        if len(labels) < 1:
            raise LoadError("a classifier without class labels", DAMAGED)
        description = model.description
        # A description need not name them: then it is the first output of the right type.
        kinds = {feature.name: feature.type.WhichOneof("Type") for feature in description.output}
        plain = (name for name, kind in kinds.items() if kind in ("stringType", "int64Type"))
        tables = (name for name, kind in kinds.items() if kind == "dictionaryType")
        self.labels = labels
        self._label = description.predictedFeatureName or next(plain, "classLabel")
        self._probabilities = description.predictedProbabilitiesName or next(tables, "")

    def rows(self, chosen: NDArray[np.int64], probabilities: Matrix | None) -> list[dict[str, Any]]:
        """Return the outputs of each row: the place of its label, and a column of probabilities for each label."""
        found: list[dict[str, Any]] = [{self._label: self.labels[place]} for place in chosen.tolist()]
        if probabilities is not None and self._probabilities:
            for answer, row in zip(found, probabilities.tolist(), strict=True):
                answer[self._probabilities] = dict(zip(self.labels, row, strict=True))
        return found


def labels_of(message: Any) -> Labels:
    """Return the class labels that a model's part of the protobuf lists: texts or integers."""
    which = message.WhichOneof("ClassLabels")
    return tuple(getattr(message, which).vector) if which else ()


def softmax(scores: Matrix) -> Matrix:
    """Return the softmax of each row."""
    # Subtracting the largest score keeps exp from overflowing.
    powers = np.exp(scores - scores.max(1, keepdims=True))
    found: Matrix = powers / powers.sum(1, keepdims=True)
    return found


def logistic(scores: Matrix) -> Matrix:
    """Return 1 / (1 + exp(-x)), without overflow."""
    powers = np.exp(-np.abs(scores))
    return np.where(scores >= 0, 1 / (1 + powers), powers / (1 + powers))


def normal(scores: Matrix) -> Matrix:
    """Return the standard normal distribution's cumulative probability of each value (the probit link)."""
    import torch

    found: Matrix = torch.special.ndtr(torch.from_numpy(np.ascontiguousarray(scores))).numpy()
    return found


def two_columns(second: Matrix) -> Matrix:
    """Return the probabilities of two classes, given those of the second."""
    return np.stack([1 - second, second], 1)


def check_sizes(what: str, found: int, wanted: Sequence[int]) -> None:
    """Raise LoadError where a model has ``found`` of something and none of ``wanted`` would fit."""
    if found not in wanted:
        told = " or ".join(str(number) for number in wanted)
        raise LoadError(f"the model has {found} {what}, not {told}", DAMAGED)
