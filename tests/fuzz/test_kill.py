"""A few of the moments at which ``make kill`` stops the commands that write."""

from __future__ import annotations

import multiprocessing

import pytest

from tests.fuzz import kill


@pytest.mark.slow
@pytest.mark.parametrize("name", ["edit", "shards", "splits", "run"])
def test_stopped_at_a_few_moments(name: str) -> None:
    with multiprocessing.get_context("spawn").Pool(1, kill.prepare) as pool:
        _, score = pool.apply(kill.trial, [(name, 18, 5)])
    assert score.kills == 18
    assert score.faults == []
