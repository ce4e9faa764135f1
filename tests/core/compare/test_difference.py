from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlkit.core.compare import difference as compare
from tlkit.errors import UsageError

VECTORS = st.lists(st.floats(-1e6, 1e6).filter(lambda x: not 0 < abs(x) < 1e-3), min_size=1, max_size=20)


def test_figures_worked_by_hand() -> None:
    found = compare.difference(np.array([0.0, 3.0, 4.0]), np.array([0.0, 3.0, 2.0]))
    assert found.max_abs == 2
    assert found.relative == 0.5  # of a range of 4
    assert found.cosine == pytest.approx((9 + 8) / (5 * math.sqrt(13)))
    assert found.snr_db == pytest.approx(10 * math.log10(25 / 4))
    assert found.equal == pytest.approx(2 / 3)
    assert found.not_finite == 0


@given(VECTORS)
def test_a_vector_agrees_with_itself(values: list[float]) -> None:
    found = compare.difference(np.array(values), np.array(values))
    assert (found.max_abs, found.relative, found.snr_db, found.equal) == (0, 0, math.inf, 1)
    assert found.cosine == pytest.approx(1)


@given(VECTORS, st.floats(0.1, 10))
def test_the_cosine_is_blind_to_scale_and_the_ratio_is_not(values: list[float], scale: float) -> None:
    vector = np.array(values)
    assert compare.cosine(vector, vector * scale) == pytest.approx(1)
    if vector.any():
        assert compare.snr_db(vector, vector * 2) == pytest.approx(0)  # the noise is as large as the signal


def test_large_values_do_not_overflow() -> None:
    huge = np.array([1e200, 1e200])
    assert compare.cosine(huge, huge) == pytest.approx(1)
    assert compare.cosine(huge, -huge) == pytest.approx(-1)


def test_zero_vectors() -> None:
    zero, one = np.zeros(3), np.ones(3)
    assert compare.cosine(zero, zero) == 1
    assert compare.cosine(zero, one) == 0
    assert compare.span(zero) == 1
    assert compare.span(one) == 1  # constant: its magnitude stands in for its range
    assert compare.snr_db(zero, one) == -math.inf


def test_values_that_are_not_finite_count_where_they_differ() -> None:
    nan, inf = math.nan, math.inf
    found = compare.difference(np.array([1, nan, inf, inf, 2]), np.array([1, nan, inf, -inf, nan]))
    assert found.not_finite == 2
    assert found.max_abs == 0


def test_shapes() -> None:
    assert compare.difference(np.float32(3), np.array([3.0])).max_abs == 0
    with pytest.raises(UsageError, match="2x3 and 3x2"):
        compare.difference(np.zeros((2, 3)), np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("precision", "actual", "passes"),
    [
        ("f16", [1.001, 2.0, 3.0], True),
        ("f16", [2.0, 4.0, 6.0], False),  # the cosine alone would pass it
        ("f16", [3.0, 2.0, 1.0], False),
        ("f16", [1.0, 2.0, math.nan], False),
        ("f32", [1.0001, 2.0, 3.0], True),
        ("f32", [1.001, 2.0, 3.0], False),
    ],
)
def test_tolerances(precision: str, actual: list[float], passes: bool) -> None:
    found = compare.difference(np.array([1.0, 2.0, 3.0]), np.array(actual))
    assert (not compare.TOLERANCES[precision].breaches(found)) is passes


def test_integers_are_judged_by_equality() -> None:
    limits = compare.TOLERANCES["f16"]
    found = compare.difference(np.array([100, 200]), np.array([100, 201]))
    assert limits.breaches(found, integer=True)
    assert not limits.breaches(found)


def test_the_largest_number_of_a_type_stands_for_an_infinity_that_the_reference_has() -> None:
    inf, largest = math.inf, float(np.finfo(np.float32).max)
    reference = np.array([1.0, -inf, inf, -inf, 2.0])
    found = compare.difference(reference, np.array([1.0, -65504.0, largest, -inf, 2.0]))
    assert (found.not_finite, found.clipped, found.max_abs) == (0, 2, 0)
    assert not compare.TOLERANCES["f16"].breaches(found) and not compare.TOLERANCES["f32"].breaches(found)
    assert compare.worst([found, found]).clipped == 4
    (phrase,) = compare.EXACT.breaches(found)  # of one program, the same is asked
    assert phrase.startswith("2 of 5")
    for other in (
        [1, 65504, inf, -inf, 2],
        [1, -65503, inf, -inf, 2],
        [1, math.nan, inf, -inf, 2],
        [1, inf, inf, -inf, 2],
    ):
        assert compare.difference(reference, np.array(other)).not_finite == 1
    # The other way round a finite value left the range: that is a difference.
    assert compare.difference(np.array([-70000.0, 1.0]), np.array([-inf, 1.0])).not_finite == 1


def test_no_finite_value_is_within_a_share_of_an_infinite_one() -> None:
    limits = compare.Tolerance(cosine=-1, rtol=0.1)
    reference = np.array([math.inf, -math.inf, 1.0])
    assert limits.outside(reference, np.array([math.inf, -1e30, 1.05])) == ()
    assert limits.outside(reference, np.array([5.0, 1e30, 1.05])) == ("2 of 3 values outside atol 0, rtol 0.1",)
