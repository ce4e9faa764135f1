"""Small floats against ``ml_dtypes``-independent oracles: torch's own conversions, and the specifications' extremes."""

from __future__ import annotations

import math

import pytest
import torch

from tlkit.mil.small_floats import SMALL_FLOATS, values

TORCH = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
}
# The OCP MX specification, section 5.3: the largest, the smallest normal and the smallest subnormal number.
EXTREMES = {"F6_E2M3": (7.5, 1.0, 0.125), "F6_E3M2": (28.0, 0.25, 0.0625), "F4": (6.0, 1.0, 0.5)}


@pytest.mark.parametrize("name", TORCH)
def test_every_code_is_torchs(name: str) -> None:
    expected = torch.arange(256, dtype=torch.uint8).view(TORCH[name]).to(torch.float64)
    found = torch.tensor(values(name), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(found.signbit(), expected.signbit()) or found.isnan().any()


@pytest.mark.parametrize("name", EXTREMES)
def test_extremes_are_the_specifications(name: str) -> None:
    found = sorted({abs(value) for value in values(name)} - {0.0})
    kind = SMALL_FLOATS[name]
    assert (found[-1], kind.number(1 << kind.mantissa), found[0]) == EXTREMES[name]
    half = len(values(name)) // 2
    assert [-value for value in values(name)[half:]] == list(values(name)[:half])
    assert math.copysign(1, values(name)[half]) == -1
