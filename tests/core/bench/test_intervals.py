"""Intervals against simulated machines whose true ratio is known.

Covers tlkit/core/bench/versus.py.
"""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from tlkit.core.bench.intervals import Turns, _widened_tail, ratio_of_medians, student_t

TURNS, EACH = 10, 10


def machine(rng: np.random.Generator, median: float, shared: np.ndarray | None = None) -> Turns:
    """One process: 10 % jitter on each sample around ``median`` ns, 5 % on each turn (or what ``shared`` says)."""
    turns = rng.normal(1, 0.05, TURNS) if shared is None else shared
    samples = median * np.repeat(turns, EACH) * rng.lognormal(0, 0.1, TURNS * EACH)
    return Turns([int(value) for value in samples], [[EACH] * TURNS])


def processes(
    rng: np.random.Generator, median: float, shared: np.ndarray, count: int = 5, apart: float = 0.02
) -> Turns:
    """Some processes, each off by ``apart`` for as long as it lives: on top of that jitter, and what is ``shared``."""
    levels = np.repeat(rng.normal(0, apart, count) + shared, 20)
    samples = median * np.exp(levels + np.abs(rng.normal(0, 0.02, 20 * count)))
    return Turns([int(value) for value in samples], [[5] * 4] * count)


@pytest.mark.parametrize("paired", [False, True])
def test_the_truth_lies_inside_about_as_often_as_promised(paired: bool) -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for trial in range(100):
        shared = rng.normal(1, 0.05, TURNS) if paired else None
        found = ratio_of_medians(machine(rng, 2e6, shared), machine(rng, 1e6, shared), paired=paired, seed=trial)
        inside += found.low <= 2 <= found.high
    assert inside >= 90  # 95 % of 100 is 95; fewer than 90 would come by chance in 1 of 80 such experiments


@pytest.mark.parametrize("paired", [False, True])
def test_what_differs_from_start_to_start_is_inside_the_interval(paired: bool) -> None:
    """Without pairing a slow run is as likely as a fast one; with it, what hits a round hits both."""
    rng = np.random.default_rng(9)
    inside, caught = 0, 0
    for _ in range(300):
        hit = rng.normal(0, 0.05, 5) if paired else np.zeros(5)
        one, two = processes(rng, 1e6, hit), processes(rng, 1.1e6, hit)
        found = ratio_of_medians(two, one, paired=paired)
        inside += found.low <= 1.1 <= found.high
        caught += found.low > 1
    assert inside >= 276  # 95 % of 300 is 285; fewer than 276 would come by chance in 1 of 100 such experiments
    assert caught >= 270


def test_processes_in_pairs_are_compared_turn_by_turn() -> None:
    """Busy turns hit both, and a few one alone: the medians of whole processes move with them, a turn's ratio hardly.

    Each of 5 processes has 10 turns of 6 samples, of which the busy ones (about half) take 40 % longer.
    """
    rng = np.random.default_rng(17)
    inside, caught, widths = 0, 0, []
    for _ in range(200):
        busy = 1 + 0.4 * (rng.random((5, 10)) < 0.5)
        own = [1 + 0.4 * (rng.random((5, 10)) < 0.05) for _ in range(2)]
        levels = [median * np.maximum(busy, mine) for median, mine in zip((1.1e6, 1e6), own, strict=True)]
        top, bottom = (
            Turns([int(v) for v in np.repeat(level, 6) * rng.lognormal(0, 0.02, 300)], [[6] * 10] * 5)
            for level in levels
        )
        found = ratio_of_medians(top, bottom, paired=True)
        inside += found.low <= 1.1 <= found.high
        caught += found.low > 1.05
        widths.append(found.high / found.low)
    assert inside >= 183  # 95 % of 200 is 190; fewer than 183 would come by chance in 1 of 100 such experiments
    assert caught >= 190
    assert statistics.median(widths) < 1.03


def test_one_process_a_run_knows_that_it_is_one() -> None:
    """A single start a run, 1 % from the next: the samples agree with each other far better than the runs do."""
    rng = np.random.default_rng(13)
    wrong = 0
    for trial in range(100):
        one, two = (processes(rng, 1e6, np.zeros(1), 1, apart=0.01) for _ in range(2))
        wrong += ratio_of_medians(one, two, seed=trial).shown
    assert wrong <= 10


def test_a_single_process_beside_several_is_taken_to_vary_as_they_do() -> None:
    """Levels -1, 0 and 1 (variance 1) against one: var = 1 + 1/3, t(0.975, 2) = 4.3027 (any table)."""
    several = Turns([round(1e6 * math.exp(level)) for level in (-1, 0, 1)], [[1]] * 3)
    found = ratio_of_medians(several, Turns([10**6], [[1]]), paired=True)
    assert math.log(found.high) == pytest.approx(4.3027 * (4 / 3) ** 0.5, rel=1e-4)
    assert found.value == pytest.approx(1, rel=1e-6)


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
    few = Turns([int(1e6 * level) for level in levels for _ in range(10)], [[10] * TURNS])
    many = Turns([int(1e6 * level) for level in levels for _ in range(1000)], [[1000] * TURNS])
    base = Turns([10**6] * 100, [[10] * 10])
    narrow, wide = ratio_of_medians(many, base), ratio_of_medians(few, base)
    assert narrow.high - narrow.low == pytest.approx(wide.high - wide.low, rel=0.2)


def test_two_processes_that_differ_say_little() -> None:
    """One twice as slow as the other: however many turns agree within each, little is known."""
    slow, fast = [2_000_000] * 50, [1_000_000] * 50
    found = ratio_of_medians(Turns(slow + fast, [[10] * 5] * 2), Turns(fast + fast, [[10] * 5] * 2))
    assert found.value == pytest.approx(2**0.5) and not found.shown


def test_a_single_turn_shows_nothing() -> None:
    found = ratio_of_medians(Turns([5], [[1]]), Turns([1], [[1]]))
    assert (found.low, found.high, found.shown) == (0.0, float("inf"), False)
    assert found.value == pytest.approx(5)


@pytest.mark.parametrize(
    ("p", "freedom", "expected"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.3027), (0.975, 4, 2.7764), (0.95, 5, 2.0150), (0.995, 8, 3.3554)],
)
def test_students_t(p: float, freedom: int, expected: float) -> None:
    """Any table of Student's t."""
    assert student_t(p, freedom) == pytest.approx(expected, abs=5e-5)


def test_the_widened_tail_is_students() -> None:
    """t(0.975, 9) = 2.2622 (any table): the tail is that of the normal at 2.2622 * sqrt(10/9)."""
    expected = statistics.NormalDist().cdf(-2.2622 * (10 / 9) ** 0.5)
    assert _widened_tail(0.025, 10) == pytest.approx(expected, rel=1e-3)
