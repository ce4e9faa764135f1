"""Intervals against simulated machines whose true ratio is known."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from tlkit.core.intervals import Ratio, Turns, _widened_tail, ratio_of_medians

TURNS, EACH = 10, 10


def machine(rng: np.random.Generator, median: float, shared: np.ndarray | None = None) -> Turns:
    """Samples around ``median`` ns: 10 % jitter on each, 5 % on each whole turn (or what ``shared`` says)."""
    turns = rng.normal(1, 0.05, TURNS) if shared is None else shared
    samples = median * np.repeat(turns, EACH) * rng.lognormal(0, 0.1, TURNS * EACH)
    return Turns([int(value) for value in samples], [EACH] * TURNS)


@pytest.mark.parametrize("paired", [False, True])
def test_the_truth_lies_inside_about_as_often_as_promised(paired: bool) -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for trial in range(100):
        shared = rng.normal(1, 0.05, TURNS) if paired else None
        found = ratio_of_medians(machine(rng, 2e6, shared), machine(rng, 1e6, shared), paired=paired, seed=trial)
        inside += found.low <= 2 <= found.high
    assert inside >= 90  # 95 % of 100 is 95; fewer than 90 would come by chance in 1 of 80 such experiments


def test_pairing_takes_out_what_hits_both() -> None:
    rng = np.random.default_rng(5)
    shared = rng.normal(1, 0.2, TURNS)
    one, two = machine(rng, 1e6, shared), machine(rng, 1e6, shared)
    paired, apart = ratio_of_medians(one, two, paired=True), ratio_of_medians(one, two)
    assert paired.high - paired.low < (apart.high - apart.low) / 2


def test_runs_apart_know_that_turns_resemble_their_neighbours() -> None:
    """Noise that wanders (a random walk) makes two equal runs differ: apart, they may not be as sure as in pairs."""
    rng = np.random.default_rng(11)
    wrong = {True: 0, False: 0}
    for trial in range(60):
        walks = [1 + 0.02 * np.cumsum(rng.normal(0, 1, TURNS)) for _ in range(2)]
        one, two = (machine(rng, 1e6, np.clip(walk, 0.5, 2)) for walk in walks)
        for paired in wrong:
            wrong[paired] += ratio_of_medians(one, two, paired=paired, seed=trial).shown
    assert wrong[False] < wrong[True]


def test_turns_count_and_not_their_samples() -> None:
    """Ten turns that differ say as little with a thousand samples each as with ten."""
    rng = np.random.default_rng(7)
    levels = rng.normal(1, 0.1, TURNS)
    few = Turns([int(1e6 * level) for level in levels for _ in range(10)], [10] * TURNS)
    many = Turns([int(1e6 * level) for level in levels for _ in range(1000)], [1000] * TURNS)
    base = Turns([10**6] * 100, [10] * 10)
    narrow, wide = ratio_of_medians(many, base), ratio_of_medians(few, base)
    assert narrow.high - narrow.low == pytest.approx(wide.high - wide.low, rel=0.2)


def test_processes_are_drawn_whole() -> None:
    """Two processes, one twice as slow: however many turns agree within each, little is known."""
    slow, fast = [2_000_000] * 50, [1_000_000] * 50
    found = ratio_of_medians(Turns(slow + fast, [10] * 10, processes=2), Turns(fast + fast, [10] * 10, processes=2))
    assert (found.low, found.high) == (1.0, 2.0)


def test_a_single_turn_shows_nothing() -> None:
    found = ratio_of_medians(Turns([5], [1]), Turns([1], [1]))
    assert (found.value, found.low, found.high, found.shown) == (5.0, 0.0, float("inf"), False)


def test_the_widened_tail_is_students() -> None:
    """t(0.975, 9) = 2.2622 (any table): the tail is that of the normal at 2.2622 * sqrt(10/9)."""
    expected = statistics.NormalDist().cdf(-2.2622 * (10 / 9) ** 0.5)
    assert _widened_tail(0.025, 10) == pytest.approx(expected, rel=1e-3)


def test_inverse() -> None:
    assert Ratio(2.0, 1.0, 4.0).inverse() == Ratio(0.5, 0.25, 1.0)
