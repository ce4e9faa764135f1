"""The mends, a module a family; importing a module registers its own."""

from __future__ import annotations

from importlib import import_module

FAMILIES = ("indexing", "masks", "products", "resize")


def load() -> None:
    """Register every mend."""
    for family in FAMILIES:
        import_module(f"{__name__}.{family}")
