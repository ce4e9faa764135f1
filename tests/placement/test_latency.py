"""Estimated latencies against the formula written out plainly, and the calibration that they rest on."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tlkit.mil.text.api import parse_program
from tlkit.mil.work import steps
from tlkit.placement.facts import chips
from tlkit.placement.latency import Calibration, Work, calibrations, estimate, microseconds, powers, speeds, work
from tlkit.placement.predict import predict
from tlkit.types import Unit

BY = Calibration("ane", 4.0, 2.0, 1.0, 50.0, 100.0, 80.0, 3.0, 70.0, 1.4, 40, 20, 0.1, 90.0)
CONV = """program(1.3) { func main<ios18>(tensor<fp16, [1, 512, 64, 64]> x) {
  tensor<fp16, [512, 512, 3, 3]> w = const()[val = tensor<fp16, [512, 512, 3, 3]>(0x1p+0)];
  tensor<fp16, [1, 512, 62, 62]> a = conv(x = x, weight = w);
  tensor<fp16, [1, 512, 62, 62]> y = relu(x = a); } -> (y); }"""


def test_the_formula() -> None:
    """The longer of arithmetic and weights; values moved; nothing for what is free; speed scales all but overheads."""
    done = [
        Work("conv", 10**9, 10**6, 10**6),
        Work("linear", 10**6, 10**3, 5 * 10**6),
        Work("values", 0, 2 * 10**6, 0),
        Work("free", 0, 10**9, 0),
    ]
    whole = 2e9 / 4e12 * 1e6 + 5e6 / 50e9 * 1e6 + 2e6 / 100e9 * 1e6
    assert microseconds(done, BY, 1.0) == pytest.approx(whole + 3 * 3)
    assert microseconds(done, BY, 2.0) == pytest.approx(whole / 2 + 3 * 3)


def test_what_operations_go_by() -> None:
    conv, relu = map(work, steps(parse_program(CONV, lambda name: None).function()))
    assert (conv.rate, conv.macs, conv.weights) == ("conv", 512 * 512 * 9 * 62 * 62, 512 * 512 * 9 * 2)
    assert relu.rate == "free"


def test_an_estimate_has_a_range_and_says_what_it_rests_on() -> None:
    function = parse_program(CONV, lambda name: None).function()
    done = list(map(work, steps(function)))
    found = {chip: estimate(predict(function, Unit.ANE, chip), done) for chip in ("A14", "A16", "M4", "M5")}
    for chip, told in found.items():
        factor = told.high / told.milliseconds
        assert told.low == pytest.approx(told.milliseconds / factor) and 1.2 <= factor <= 2.0, chip
        assert "published figures of" in told.basis and "span" in told.basis
    assert "none of them on the M5" in found["M5"].basis and "none of them" not in found["A14"].basis
    assert found["M5"].milliseconds < found["A14"].milliseconds


def test_every_chip_has_a_speed_for_every_unit() -> None:
    assert {(chip.name, unit) for chip in chips().values() for unit in ("ane", "gpu", "cpu")} == set(speeds())
    assert set(calibrations()) == set(powers()) == {"ane", "gpu", "cpu"}
    assert powers()["cpu"].watts is None


def test_the_calibration_s_script_computes_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy")
    monkeypatch.syspath_prepend(str(root))
    import numpy as np

    from benchmarks.latency import RATES, figures, milliseconds, networks

    known = networks()
    for figure in figures()[::5]:
        by, net = calibrations()[figure.unit], known[figure.network]
        rates = np.log([getattr(by, name) for name in RATES])
        done = [
            Work(str(rate), int(macs), int(nbytes), int(weights))
            for rate, macs, nbytes, weights, count in zip(
                net.rate, net.macs, net.nbytes, net.weights, net.count, strict=True
            )
            for _ in range(int(count))
        ]
        plain = (microseconds(done, by, 1.3) + by.run) / 1e3
        assert plain == pytest.approx(milliseconds(net, rates, 1.3), rel=1e-9)


def test_the_fit_meets_most_of_what_it_was_made_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not how good it is (that is its script's leave-one-out), but that the data files are of one piece."""
    pytest.importorskip("scipy")
    monkeypatch.syspath_prepend(str(root))
    import numpy as np

    from benchmarks.latency import RATES, figures, milliseconds, networks

    known, given = networks(), [figure for figure in figures() if figure.unit == "ane"]
    rates = np.log([getattr(calibrations()["ane"], name) for name in RATES])
    off = [
        abs(math.log(milliseconds(known[figure.network], rates, speeds()[figure.chip, "ane"][0]) / figure.ms))
        for figure in given
    ]
    assert sum(error < math.log(1.5) for error in off) / len(off) >= 0.9
    assert calibrations()["ane"].figures == len(given)
