"""Statistics of tensors held against numpy on the whole array at once, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tlkit.core.inspect.stats import TensorStats, tensor_stats
from tlkit.formats.numpy_files import NumpyFile
from tlkit.formats.safetensors.read import SafeTensorsFile

SPECIALS = [
    0.0,
    -0.0,
    np.inf,
    -np.inf,
    np.nan,
    65504.0,
    65519.0,
    65520.0,
    -7e4,
    2.0**-25,
    2.0**-24,
    -1e-30,
    3e38,
    1e-45,
]


def stats(path: Path, value: Any) -> TensorStats:
    np.save(path, value)
    found = NumpyFile(path)
    return tensor_stats(found, found.entries()[0])


def check(found: TensorStats, value: Any) -> None:
    wide = value.astype(np.float64).ravel()
    finite = wide[np.isfinite(wide)]
    assert found.elements == wide.size
    assert (found.nan, found.inf) == (np.isnan(wide).sum(), np.isinf(wide).sum())
    assert found.zeros == (wide == 0).sum()
    with np.errstate(over="ignore"):
        half = finite.astype(np.float16)
    assert found.over_f16 == np.isinf(half).sum()
    assert found.under_f16 == ((half == 0) & (finite != 0)).sum()
    if not finite.size:
        assert (found.min, found.max, found.mean, found.std) == (None,) * 4
        return
    assert (found.min, found.max) == (finite.min(), finite.max())
    size = float(np.abs(finite).max()) or 1.0
    assert found.mean == pytest.approx(finite.mean(), abs=1e-6 * size)
    with np.errstate(over="ignore"):
        assert found.std == pytest.approx(finite.std(), abs=1e-5 * size)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    values=st.lists(st.sampled_from(SPECIALS) | st.floats(width=32), max_size=30),
    kind=st.sampled_from(["f2", "f4", "f8", ">f4"]),
    repeat=st.sampled_from([1, 3000]),
)
def test_floats(tmp_path_factory: pytest.TempPathFactory, values: list[float], kind: str, repeat: int) -> None:
    with np.errstate(over="ignore"):
        value = np.tile(np.array(values, np.float64).astype(kind), repeat)
    check(stats(tmp_path_factory.mktemp("s") / "x.npy", value), value)


@pytest.mark.parametrize("kind", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8"])
def test_integers(tmp_path: Path, kind: str) -> None:
    value = np.random.default_rng(0).integers(0, 100, (300, 700)).astype(kind)
    check(stats(tmp_path / "x.npy", value), value)


def test_a_large_mean_does_not_cancel_the_spread(tmp_path: Path) -> None:
    value = (1e4 + np.random.default_rng(0).standard_normal(500_000)).astype(np.float32)
    found = stats(tmp_path / "x.npy", value)
    assert found.std == pytest.approx(value.astype(np.float64).std(), rel=1e-4)


def test_values_that_cannot_be_squared(tmp_path: Path) -> None:
    value = np.array([1e30, -1e30, 2e30], np.float32)
    assert stats(tmp_path / "x.npy", value).std == pytest.approx(value.astype(np.float64).std())
    value = np.array([1e200, -1e200])
    assert stats(tmp_path / "y.npy", value).std == np.inf


def test_turned_arrays_and_other_types(tmp_path: Path) -> None:
    value = np.asfortranarray(np.random.default_rng(0).standard_normal((40, 50)))
    check(stats(tmp_path / "x.npy", value), value)
    brain = torch.randn(1000).to(torch.bfloat16)
    save_file({"x": brain}, tmp_path / "x.safetensors")
    found = SafeTensorsFile(tmp_path / "x.safetensors")
    check(tensor_stats(found, found.entries()[0]), brain.to(torch.float32).numpy())


def test_progress_adds_up_to_the_tensor(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(300_000, np.float32))
    found = NumpyFile(tmp_path / "x.npy")
    heard: list[int] = []
    tensor_stats(found, found.entries()[0], heard.append)
    assert sum(heard) == 1_200_000 and len(heard) > 3
