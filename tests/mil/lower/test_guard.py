"""No operation fills the memory: what it would make is counted before it does."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from tlkit.mil.lower.guard import Guard, TooLargeError

MOST = 10_000.0
X = torch.ones(100)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(10**15),
        lambda: X.repeat(10**12),
        lambda: X.reshape(100, 1) + torch.ones(1, 1000),
        lambda: X.expand(10**15, 100),
        lambda: torch.nn.functional.pad(X, (10**14, 0)),
        lambda: torch.outer(X, torch.ones(101)),
        lambda: torch.cat([X] * 101),
    ],
)
def test_what_is_too_large_is_not_made(make: Callable[[], object]) -> None:
    """Most of these could not be made on any machine."""
    with pytest.raises(TooLargeError, match="it makes a value of"), Guard(MOST):
        make()


def test_what_fits_is_made() -> None:
    with Guard(MOST):
        assert torch.outer(X, X).sum() == 10_000
        assert X.expand(100, 100).sum() == 10_000
        assert torch.cat([X] * 100).numel() == 10_000


def test_no_bound_is_no_bound() -> None:
    with Guard(math.inf):
        assert torch.outer(X, torch.ones(1000)).numel() == 100_000
