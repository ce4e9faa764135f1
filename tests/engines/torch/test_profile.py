"""What operations cost, measured one by one: the counts exactly, and what bounds them by a roofline given by hand.

Covers tlkit/engines/torch/roofline.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.mil.programs import call, constant, function, tensor
from tlkit.engines.torch.engine import TorchEngine
from tlkit.engines.torch.profile import costs, profile
from tlkit.engines.torch.roofline import Roofline, roofline


@pytest.fixture
def engine() -> TorchEngine:
    """A linear layer of rows whose number is open, and a relu."""
    rows = tensor("fp32", None, 32)
    weight = np.ones((64, 32), np.float32)
    made = tensor("fp32", None, 64)
    net = function(
        {"x": rows},
        [constant("w", weight, "fp32"), call("linear", "y", made, x="x", weight="w"), call("relu", "z", made, x="y")],
        ["z"],
    )
    return TorchEngine(net, precision="f32")


def test_operations_are_counted_by_the_shapes_that_they_met(engine: TorchEngine) -> None:
    found = {item.type: item for item in profile(engine, {"x": np.ones((7, 32), np.float32)})}
    linear, relu = found["linear"], found["relu"]
    assert linear.macs == 7 * 64 * 32 and relu.macs == 0
    assert linear.nbytes >= 4 * (7 * 32 + 64 * 32 + 7 * 64) and relu.nbytes == 4 * 2 * 7 * 64
    assert "7x32" in linear.inputs and relu.inputs == relu.outputs == ("7x64",)
    assert len(linear.times) == 6 and linear.nanoseconds > 0


def test_rates_follow_from_times(engine: TorchEngine) -> None:
    found = profile(engine, {"x": np.ones((7, 32), np.float32)})
    for item, told in zip(found, costs(engine, found), strict=True):
        assert told["gmacs_per_s"] * told["nanoseconds"] == pytest.approx(item.macs)
        assert told["gb_per_s"] * told["nanoseconds"] == pytest.approx(item.nbytes)
        assert told["bound"] in ("arithmetic", "memory", "overhead")


@pytest.mark.parametrize(
    ("nanoseconds", "macs", "nbytes", "bound"),
    [
        (1000, 90_000, 100, "arithmetic"),  # 900 ns of arithmetic at 100 a nanosecond
        (1000, 1_000, 9_000, "memory"),
        (1000, 1_000, 100, "overhead"),
        (1000, 0, 9_000, "memory"),
        (1000, 0, 0, "overhead"),
    ],
)
def test_what_takes_longest_by_the_roofline_bounds(nanoseconds: int, macs: int, nbytes: int, bound: str) -> None:
    assert Roofline(100.0, 10.0).bound(nanoseconds, macs, nbytes) == bound


def test_a_device_is_measured_once() -> None:
    first = roofline(torch.device("cpu"))
    assert first.gmacs_per_s > 0 and first.gb_per_s > 0 and roofline(torch.device("cpu")) is first
