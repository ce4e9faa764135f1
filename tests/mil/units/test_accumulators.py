"""Single sums against what an M4 was measured to give, the rules against plain integers, and the screen against the
sums product by product. Covers tlkit/mil/units/rounding.py, tlkit/mil/units/compiled_halves.py."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tlkit.mil.units import accumulators
from tlkit.mil.units.accumulators import Accumulator, Halves, Lanes
from tlkit.mil.units.fixed import FixedPoint
from tlkit.mil.units.rounding import away, to_even

PROBES = Path(__file__).parents[4] / "shared" / "coreml" / "ane_probes_m4.json"


def summed(accumulator: Accumulator, terms: list[float], weight: float) -> torch.Tensor:
    a = torch.from_numpy(np.array(terms, np.float16).astype(np.float32)).reshape(1, 1, -1)
    return accumulator.product(a, torch.full((1, len(terms), 1), weight))


@pytest.mark.skipif(not PROBES.exists(), reason="the published probes are not here")
@pytest.mark.parametrize("screen", [True, False])
def test_all_published_sums_of_the_neural_engine(screen: bool) -> None:
    probes = json.loads(PROBES.read_text())["probes"]
    wrong = [
        probe
        for probe in probes
        if float(away(summed(FixedPoint(screen), probe["terms"], probe["weight"]))) != float(probe["ane"])
    ]
    assert len(probes) == 108 and not wrong


@pytest.mark.skipif(not PROBES.exists(), reason="the published probes are not here")
def test_all_published_sums_of_the_cpu() -> None:
    probes = json.loads(PROBES.read_text())["probes"]
    wrong = [p for p in probes if float(to_even(summed(Halves(), p["terms"], p["weight"]))) != float(p["cpu"])]
    assert not wrong


def test_sums_in_f16_are_rounded_once() -> None:
    """1 + 2^-11 is a tie; 1046 * 2005 is 78 more than 2^21, which f32 would cut off before f16 is rounded to."""
    product = [1046 * 2.0**-16, 2005 * 2.0**-16]
    for sign in (1.0, -1.0):
        a, b = torch.tensor([[[sign, sign * product[0]]]]), torch.tensor([[[1.0], [product[1]]]])
        for accumulator in (Halves(), Lanes()):
            assert float(to_even(accumulator.product(a, b))) == sign * (1 + 2.0**-10)
    near = torch.tensor(
        [1 + 2.0**-11 + 2.0**-36, 1 + 3 * 2.0**-11 - 2.0**-36, 65520 - 2.0**-30, 2.0**-25 + 2.0**-60],
        dtype=torch.float64,
    )
    assert to_even(near).tolist() == [1 + 2.0**-10, 1 + 2.0**-10, 65504.0, 2.0**-24]
    wide = np.random.default_rng(0).integers(0, 2**64, 20_000, dtype=np.uint64) >> np.uint64(2)  # below 2, of all sizes
    wide = (wide & np.uint64(0x03FFFFFFFFFFFFFF)) + np.uint64(0x3E00000000000000)
    given = wide.view(np.float64)
    # numpy's conversion of f64 rounds once.
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(
            to_even(torch.from_numpy(given)).numpy(), given.astype(np.float16).astype(np.float32)
        )


@pytest.mark.parametrize("scale", [1e-4, 1.0, 300.0])
def test_compiled_sums_in_f16_are_torchs(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    torch.manual_seed(0)
    a, b, first = torch.randn(2, 5, 70) * scale, torch.randn(2, 70, 9), torch.randn(2, 9)
    a[0, 0, 3], a[1, 1, 0], b[0, 4, 4] = torch.inf, torch.nan, 2.0**-24
    given = [item.half().float() for item in (a, b, first)]
    quick = Halves().product(*given)
    monkeypatch.setattr(accumulators, "has_numba", lambda: False)
    np.testing.assert_array_equal(quick.numpy(), Halves().product(*given).numpy())


def by_integers(a: list[float], b: list[float], start: float) -> float:
    """The rule of row P4 in whole numbers, term by term."""

    def units(value: float) -> int:
        return int(math.copysign(math.floor(abs(value) * 2**16 + 0.5), value))

    def exponent(value: float) -> int:
        return max(math.frexp(value)[1] - 1, -14) if value else -14

    total, limit = units(start), 1 << 31
    for x, y in zip(a, b, strict=True):
        if abs(total) >= limit:
            break
        total += 0 if exponent(x) + exponent(y) <= -17 else units(x * y)
    return math.copysign(math.inf, total) if abs(total) >= limit else total / 2**16


# By their bits: st.floats of 16 bits throws away most of what it draws, and now and then gives up.
halves = st.builds(
    lambda bits, sign: float(sign * np.uint16(bits).view(np.float16)), st.integers(0, 0x7BFF), st.sampled_from([1, -1])
)


def half(value: float) -> float:
    """The f16 value next to a number, finite."""
    return float(np.float16(min(max(value, -65504.0), 65504.0)))


scales = st.sampled_from([2.0**-16, 2.0**-9, 2.0**-4, 1.0, 8.0])


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(halves, halves), min_size=1, max_size=12), scales, scales, halves)
def test_sums_are_the_rule_in_whole_numbers(pairs: list[tuple[float, float]], m: float, n: float, start: float) -> None:
    # Scaled down, since most f16 values are so large that every sum of their products is infinite.
    a, b = ([half(v * s) for v in part] for part, s in zip(zip(*pairs, strict=True), (m, n), strict=True))
    wanted = by_integers(a, b, half(start * m))
    for screen in (True, False):
        left, right = torch.tensor(a).reshape(1, 1, -1), torch.tensor(b).reshape(1, -1, 1)
        got = FixedPoint(screen).product(left, right, torch.tensor([half(start * m)]))
        assert float(away(got)) == float(away(torch.tensor([wanted], dtype=torch.float64)))


@pytest.mark.parametrize("scale", [1e-3, 0.05, 3.0, 40.0])
def test_the_screen_changes_no_bit(scale: float) -> None:
    torch.manual_seed(7)
    a, b = torch.randn(2, 37, 83).half().float(), (torch.randn(2, 83, 19) * scale).half().float()
    screened, whole = FixedPoint(True), FixedPoint(False)
    assert torch.equal(away(screened.product(a, b)), away(whole.product(a, b)))
    assert whole.exact == whole.sums == screened.sums


def test_whole_numbers_need_no_look_at_single_products() -> None:
    torch.manual_seed(7)
    a, b = torch.randint(-9, 9, (1, 20, 30)).float(), torch.randint(-9, 9, (1, 30, 10)).float()
    sums = FixedPoint(True)
    assert torch.equal(sums.product(a, b), (a.double() @ b.double()))
    assert sums.exact == 0 < sums.sums


def test_ties_go_away_from_zero_and_f64_is_rounded_once() -> None:
    # 2049 lies between 2048 and 2050; just below it, f32 would round to the tie first.
    near = torch.tensor([2049.0, -2049.0, 2049 - 2.0**-20, 65519.0, 65520.0, 2.0**-25, 2.0**-26], dtype=torch.float64)
    wanted = [2050.0, -2050.0, 2048.0, 65504.0, math.inf, 2.0**-24, 0.0]
    assert away(near).tolist() == wanted


@settings(deadline=None, max_examples=200)
@given(st.floats(width=32, allow_nan=False))
def test_away_is_numpys_rounding_but_for_ties(value: float) -> None:
    with np.errstate(over="ignore"):
        got, even = float(away(torch.tensor([value]))), float(np.float32(value).astype(np.float16))
    if abs(value) >= 65520 or got == even:
        assert got == even
        return
    # They differ only half way, and then the one away from zero is larger.
    assert abs(got) > abs(even) and (got + even) / 2 == value


def test_an_m1_sums_four_lanes_in_f16() -> None:
    assert float(to_even(summed(Lanes(), [4096.0] + [1.0] * 1024, 1.0))) == 5116.0
    assert float(to_even(summed(Lanes(), [2048.0, 1.0], 1.0))) == 2048.0
    assert float(summed(Lanes(), [30000.0, 30000.0, -30000.0], 1.0)) in (math.inf, 30000.0)
    assert float(summed(Lanes(), [2.0**-15] * 8, 1.0)) == 0.0
