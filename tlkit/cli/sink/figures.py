"""Figures for people: one unit per column, and never a small time printed as 0."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SCALES = (("ns", 1.0), ("µs", 1e3), ("ms", 1e6), ("s", 1e9))


def scale(values_ns: Sequence[float], least: str = "ns") -> tuple[str, float]:
    """Choose the unit for a table of times: the largest in which the smallest of ``values_ns`` is 1 or above."""
    smallest = min((value for value in values_ns if value > 0), default=1e6)
    usable = _SCALES[[name for name, _ in _SCALES].index(least) :]
    return next((pair for pair in reversed(usable) if smallest >= pair[1]), usable[0])


def number(value: float | None, divisor: float = 1.0) -> str:
    """Write ``value / divisor`` with three figures, all digits before the point kept; ``-`` where there is none."""
    if value is None:
        return "-"
    shown = value / divisor
    if shown == 0 or not math.isfinite(shown):
        return f"{shown:g}"
    # Three figures: two decimals from 1 on, one from 10 on, none from 100 on, and six at most.
    return f"{shown:.{min(6, max(0, 2 - math.floor(math.log10(abs(shown)))))}f}"


def time(value_ns: float | None) -> str:
    """Write a time in the unit that suits it."""
    if value_ns is None:
        return "-"
    name, divisor = scale([value_ns])
    return f"{number(value_ns, divisor)} {name}"


def rate(per_second: float | None) -> str:
    """Write something per second, or per joule."""
    if per_second is None:
        return "-"
    return f"{per_second:.0f}" if per_second >= 1000 else f"{per_second:.4g}"


def percent(share: float, signed: bool = False) -> str:
    """Write a share in percent, with one decimal below ten."""
    # From 9.95 % on, one decimal would round to 10.0.
    decimals = 1 if abs(share) < 0.0995 else 0
    return f"{100 * share:{'+' if signed else ''}.{decimals}f} %"
