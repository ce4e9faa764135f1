"""The tables' largest errors against those published, and their published single values."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tlkit.mil.units import tables
from tlkit.mil.units.rounding import away

HALVES = torch.from_numpy(np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32))
FINITE = HALVES[HALVES.isfinite()]
POSITIVE = FINITE[FINITE > 0]
NORMAL = POSITIVE[POSITIVE >= 2.0**-14]


def gelu(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x)


@pytest.mark.parametrize(
    ("name", "true", "places", "published"),
    [
        ("sigmoid", torch.sigmoid, FINITE, 3.4e-3),
        ("tanh", torch.tanh, FINITE, 1.6e-3),
        ("gelu", gelu, FINITE, 6.2e-3),
        ("silu", torch.nn.functional.silu, FINITE, 1.5e-2),
        ("erf", torch.erf, FINITE, 8.6e-4),
        ("sin", torch.sin, FINITE[FINITE.abs() < 100], 6.3e-4),
        ("log", torch.log, NORMAL, 6.6e-3),
    ],
)
def test_largest_errors_are_the_published_ones(
    name: str, true: Callable[[torch.Tensor], torch.Tensor], places: torch.Tensor, published: float
) -> None:
    error = (away(getattr(tables, name)(places)).double() - true(places.double())).abs()
    # A large argument is passed on: what f16 rounds there is no error of the table.
    assert float(error[places.abs() < 16].max() if name in ("gelu", "silu") else error.max()) == pytest.approx(
        published, rel=0.15
    )


@pytest.mark.parametrize(
    ("name", "true", "published"),
    [
        ("exp", torch.exp, 9.1),
        ("sqrt", torch.sqrt, 1.2),
        ("rsqrt", torch.rsqrt, 2.1),
        ("inverse", torch.reciprocal, 13.5),
    ],
)
def test_largest_errors_in_steps_of_f16(
    name: str, true: Callable[[torch.Tensor], torch.Tensor], published: float
) -> None:
    places = FINITE if name == "exp" else POSITIVE
    wanted = true(places.double())
    inside = (wanted.abs() < 65504) & (wanted.abs() >= 2.0**-14)
    step = torch.exp2(torch.floor(torch.log2(wanted.abs())) - 10)
    error = (away(getattr(tables, name)(places)).double() - wanted).abs() / step
    assert float(error[inside].max()) == pytest.approx(published, rel=0.15)


def at(function: Callable[[torch.Tensor], torch.Tensor], x: float) -> float:
    return float(away(function(torch.tensor([x]))))


def test_published_single_values() -> None:
    assert at(tables.log, 0.0) == -45440.0
    assert at(tables.exp, 11.0859375) < math.inf and at(tables.exp, 11.09375) == math.inf
    assert at(tables.silu, 0.0) == pytest.approx(-1.26e-3, rel=1e-3)
    assert at(tables.gelu, 0.0) == pytest.approx(-7.5e-4, rel=1e-3)
    assert at(tables.softplus, 10.390625) == pytest.approx(10.39, rel=1e-3) and at(tables.softplus, 10.40625) == 0.0
    assert at(tables.inverse, -0.0) == math.inf
    assert [at(tables.sqrt, -1.0), at(tables.rsqrt, -1.0), at(tables.log, -1.0)] == [0.0] * 3
    assert [at(tables.sigmoid, 1e4), at(tables.tanh, 1e4), at(tables.erf, 1e4)] == [pytest.approx(1.0, abs=7e-4)] * 3


def test_a_sum_of_exponentials_beyond_f16_is_0() -> None:
    # 32 channels: published to fall from 11.10 to 0 at 7.63.
    below, above = (tables.log_sum_exp(torch.full((1, 32), x), [1], False) for x in (7.62109375, 7.62890625))
    assert float(away(below)) == pytest.approx(11.09, abs=0.02) and float(above) == 0.0


@pytest.mark.parametrize(
    "name",
    ["sigmoid", "tanh", "erf", "silu", "gelu", "softplus", "exp", "log", "sqrt", "rsqrt", "inverse", "sin", "cos"],
)
def test_no_value_gives_a_nan_and_lines_only_turn_where_the_function_does(name: str) -> None:
    """Of every f16 value, infinities and what a NaN is read as included; between knots nothing wavers."""
    function = getattr(tables, name)
    assert not away(function(torch.tensor([*HALVES[~HALVES.isnan()].tolist(), 98304.0]))).isnan().any()
    if name in ("sin", "cos"):
        return
    x = (POSITIVE if name in ("log", "sqrt", "rsqrt", "inverse") else FINITE).sort().values
    if name in ("silu", "gelu"):
        x = x[x > 0]  # below, both fall and rise
    if name == "softplus":
        x = x[x < 10.39]
    made = away(function(x))
    rises = torch.diff(made[made.isfinite()])
    assert bool((rises <= 0).all() if name in ("rsqrt", "inverse") else (rises >= 0).all())
    assert float(rises.abs().max()) > 0
