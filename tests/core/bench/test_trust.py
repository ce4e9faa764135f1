"""Verdicts: each fault of a sample or of the machine around it is found, named and answered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.rows import row
from tlkit.core.bench.rows import Row
from tlkit.core.bench.stats import summarize
from tlkit.core.bench.trust import judge
from tlkit.host.conditions import Conditions


def samples(*values: int) -> Row:
    return replace(row(), samples_ns=values, summary=summarize(values))


def test_a_steady_row_is_good() -> None:
    found = judge(row(), Conditions(other_load=0.01, power_source="mains", low_power=False, throttled=False))
    assert (found.level, found.reasons, found.advice) == ("good", (), ())
    assert found.variation == pytest.approx(0.02, rel=0.2)


def test_drift_is_the_last_third_over_the_first() -> None:
    found = judge(samples(*[1000] * 40, *[1100] * 40, *[1200] * 40))
    assert found.drift == pytest.approx(0.2)
    assert found.level == "poor" and "20% slower" in " ".join(found.reasons)


def test_a_wide_spread_is_told_from_rare_hiccups() -> None:
    hiccups = judge(samples(*([1000] * 99 + [20_000]) * 3))
    assert hiccups.spread == 0 and hiccups.variation > 1
    wide = judge(samples(*[1000, 1500] * 60))
    assert wide.spread == pytest.approx(0.5 / 1.25) and wide.level == "poor"


@pytest.mark.parametrize(
    ("conditions", "level", "word"),
    [
        (Conditions(other_load=0.1), "fair", "other processes used 10%"),
        (Conditions(other_load=0.5), "poor", "other processes used 50%"),
        (Conditions(low_power=True), "poor", "low-power"),
        (Conditions(power_source="battery"), "fair", "battery"),
        (Conditions(throttled=True), "poor", "heat"),
        (Conditions(governor="powersave"), "fair", "governor"),
    ],
)
def test_the_machine_around_counts(conditions: Conditions, level: str, word: str) -> None:
    found = judge(row(), conditions)
    assert found.level == level and word in " ".join(found.reasons)
    assert found.advice


def test_threads_on_a_busy_machine_are_advised_against() -> None:
    busy = Conditions(other_load=0.5)
    assert "--threads 1" in " ".join(judge(row(threads=2), busy).advice)
    assert "--threads 1" not in " ".join(judge(row(threads=1), busy).advice)


def test_a_drivers_powersave_is_its_normal_mode() -> None:
    assert judge(row(), Conditions(governor="powersave", governor_is_driver=True)).level == "good"


def test_few_samples_and_an_endless_warm_up_are_not_good() -> None:
    assert judge(samples(*[1000] * 12)).level == "fair"
    assert judge(row(settled=False)).level == "fair"
    assert judge(row(timer_ns=100_000)).level == "fair"


def test_nothing_is_said_of_nothing() -> None:
    assert judge(Row("ane", "absent", "not here")) is None


def test_advice_on_tokens_names_no_option_that_they_do_not_take() -> None:
    found = judge(samples(*[1000] * 40, *[1100] * 40, *[9200] * 40), tokens=True)
    assert found.level == "poor"
    assert not [advice for advice in found.advice if "--warmup" in advice or "p95" in advice]
