"""Inputs near the steps of a model, against where the steps are known to be.

Covers tlkit/core/convert/capture/jumps.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tlkit.core.convert.capture.study import study
from tlkit.core.convert.capture.ties import near_steps
from tlkit.ports.parse import parse_ports
from tlkit.ports.port import example


class Net(nn.Module):
    """A module that computes ``body`` of its inputs."""

    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.linear = body, nn.Linear(8, 8)

    def forward(self, *inputs: Tensor) -> Any:
        return self.body(self, *inputs)


def found(body: Callable[..., Any], *inputs: str, seed: int = 5) -> list[tuple[np.ndarray[Any, Any], ...]]:
    module, ports = Net(body).eval(), tuple(map(example, parse_ports(inputs, ())))
    return list(near_steps(module, study(module, ports, seed), seed + 1).values())


@pytest.mark.parametrize(
    ("body", "step"),
    [
        (lambda net, x: torch.floor(x * 4), 0.25),
        (lambda net, x: x // 0.5, 0.5),
        (lambda net, x: torch.remainder(x, 0.5) + 1, 0.5),
        (lambda net, x: torch.fmod(x, 0.5) + 1, 0.5),
        (lambda net, x: torch.frac(x * 5) + 1, 0.2),
        (lambda net, x: (x * 2).to(torch.int64) + 1, 0.5),
        (lambda net, x: torch.div(x, 0.5, rounding_mode="floor"), 0.5),
        (lambda net, x: torch.bucketize(x[None].squeeze(0), torch.arange(-8, 8) * 0.5), 0.5),
    ],
)
def test_inputs_lie_at_the_steps_nearer_than_f16_tells_and_on_both_sides(body: Any, step: float) -> None:
    (near,), (simple,) = found(body, "x=6x8")
    off = near / step - np.rint(near / step)
    at = np.abs(off) < 2.0**-10
    assert at.mean() > 0.6 and (off[at] > 0).any() and (off[at] < 0).any()
    # Exactly on the step: the number that one would write there.
    np.testing.assert_allclose(simple[at] / step, np.rint(simple[at] / step), atol=1e-6)


def test_each_of_several_steps_gets_its_places() -> None:
    near, _ = found(lambda net, x: (torch.sign(x - 0.3), (x > -0.6) * 1.0), "x=6x8")
    for step in (0.3, -0.6):
        assert (np.abs(near[0] - step) < 1e-3).sum() > 4


def test_integers_lie_on_both_sides_of_a_step_of_what_is_computed_from_them() -> None:
    near, _ = found(lambda net, i: torch.floor(i.float() / 7), "i=32:i32")
    assert set(near[0][near[0] >= 0] % 7) & {0, 6} and np.isin(near[0] % 7, (0, 6)).mean() > 0.8


def test_a_step_of_a_part_and_one_among_several_values_are_found() -> None:
    near, _ = found(lambda net, x: torch.floor(x[..., 0] * 4) + x[..., 1], "x=1x9x2")
    assert (np.abs(near[0][..., 0] * 4 - np.rint(near[0][..., 0] * 4)) < 0.01).mean() > 0.6


@pytest.mark.parametrize(
    "body",
    [
        lambda net, x: torch.floor(net.linear(x) * 4),  # a step of sums: no place of its own
        lambda net, x: torch.relu(x) + x.clamp(0, 1),
        lambda net, x: x.argmax(-1) + x.sum(),
    ],
)
def test_other_models_have_none(body: Any) -> None:
    assert found(body, "x=6x8") == []
