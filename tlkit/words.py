"""Counts and sizes for people: three significant figures and decimal units, the same everywhere."""

from __future__ import annotations


def count_text(count: int) -> str:
    """Return a count in three significant figures: ``268M``, ``1.24B``."""
    return _scaled(count, ("", "k", "M", "B", "T"))


def byte_text(count: float | None) -> str:
    """Return bytes in three significant figures and decimal units: ``1.13 GB``; ``-`` where the size is not known."""
    return "-" if count is None else _scaled(count, (" B", " kB", " MB", " GB", " TB"))


def _scaled(count: float, units: tuple[str, ...]) -> str:
    value, *larger = count, *units[1:]
    unit = units[0]
    # 999.5 is where three figures round up to 1000.
    while larger and abs(value) >= 999.5:
        value, unit = value / 1000, larger.pop(0)
    if unit == units[0] or abs(value) >= 1000:
        return f"{value:.0f}{unit}"
    return f"{value:.3g}{unit}"


def macs_text(count: int, unit: str = "MACs") -> str:
    """Return a number of operations in three significant figures: ``4.09 GMACs``."""
    return _scaled(count, tuple(f" {prefix}{unit}" for prefix in ("", "k", "M", "G", "T")))
