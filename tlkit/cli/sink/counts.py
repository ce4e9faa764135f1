"""Counts and sizes as people read them."""

from __future__ import annotations


def count_text(count: int) -> str:
    """Return a count in three figures: ``268M``, ``1.24B``."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def byte_text(count: int) -> str:
    """Return bytes in three figures and decimal units: ``1.13 GB``."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"
