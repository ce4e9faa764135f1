"""Prices against what is published of them, and the data file against the script that makes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlkit.mil.text.api import parse_program
from tlkit.mil.work import Step, steps
from tlkit.placement import prices
from tlkit.placement.facts import rates
from tlkit.placement.prices import microseconds


def step(body: str, inputs: str) -> Step:
    text = f"program(1.3) {{ func main<ios18>({inputs}) {{ {body} }} -> (y); }}"
    return list(steps(parse_program(text, lambda name: None).function()))[-1]


def conv(size: int, out: int = 32, how: str = "") -> Step:
    kind = f"tensor<fp16, [64, 64, {size}, {size}]>"
    weight = f"{kind} w = const()[val = {kind}(0x1p+0)];"
    return step(
        f"{weight} tensor<fp16, [1, 64, {out}, {out}]> y = conv(x = x, weight = w{how});",
        "tensor<fp16, [1, 64, 32, 32]> x",
    )


def linear(rows: int, inner: int, outer: int) -> Step:
    kind = f"tensor<fp16, [{outer}, {inner}]>"
    weight = f"{kind} w = const()[val = {kind}(0x1p+0)];"
    return step(
        f"{weight} tensor<fp16, [1, {rows}, {outer}]> y = linear(x = x, weight = w);",
        f"tensor<fp16, [1, {rows}, {inner}]> x",
    )


@pytest.mark.parametrize(
    ("made", "unit", "published"),
    [
        (conv(3), "ane", 4.67428),
        (conv(3), "cpu", 100.06388),
        (conv(1), "ane", 1.17),
        (conv(1), "cpu", 21.62),
        (linear(128, 256, 512), "ane", 3.17112),
        (linear(64, 256, 256), "ane", 14.452),
        (linear(64, 256, 256), "cpu", 372.1),
    ],
)
def test_a_published_price_is_met(made: Step, unit: str, published: float) -> None:
    assert microseconds(made, unit) == pytest.approx(published, rel=0.01)


def test_a_chip_has_its_own_prices() -> None:
    """3072 -> 768 is sixteen times dearer than 768 -> 3072 on an M4 Pro, as published."""
    wide, narrow = (microseconds(linear(2048, *sizes), "ane", "M4 Pro") for sizes in ((768, 3072), (3072, 768)))
    assert (wide, narrow) == (pytest.approx(182, rel=0.01), pytest.approx(2920, rel=0.01))


def test_the_gpu_is_never_cheaper_for_a_convolution() -> None:
    for chip in ("M4", "M4 Pro"):
        assert microseconds(conv(3), "gpu", chip) > microseconds(conv(3), "ane", chip)


def test_kinds() -> None:
    whole = "tensor<fp16, [1, 4]> x"
    assert prices.kind(step("tensor<fp16, [1, 4]> y = add(x = x, y = x);", whole)) == "binary"
    assert prices.kind(step("tensor<fp16, [1, 4]> y = mul(x = x, y = fp16(0x1p+1));", whole)) == "scalar"
    assert (prices.kind(linear(2, 4, 4)), prices.kind(linear(2, 8, 4))) == ("linear-square", "linear-narrow")


def test_the_file_is_what_the_script_makes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root))
    from benchmarks.planner_prices import fit, samples, table

    made = table(fit(samples()))
    assert made == (root / "tlkit/placement/data/prices.csv").read_text(encoding="utf-8")
    assert len(rates()) == len(made.splitlines()) - 3
