"""The budgeted selection, beside trying every combination."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tlkit.core.compress.select import Option, best_within, frontier, hull


def drawn(seed: int) -> dict[str, list[Option]]:
    rng = np.random.default_rng(seed)
    return {
        f"w{index}": [
            Option("as it is", 64 * int(rng.integers(8, 40)), 0.0),
            *(Option(f"c{k}", 64 * int(rng.integers(1, 30)), float(rng.exponential())) for k in range(3)),
        ]
        for index in range(5)
    }


@pytest.mark.parametrize("seed", range(6))
def test_no_combination_of_as_few_bytes_has_less_error_than_a_candidate(seed: int) -> None:
    options = drawn(seed)
    every = [
        (sum(item.nbytes for item in chosen), math.fsum(item.error for item in chosen))
        for chosen in itertools.product(*options.values())
    ]
    found = frontier(options)
    assert found[0].error == min(error for _, error in every)
    assert found[-1].nbytes == min(sum(min(i.nbytes for i in items) for items in options.values()) for _ in (0,))
    for candidate in found:
        chosen = [next(i for i in options[name] if i.choice == text) for name, text in candidate.choices.items()]
        assert candidate.nbytes == sum(item.nbytes for item in chosen)
        assert candidate.error == pytest.approx(sum(item.error for item in chosen))
        assert candidate.error <= min(error for nbytes, error in every if nbytes <= candidate.nbytes) + 1e-9
    sizes, errors = [item.nbytes for item in found], [item.error for item in found]
    assert sizes == sorted(set(sizes), reverse=True) and errors == sorted(errors)
    # For any budget, too.
    low, high = min(nbytes for nbytes, _ in every), max(nbytes for nbytes, _ in every)
    for budget in range(low, high, 97):
        (best,) = best_within(options, [budget])
        assert best.nbytes <= budget
        assert best.error == pytest.approx(min(error for nbytes, error in every if nbytes <= budget))
    assert best_within(options, [low - 1]) == []


def test_what_is_worse_and_no_smaller_is_left_out_and_so_is_what_is_not_finite() -> None:
    options = [Option("a", 100, 0.0), Option("b", 50, 1.0), Option("c", 60, 2.0), Option("d", 10, math.inf)]
    assert [item.choice for item in hull([*options, Option("e", 50, 0.5)])] == ["a", "e"]
    # Above the line from a to f.
    assert [item.choice for item in hull([*options[:2], Option("f", 0, 1.5)])] == ["a", "f"]
