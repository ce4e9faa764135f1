"""Every case by every way is more than ``make test`` has time for: there each goes one way, and ways take turns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def halved(names: Iterable[str], ways: tuple[str, str]) -> list[Any]:
    """Return parameters (name, way): the ways take turns in what is not slow."""
    return [
        pytest.param(name, way, id=f"{name}-{way}", marks=() if place % 2 == turn else pytest.mark.slow)
        for place, name in enumerate(names)
        for turn, way in enumerate(ways)
    ]
