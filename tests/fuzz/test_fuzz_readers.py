"""The first cases of each fuzz target, from a fixed seed; ``make fuzz`` goes on where this stops."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from tests.fuzz.fuzz_readers import TARGETS, cases, check


@pytest.mark.parametrize("name", TARGETS)
def test_sound_seeds_are_read(name: str) -> None:
    outcomes = {check(name, seed) for seed in TARGETS[name].seeds()}
    assert "read" in outcomes


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused(name: str) -> None:
    outcomes = {check(name, case) for case in islice(cases(name, random.Random(20)), 60)}
    assert "refused" in outcomes or name == "description"  # a damaged description is a note, not an error
