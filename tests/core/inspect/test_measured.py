"""Core ML's plan beside the prediction: pairs by hand, and on a Mac Core ML's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.formats import packages
from tlkit.core.inspect.inspect import inspect
from tlkit.core.inspect.measured import Pair, beside
from tlkit.engines.coreml.plan import PlannedOp
from tlkit.errors import UnavailableError, UsageError
from tlkit.mil.text.api import parse_program
from tlkit.placement.predict import Prediction, predict
from tlkit.types import Unit


def prediction() -> Prediction:
    shape = "tensor<fp16, [1, 512, 32, 32]>"
    body = f"""tensor<fp16, [512, 512, 1, 1]> w = const()[val = tensor<fp16, [512, 512, 1, 1]>(0x1p+0)];
    {shape} a = conv(x = x, weight = w)[name = string("first")]; {shape} b = conv(x = a, weight = w);
    {shape} c = sinh(x = b); {shape} y = conv(x = c, weight = w);"""
    text = f"program(1.3) {{ func main<ios18>({shape} x) {{ {body} }} -> (y); }}"
    return predict(parse_program(text, lambda name: None).function())


def test_differences_come_first_and_what_one_side_lacks_is_not_judged() -> None:
    plan = [
        PlannedOp("a", "ios18.conv", "ane", 0.5), PlannedOp("b", "ios18.conv", "cpu", 0.25),
        PlannedOp("c", "ios18.sinh", "unknown", None), PlannedOp("added", "ios18.cast", "cpu", 0.0),
    ]  # fmt: skip
    found = beside(prediction(), plan)
    assert found.agreement == 0.5
    assert found.pairs == (
        Pair("b", "conv", "cpu", "ane", 0.25, False),
        Pair("a", "conv", "ane", "ane", 0.5, True),
        Pair("c", "sinh", "unknown", "cpu", None, None),
        Pair("added", "cast", "cpu", None, 0.0, None),
        Pair("y", "conv", None, "ane", None, None),
    )


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has plans")
def test_off_a_mac_there_is_no_plan_and_the_reason_is_said(tmp_path: Path) -> None:
    net = packages.linear(tmp_path / "net.mlpackage")
    with pytest.raises(UsageError, match="--measured goes with --placement"):
        inspect(net, measured=True)
    with pytest.raises(UnavailableError) as caught:
        inspect(net, placement=True, measured=True)
    assert "Core ML" in str(caught.value) and caught.value.hint


@pytest.mark.macos
def test_a_plan_has_the_program_s_operations(tmp_path: Path) -> None:
    net = packages.linear(tmp_path / "net.mlpackage")
    found = inspect(net, placement=True, measured=True, units=(Unit.CPU, Unit.ALL))
    cpu, every = found.measured or ()
    assert {pair.planned for pair in cpu.pairs if pair.planned is not None} <= {"cpu", "unknown"}
    assert cpu.agreement == 1.0 and len(every.pairs) >= 1
