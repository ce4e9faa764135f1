"""Limits: what passes, what fails, and what cannot be judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.core.rows import row
from tlkit.core.bench.gate import (
    Limits,
    check_limits,
    judge_limits,
    parse_share,
    parse_size,
    parse_time,
    require_compared,
)
from tlkit.core.bench.rows import Row
from tlkit.errors import UsageError


def verdict(limits: Limits, *rows: Row, baseline: tuple[Row, ...] | None = None) -> list[bool | None]:
    return [check.passed for check in judge_limits(rows, limits, baseline)]


def test_latency_is_bounded_where_it_is_said_to_be() -> None:
    found = row(median=1e6)
    p95 = found.summary.percentiles_ns["p95"]
    assert verdict(Limits(latency_ns=p95, at="p95"), found) == [True]
    assert verdict(Limits(latency_ns=p95 - 1, at="p95"), found) == [False]
    assert verdict(Limits(latency_ns=found.summary.max_ns - 1, at="max"), found) == [False]
    assert verdict(Limits(latency_ns=found.summary.max_ns - 1), found) == [True]


def test_memory_and_load() -> None:
    found = row(peak_bytes=1000, load_first_ns=1000)
    assert verdict(Limits(memory_bytes=1000, load_ns=1000), found) == [True, True]
    assert verdict(Limits(memory_bytes=999, load_ns=999), found) == [False, False]


def test_a_regression_fails_only_when_the_interval_clears_the_limit() -> None:
    base, limits = row(seed=1), Limits(regression=0.05)
    assert verdict(limits, row(median=1.2e6, seed=2), baseline=(base,)) == [False]
    assert verdict(limits, row(median=1.0e6, seed=3), baseline=(base,)) == [True]
    one, other = row(seed=1, turns=((100,),)), row(median=1.2e6, seed=2, turns=((100,),))
    assert verdict(limits, other, baseline=(one,)) == [True]  # single turns: nothing is known of the spread


def drifting(shift: float, slow: float = 1.0, **changes: object) -> Row:
    """Five processes of a machine that gets twice as slow over them, from the same drift each time."""
    rng = np.random.default_rng(int(1000 * shift))
    levels = [1e6 * slow * (1 + shift * at) * rng.normal(1, 0.004) for at in range(5)]
    samples = tuple(int(level * rng.normal(1, 0.01)) for level in levels for _ in range(20))
    return replace(row(), samples_ns=samples, turns=((2,) * 10,) * 5, **changes)


def test_without_a_baseline_the_first_model_is_it_and_drift_hits_both() -> None:
    """10 % more show beside a row that took turns, whatever the machine did; against a saved run they cannot."""
    base, limits = drifting(0.25, model="old", label="old/cpu"), Limits(regression=0.05)
    slower = drifting(0.25, 1.1, model="new", label="new/cpu")
    again = drifting(0.25, model="new", label="new/cpu")
    (check,) = judge_limits([base, slower], limits)
    assert check.passed is False and check.row == "new/cpu" and "+10.0% against old/cpu" in check.detail
    assert verdict(limits, base, again) == [True]
    assert verdict(limits, replace(slower, label="old/cpu"), baseline=(base,)) == [True]


def test_a_row_is_held_to_the_first_models_at_the_same_setting() -> None:
    base, other = row(model="old", batch=1, label="old/cpu"), row(median=2e6, model="new", batch=4, label="new/cpu")
    (check,) = judge_limits([base, other], Limits(regression=0.05))
    assert (check.passed, check.detail) == (None, "the first model has no such row")
    assert verdict(Limits(regression=0.05), base) == []


def test_a_row_that_the_baseline_lacks_is_not_judged() -> None:
    (check,) = judge_limits([row("gpu")], Limits(regression=0.05), [row("cpu")])
    assert (check.passed, check.detail) == (None, "the baseline has no such row")


def test_a_gate_that_compared_nothing_is_no_gate_passed() -> None:
    limits, base = Limits(regression=0.05), [row("cpu")]
    none = judge_limits([row("gpu")], limits, base)
    with pytest.raises(UsageError, match="compared nothing: gpu was measured, and the baseline has no such row"):
        require_compared(none, limits)
    with pytest.raises(UsageError, match="compared nothing"):
        require_compared((), limits)
    require_compared(judge_limits([row("gpu"), row("cpu")], limits, base), limits)  # one of two is held to it
    require_compared((), Limits(latency_ns=1e9))


@pytest.mark.parametrize(
    ("limits", "words"),
    [(Limits(memory_bytes=1e9), "max-memory compared nothing: a, b was"), (Limits(load_ns=1e9), "max-load compared")],
)
def test_what_was_not_measured_passes_no_gate(limits: Limits, words: str) -> None:
    lacking = [replace(row(name), peak_bytes=None, load_first_ns=None) for name in "ab"]
    checks = judge_limits(lacking, limits)
    assert [check.passed for check in checks] == [None, None]
    with pytest.raises(UsageError, match=words):
        require_compared(checks, limits)
    known = replace(row("c"), peak_bytes=10, load_first_ns=10)
    require_compared(judge_limits([*lacking, known], limits), limits)


def test_rows_without_figures_are_left_to_the_exit_code() -> None:
    assert verdict(Limits(latency_ns=1), Row("ane", "absent", "not here")) == []


def test_too_few_samples_do_not_pass() -> None:
    (check,) = judge_limits([row(count=50)], Limits(latency_ns=1e12, at="p99"))
    assert check.passed is False and "50 samples" in check.detail
    with pytest.raises(UsageError, match="p99 needs 100 samples"):
        check_limits(Limits(latency_ns=1, at="p99"), (50,), 99, None)
    check_limits(Limits(latency_ns=1, at="p99"), (50,), 1, 5.0)  # a duration may give enough


@pytest.mark.parametrize(
    ("text", "ns"), [("5ms", 5e6), ("250us", 250e3), ("250 µs", 250e3), ("1.5s", 1.5e9), (".5ms", 5e5), ("7NS", 7)]
)
def test_times(text: str, ns: float) -> None:
    assert parse_time(text, "--max-latency") == ns


@pytest.mark.parametrize(("text", "size"), [("500MB", 5e8), ("1.5GiB", 1.5 * 2**30), ("12kb", 12e3), ("9B", 9)])
def test_sizes(text: str, size: float) -> None:
    assert parse_size(text, "--max-memory") == size


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("12.5 %", 0.125)])
def test_shares(text: str, share: float) -> None:
    assert parse_share(text, "--max-regression") == pytest.approx(share)


@pytest.mark.parametrize("text", ["5", "ms", "-5ms", "5 parsecs", "", "1e3ms"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--max-latency"):
        parse_time(text, "--max-latency")


@pytest.mark.parametrize("at", ["p101", "best", "95"])
def test_what_is_no_place_is_refused(at: str) -> None:
    with pytest.raises(UsageError, match="--at"):
        check_limits(Limits(latency_ns=1, at=at), (50,), 1000, None)
