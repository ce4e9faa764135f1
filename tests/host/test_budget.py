"""What a program may make: more for more bytes and inputs, by a factor from the environment, or without end."""

from __future__ import annotations

import math

import pytest

from tlkit.errors import UsageError
from tlkit.host import budget


def test_little_may_make_little_and_much_more() -> None:
    assert budget.warranted() == budget.warranted(stored=1000, inputs=1000) == budget.FLOOR
    assert budget.warranted(stored=10**9) == budget.STORED * 10**9
    assert budget.warranted(stored=10**5) == budget.SPARING * 10**5  # a network that enlarges pictures
    assert budget.warranted(stored=5 * 10**6) == budget.SPARED
    assert budget.warranted(inputs=10**6) == budget.GIVEN * 10**6


def test_inputs_that_were_drawn_count_little() -> None:
    with budget.drawn():
        assert budget.warranted(inputs=10**7) == budget.DRAWN * 10**7
    with budget.drawn(False):
        assert budget.warranted(inputs=10**7) == budget.GIVEN * 10**7


def test_a_network_that_enlarges_a_picture_may_do_so_in_f16_too() -> None:
    """CARN: 522 kB of f16 weights, a picture of 3 x 1000 x 1000 that is drawn, 128 channels of that size inside."""
    with budget.drawn():
        assert budget.warranted(522_000, 3_000_000) > 128_000_000
        assert budget.warranted(10_000) == budget.FLOOR


def test_the_advice_is_as_much_as_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert budget.over(budget.FLOOR) is None
    said = budget.over(5 * budget.FLOOR + 1)
    assert said is not None and "TLKIT_BUDGET=6" in said[1] and str(budget.FLOOR) in said[0]
    said = budget.over(5 * budget.FLOOR + 1, coming=7 * budget.FLOOR)
    assert said is not None and "TLKIT_BUDGET=7" in said[1] and str(5 * budget.FLOOR + 1) in said[0]
    said = budget.over(1 << 62)
    assert said is not None and "no machine holds" in said[0] and "TLKIT_BUDGET" not in said[1]
    monkeypatch.setenv("TLKIT_BUDGET", "5")
    assert budget.over(5 * budget.FLOOR + 1) is not None
    assert budget.turns() == 5 * budget.TURNS
    monkeypatch.setenv("TLKIT_BUDGET", "6")
    assert budget.over(5 * budget.FLOOR + 1) is None


def test_the_user_s_own_code_has_none() -> None:
    with budget.lifted():
        assert budget.over(1e300) is None and budget.turns() == math.inf
    assert budget.over(1e300) is not None


@pytest.mark.parametrize("text", ["", "much", "0", "-1", "nan"])
def test_what_is_no_factor_is_said_to_be_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TLKIT_BUDGET", text)
    with pytest.raises(UsageError, match="TLKIT_BUDGET"):
        budget.warranted()
