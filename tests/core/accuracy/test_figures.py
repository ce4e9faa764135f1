"""Figures of classifiers beside scikit-learn's, on seeded scores."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from tlkit.core.accuracy import figures


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Scores of 300 samples and 9 classes that are right about half of the time, and labels without class 4."""
    rng = np.random.default_rng(3)
    labels = rng.choice([0, 1, 2, 3, 5, 6, 7, 8], 300)
    scores = rng.normal(size=(300, 9))
    scores[np.arange(300), labels] += 1.5
    return scores, labels


def test_confusions_and_classes_are_scikit_learns(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = drawn
    answers = scores.argmax(1)
    found = figures.matrix(labels.tolist(), answers.tolist(), 9)
    assert np.array_equal(found, metrics.confusion_matrix(labels, answers, labels=range(9)))
    names = [f"class {index}" for index in range(9)]
    rows = figures.by_class(found, names, np.bincount(labels, minlength=9).tolist())
    wanted = metrics.precision_recall_fscore_support(labels, answers, labels=range(9), zero_division=0)
    for row, precision, recall, f1, support in zip(rows, *wanted, strict=True):
        assert row.samples == support and row.f1 == pytest.approx(f1)
        assert (row.recall or 0) == pytest.approx(recall) and (row.precision or 0) == pytest.approx(precision)
    assert rows[4].recall is None and rows[4].precision == 0
    pairs = figures.confusions(found, names)
    assert sum(item.samples for item in pairs) == 300 and all(item.label != "class 4" for item in pairs)


def test_ranks_are_scikit_learns_and_a_nan_is_last(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = drawn
    ranks = [figures.rank(row, label) for row, label in zip(scores, labels, strict=True)]
    for k in (1, 3, 5):
        wanted = metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(9))
        assert np.mean([rank < k for rank in ranks]) == pytest.approx(wanted)
    assert figures.rank(np.array([1.0, 2.0, 2.0, np.nan]), 2) == 1
    assert figures.rank(np.array([1.0, 2.0, 2.0, np.nan]), 3) == 4


def test_calibration_is_what_its_definition_says(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = drawn
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    found = figures.calibration(scores, labels.tolist())
    assert found.softmax and not figures.calibration(shares, labels.tolist()).softmax
    assert found.nll == pytest.approx(metrics.log_loss(labels, shares, labels=range(9)))
    truth = np.eye(9)[labels]
    assert found.brier == pytest.approx(np.mean(np.sum((shares - truth) ** 2, 1)))
    sure, right, total = shares.max(1), shares.argmax(1) == labels, 0.0
    for low in range(15):
        inside = [i for i in range(300) if low / 15 < sure[i] <= (low + 1) / 15]
        if inside:
            total += abs(np.mean(right[inside]) - np.mean(sure[inside])) * len(inside) / 300
    assert found.ece == pytest.approx(total) and total > 0.02
    assert sum(item.samples for item in found.bins) == 300
    # One that is always sure and half of the time right is wrong by a half.
    sure_of_all = figures.calibration(np.array([[1.0, 0.0], [1.0, 0.0]]), [0, 1])
    assert sure_of_all.ece == sure_of_all.mce == 0.5


def test_the_interval_is_wilsons() -> None:
    low, high = figures.interval(8, 10)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Agresti and Coull, 1998
    assert figures.interval(5, 5)[1] == 1 and 0.5 < figures.interval(5, 5)[0] < 0.6
