"""Figures of classes, distributions and masks against their definitions, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tlkit.core.compare.figures import DECADES, Tally, iou, kl_divergence, top_agreement


def test_the_top_class_is_each_rows_own() -> None:
    r = np.array([[1.0, 2.0, 3.0], [9.0, 2.0, 3.0]])
    a = np.array([[1.0, 3.0, 2.0], [9.0, 2.0, 3.0]])
    assert top_agreement(r, a, 1) == 0.5
    assert top_agreement(r, a, 2) == 1.0
    assert top_agreement(r, a, 5) is None  # three classes are no choice of five
    assert top_agreement(r, np.array([[np.nan] * 3, [9.0, 2, 3]]), 1) == 0.5
    assert top_agreement(r.astype(np.int32), a.astype(np.int32), 1) is None


def test_divergence_is_of_distributions_only() -> None:
    r, a = np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([[0.5, 0.5], [0.5, 0.5]])
    wanted = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert kl_divergence(r, a) == pytest.approx(wanted)
    assert kl_divergence(r * 2, a) is None
    assert kl_divergence(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])) == pytest.approx(
        0.5 * math.log(0.5) + 0.5 * math.log(0.5 * 2**24)
    )


def test_masks_are_labels_scores_or_what_is_above_the_middle() -> None:
    r = np.array([[0, 1, 1, 2]])
    assert iou(r, np.array([[0, 1, 2, 2]])) == pytest.approx((1 / 2 + 1 / 2) / 2)
    scores = np.stack([r == label for label in range(3)], 1)[:, :, None].astype(np.float32)  # 1 x 3 x 1 x 4
    assert iou(scores, scores * 0.1) == 1
    assert iou(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.9, 0.9, 0.2])) == pytest.approx(1 / 3)


def test_the_worst_input_is_named_and_errors_are_counted_by_decade() -> None:
    tally = Tally({"y": "z"})
    r = np.array([1.0, 2.0, 4.0, 8.0])
    tally("near", "y", r, r + 1e-5)
    tally("far", "y", r, r + np.array([0.0, 0.0, 0.02, 3.0]))
    (found,) = tally.figures()
    assert (found.worst, tally.worst_case(), found.other) == ("far", "far", "z")
    assert found.difference.max_abs == pytest.approx(3.0)
    assert sum(found.errors) == 8
    assert found.errors[1 + DECADES.index(0)] == 1 and found.errors[1 + DECADES.index(-2)] == 1
    # 1e-5 is at a bound, where rounding may put it on either side.
    assert found.errors[DECADES.index(-5)] + found.errors[1 + DECADES.index(-5)] == 4


def test_an_input_with_a_nan_is_worse_than_any_distance() -> None:
    tally = Tally()
    tally("far", "y", np.ones(3), np.zeros(3))
    tally("nan", "y", np.array([1.0, np.nan, 2.0]), np.array([np.nan, np.nan, 2.0]))
    assert tally.worst_case() == "nan" and tally.figures()[0].not_finite == 1
