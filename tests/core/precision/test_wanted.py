"""The limits of mixed precision: figures beside numpy's formulas, and a search that meets a cosine or top classes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tlkit.core.precision.wanted import KeepLimits, Kept, kept
from tlkit.errors import UsageError


def test_figures_are_the_worst_of_all_outputs() -> None:
    rng = np.random.default_rng(0)
    pairs = [(one := rng.standard_normal((4, 5)), one + 0.01 * rng.standard_normal((4, 5))) for _ in range(3)]
    pairs.append((np.array([[0.0, 1.0, 2.0]]), np.array([[0.0, 1.5, 1.0]])))
    found = kept(pairs)
    one, other = pairs[-1]
    assert found.snr == pytest.approx(10 * np.log10((one**2).sum() / ((other - one) ** 2).sum()))
    assert found.cosine == pytest.approx((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))
    same = [np.mean(a.argmax(-1) == b.argmax(-1)) for a, b in pairs]
    assert found.top1 == pytest.approx(np.mean(same)) and found.top1 < 1


def test_what_is_not_finite_or_another_integer_keeps_nothing() -> None:
    lost = kept([(np.ones((2, 3)), np.array([[1.0, 1, np.inf], [1, 1, 1]]))])
    assert lost == Kept(-math.inf, -1.0, 0.0)
    assert kept([(np.arange(10), np.arange(10)[::-1])]).snr == -math.inf
    assert kept([(np.arange(10), np.arange(10))]) == Kept(math.inf, 1.0, None)


def test_each_limit_is_told_and_a_margin_asks_for_more() -> None:
    found = Kept(30.0, 0.995, 0.9)
    assert not KeepLimits(30.0, 0.995, 0.9).missed(found)
    missed = KeepLimits(30.5, 0.996, 0.95).missed(found)
    assert [text.split()[0] for text in missed] == ["signal", "cosine", "top-1"]
    assert KeepLimits(snr=20.0).stricter(3).snr == 23.0
    assert KeepLimits(cosine=0.9).stricter(10).cosine == pytest.approx(0.99)
    with pytest.raises(UsageError, match="no output is a row of scores"):
        KeepLimits(top1=0.9).missed(Kept(30.0, 1.0, None))
    for wrong in ({"cosine": 1.1}, {"top1": 1.5}, {"top1": 0.0}, {"cosine": float("nan")}):
        with pytest.raises(UsageError, match="not a"):
            KeepLimits(**wrong)
    assert str(KeepLimits(None, 0.9, 0.5)) == "cosine 0.9, top-1 agreement 50.00%"
