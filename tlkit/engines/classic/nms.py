"""Core ML's nonMaximumSuppression model: the last stage of most detectors.

Boxes are (centre x, centre y, width, height), one row each; confidences have a column a class. Boxes whose best class
is below the confidence threshold are dropped first; of what is left, the best one suppresses those that overlap it by
more than the IoU threshold, with ``perClass`` only those of its own best class. Unlike MIL's op, nothing is kept where
no box passes. An output of a fixed number of rows is filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.engines.classic.values import Rows, each, given
from tlkit.errors import ExecutionError
from tlkit.host import budget
from tlkit.types import TensorSpec


def suppression(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return what a ``nonMaximumSuppression`` model computes."""
    return each(NonMaximumSuppression(model.nonMaximumSuppression, tuple(outputs.values())).run)


class NonMaximumSuppression:
    """One such model; ``message`` is its part of the protobuf."""

    def __init__(self, message: Any, outputs: Sequence[TensorSpec]) -> None:
        self._message = message
        self._outputs = {spec.name: spec for spec in outputs}

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Return the confidences and coordinates of the boxes that are kept, best first."""
        message = self._message
        names = (message.coordinatesInputFeatureName, message.confidenceInputFeatureName)
        coordinates, confidence = (np.asarray(given(arrays, name), np.float32) for name in names)
        if coordinates.size % 4:
            raise ExecutionError(f"{coordinates.shape} coordinates are no boxes", "a box has four")
        coordinates = coordinates.reshape(-1, 4)
        if not len(coordinates) or confidence.size % len(coordinates):
            raise ExecutionError(
                f"{confidence.shape} confidences for {len(coordinates)} boxes", "both have a row for each box"
            )
        confidence = confidence.reshape(len(coordinates), -1)
        kept = self._keep(coordinates, confidence, arrays)
        return {
            message.confidenceOutputFeatureName: self._rows(message.confidenceOutputFeatureName, confidence[kept]),
            message.coordinatesOutputFeatureName: self._rows(message.coordinatesOutputFeatureName, coordinates[kept]),
        }

    def _keep(
        self, coordinates: NDArray[np.float32], confidence: NDArray[np.float32], arrays: Mapping[str, Any]
    ) -> NDArray[np.int64]:
        import torch

        from tlkit.mil.ops.kit.nms import select

        message = self._message
        least = _threshold(arrays, message.confidenceThresholdInputFeatureName, message.confidenceThreshold)
        overlap = _threshold(arrays, message.iouThresholdInputFeatureName, message.iouThreshold)
        # In the confidences' own type: 0.3 as a double is less than 0.3 as an f32.
        passing = np.flatnonzero(confidence.max(-1) >= np.float32(least))
        if not passing.size:
            return passing
        boxes, scores = torch.from_numpy(coordinates[passing]), torch.from_numpy(confidence[passing])
        # what is below the threshold is gone already
        found = select(boxes, scores, overlap, -np.inf, len(passing), bool(message.pickTop.perClass))
        kept: NDArray[np.int64] = passing[found.numpy()]
        return kept

    def _rows(self, name: str, found: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cut to the rows that the output may have, and fill up to those that it has to."""
        spec = self._outputs.get(name)
        if spec is None or len(spec.shape) != 2:
            return found
        low, high = spec.ranges[0] if spec.ranges else (spec.shape[0], spec.shape[0])
        cut = found if high is None else found[:high]
        said = budget.over(low * cut.shape[1])
        if said:
            raise ExecutionError(f"the output '{name}' has {said[0]}", said[1])
        return np.pad(cut, ((0, max(low - len(cut), 0)), (0, 0)))


def _threshold(arrays: Mapping[str, Any], name: str, otherwise: float) -> float:
    """Return a threshold that is given as an input, or the model's own."""
    return float(np.asarray(arrays[name]).reshape(-1)[0]) if name and name in arrays else float(otherwise)
