"""Palettes: no worse than what scikit-learn's k-means finds with several starts, and exact where values are few."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans

from tlkit.core.compress.palette import palette

Array = np.ndarray[Any, Any]


def drawn(kind: str, count: int) -> Array:
    rng = np.random.default_rng(0)
    return {"normal": rng.standard_normal, "tails": lambda n: rng.standard_t(3, n), "even": rng.random}[kind](count)


@pytest.mark.parametrize(("kind", "count", "bits"), [("normal", 3000, 4), ("tails", 2000, 4), ("even", 2500, 3)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_it_is_as_good_as_general_k_means(kind: str, count: int, bits: int, dtype: Any) -> None:
    values = drawn(kind, count).astype(dtype).reshape(10, -1)
    found, indices = palette(values, bits)
    assert found.dtype == values.dtype and indices.dtype == np.uint8 and indices.shape == (count,)
    wide = values.reshape(-1).astype(np.float64)
    error = float(((found.astype(np.float64)[indices] - wide) ** 2).sum())
    best = KMeans(1 << bits, n_init=3, tol=1e-6, random_state=0).fit(wide[:, None]).inertia_
    assert error <= 1.05 * best
    # Each value has the entry that is nearest.
    apart = np.abs(found.astype(np.float64)[None] - wide[:, None])
    assert np.array_equal(apart.min(1), np.abs(found.astype(np.float64)[indices] - wide))


@pytest.mark.parametrize("count", [5, 1 << 15])
def test_few_distinct_values_are_kept_exactly(count: int) -> None:
    values = np.resize(np.array([3.0, -1.5, 0.0, -65504.0], np.float16), count)
    found, indices = palette(values, 2)
    assert np.array_equal(found[indices], values)
    found, indices = palette(np.zeros(count, np.float32), 1)
    assert found.tolist() == [0.0, 0.0] and not indices.any()


def test_large_weights_keep_each_value_near() -> None:
    values = np.random.default_rng(1).standard_normal(40_000).astype(np.float16)
    found, indices = palette(values, 8)
    noise = found[indices].astype(np.float64) - values
    # Eight bits of the best palette for a normal distribution: about 43 dB (Max, 1960, extrapolated).
    assert 10 * np.log10(np.square(values.astype(np.float64)).sum() / np.square(noise).sum()) > 42
