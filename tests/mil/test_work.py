"""Multiply-accumulates counted by hand, and by the networks' published figures."""

from __future__ import annotations

import pytest

from tlkit.mil.text.api import parse_program
from tlkit.mil.work import steps

TEXT = """program(1.3) {{ func main<ios18>(tensor<fp16, {shape}> x) {{
  tensor<fp16, {weight}> w = const()[val = tensor<fp16, {weight}>(0x1p+0)];
  tensor<fp16, {out}> y = {call}; }} -> (y); }}"""


@pytest.mark.parametrize(
    ("shape", "weight", "out", "call", "macs"),
    [
        ("[1, 3, 224, 224]", "[64, 3, 7, 7]", "[1, 64, 112, 112]", "conv(x = x, weight = w)", 64 * 112 * 112 * 3 * 49),
        ("[1, 64, 8, 8]", "[64, 1, 3, 3]", "[1, 64, 8, 8]", "conv(x = x, weight = w)", 64 * 64 * 9),
        ("[1, 64, 8, 8]", "[64, 32, 2, 2]", "[1, 32, 16, 16]", "conv_transpose(x = x, weight = w)", 64 * 64 * 32 * 4),
        ("[2, 7, 16]", "[32, 16]", "[2, 7, 32]", "linear(x = x, weight = w)", 2 * 7 * 32 * 16),
        ("[2, 7, 16]", "[16, 5]", "[2, 7, 5]", "matmul(x = x, y = w)", 2 * 7 * 5 * 16),
        ("[2, 16, 7]", "[16, 5]", "[2, 7, 5]", "matmul(x = x, y = w, transpose_x = bool(true))", 2 * 7 * 5 * 16),
        ("[4]", "[4]", "[4]", "add(x = x, y = w)", 0),
    ],
)
def test_macs_by_hand(shape: str, weight: str, out: str, call: str, macs: int) -> None:
    text = TEXT.format(shape=shape, weight=weight, out=out, call=call)
    (step,) = steps(parse_program(text, lambda name: None).function())
    assert step.macs == macs
    assert step.weights == () or step.weights[0].name == "w"


@pytest.mark.slow
def test_resnet_50_has_4_1_gigamacs() -> None:
    """4.09 G for the convolutions and the classifier, as torchvision's page says of ResNet-50 (V1)."""
    from tlkit.core.convert.builtin import package
    from tlkit.formats.coreml.open import open_package

    program = open_package(package("resnet50")).program
    assert program is not None
    assert sum(step.macs for step in steps(program.function())) == pytest.approx(4.09e9, rel=2e-3)
