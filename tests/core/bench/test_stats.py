"""Statistics against numpy and the statistics module."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlkit.core.bench.stats import percentile, samples_for, summarize

samples = st.lists(st.integers(1, 10**12), min_size=1, max_size=300)


@given(samples, st.floats(0, 100))
def test_percentile_is_numpys_default(values: list[int], p: float) -> None:
    assert percentile(sorted(values), p) == pytest.approx(np.percentile(values, p), rel=1e-9)


@given(samples)
def test_summary_is_numpys_and_pythons(values: list[int]) -> None:
    found = summarize(values, (50, 90))
    assert found.count == len(values)
    assert (found.min_ns, found.max_ns) == (min(values), max(values))
    assert found.median_ns == statistics.median(values)
    assert found.mean_ns == pytest.approx(np.mean(values))
    assert found.std_ns == pytest.approx(np.std(values, ddof=1) if len(values) > 1 else 0.0, rel=1e-6, abs=1e-6)
    assert found.throughput == pytest.approx(1e9 / np.mean(values))
    assert found.percentiles_ns["p50"] == statistics.median(values)


def test_closed_form() -> None:
    found = summarize([4_000_000, 1_000_000, 3_000_000, 2_000_000, 5_000_000], (50, 75))
    assert found.median_ns == found.mean_ns == 3_000_000
    assert found.std_ns == pytest.approx(2.5**0.5 * 1e6)
    assert found.percentiles_ns == {"p50": 3_000_000, "p75": 4_000_000}
    assert found.throughput == pytest.approx(1000 / 3)


@pytest.mark.parametrize(
    ("p", "needed"), [(50, 1), (90, 10), (95, 20), (99, 100), (99.9, 1000), (1, 100), (0, 1), (100, 1)]
)
def test_a_percentile_needs_samples_beyond_it(p: float, needed: int) -> None:
    assert samples_for(p) == needed
    key = f"p{p:g}"
    assert summarize([1] * needed, (p,)).percentiles_ns[key] is not None
    if needed > 1:
        assert summarize([1] * (needed - 1), (p,)).percentiles_ns[key] is None
