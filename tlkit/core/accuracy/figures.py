"""Figures of a classifier's answers: shares that are right, by class, and how far its probabilities can be believed.

Pure functions of numpy arrays. Below, N is samples and K classes; classes are numbers from 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_BINS = 15
_SUM = 1e-2  # how far from 1 the sum of a distribution may be, in f16


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One class: how many samples have it, how many of those are found (recall), how many answers of it are right
    (precision), and the harmonic mean of the two (f1); None where nothing of the kind was there."""

    label: str
    samples: int
    recall: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many samples of the class ``label`` were said to be ``answer``."""

    label: str
    answer: str
    samples: int


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Answers with a probability over ``low`` and up to ``high``: how many, their mean probability (``confidence``) and
    the share of them that is right (``accuracy``)."""

    low: float
    high: float
    samples: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """How far probabilities are from the share that is right, over the bins that are not empty.

    ``ece`` is the expected calibration error, the mean of |accuracy - confidence| weighted by samples (Guo et al.,
    2017, eq. 3), ``mce`` the largest of them, ``nll`` the mean negative logarithm of the true class's probability in
    nats, ``brier`` the mean of sum (p - truth)^2. ``softmax``: the model gives scores, and these are of their softmax.
    """

    ece: float
    mce: float
    nll: float
    brier: float
    softmax: bool
    bins: tuple[CalibrationBin, ...]


def rank(scores: Array, label: int) -> int:
    """Return how many classes come before ``label`` in ``scores`` (K,): those that score higher, and of equal ones
    those that are listed before it. All K where its score is NaN."""
    mine = scores[label]
    if np.isnan(mine):
        return len(scores)
    higher = scores > mine
    return int(higher.sum() + (scores[:label] == mine).sum())


def matrix(labels: Sequence[int], answers: Sequence[int], count: int) -> NDArray[np.int64]:
    """Return the confusion matrix (count, count): rows are the true classes, columns the answers; -1 is none."""
    found = np.zeros((count, count), np.int64)
    pairs = [(label, answer) for label, answer in zip(labels, answers, strict=True) if answer >= 0]
    if pairs:
        np.add.at(found, tuple(np.array(pairs).T), 1)
    return found


def by_class(found: NDArray[np.int64], names: Sequence[str], support: Sequence[int]) -> tuple[ClassFigures, ...]:
    """Return the figures of each class of a confusion matrix that has samples or answers."""
    right, answered = np.diagonal(found), found.sum(0)
    rows = []
    for index, name in enumerate(names):
        if not support[index] and not answered[index]:
            continue
        recall = float(right[index] / support[index]) if support[index] else None
        precision = float(right[index] / answered[index]) if answered[index] else None
        both = support[index] + answered[index]
        rows.append(ClassFigures(name, int(support[index]), recall, precision, float(2 * right[index] / both)))
    return tuple(rows)


def confusions(found: NDArray[np.int64], names: Sequence[str]) -> tuple[Confusion, ...]:
    """Return every pair of a confusion matrix that occurred, right answers among them, by class."""
    return tuple(Confusion(names[row], names[column], int(found[row, column])) for row, column in np.argwhere(found))


def interval(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, 1927)."""
    z, share = 1.959964, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def probabilities(scores: Array) -> tuple[Array, bool]:
    """Return ``scores`` (N, K) as distributions, and whether that took a softmax: they were none."""
    scores = np.asarray(scores, np.float64)
    if (scores >= 0).all() and (np.abs(scores.sum(1) - 1) <= _SUM).all():
        return scores, False
    shifted = np.exp(scores - scores.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True), True


def calibration(scores: Array, labels: Sequence[int], bins: int = _BINS) -> CalibrationFigures:
    """Return how far the probabilities of ``scores`` (N, K), all finite, can be believed; ``bins`` of equal width."""
    shares, softmax = probabilities(scores)
    truth = np.asarray(labels)
    answers, sure = shares.argmax(1), shares.max(1)
    right = answers == truth
    # Over the lower end and up to the higher one, as Guo et al. have it.
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    rows = []
    for index in range(bins):
        inside = place == index
        if inside.any():
            confidence, accuracy = float(sure[inside].mean()), float(right[inside].mean())
            rows.append(CalibrationBin(index / bins, (index + 1) / bins, int(inside.sum()), confidence, accuracy))
    gaps = [(abs(row.accuracy - row.confidence), row.samples) for row in rows]
    mine = shares[np.arange(len(truth)), truth]
    targets = np.zeros_like(shares)
    targets[np.arange(len(truth)), truth] = 1
    return CalibrationFigures(
        sum(gap * count for gap, count in gaps) / len(truth),
        max(gap for gap, _ in gaps),
        float(-np.log(np.maximum(mine, np.finfo(np.float64).tiny)).mean()),
        float(((shares - targets) ** 2).sum(1).mean()),
        softmax,
        tuple(rows),
    )
