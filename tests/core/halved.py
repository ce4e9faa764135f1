"""Every case by every way is more than ``make test`` has time for: there each goes one way, and ways take turns."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import pytest


def halved(names: Iterable[str], ways: tuple[str, str], slow: Container[str] = ()) -> list[Any]:
    """Return parameters (name, way): the ways take turns in what is not slow; names in ``slow`` are that both ways."""
    return [
        pytest.param(name, way, id=f"{name}-{way}", marks=_marks(place % 2 == turn and name not in slow))
        for place, name in enumerate(names)
        for turn, way in enumerate(ways)
    ]


def _marks(quick: bool) -> tuple[pytest.MarkDecorator, ...]:
    return () if quick else (pytest.mark.slow,)
