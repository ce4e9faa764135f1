"""The mends, a module a family; importing a module registers its own."""

from __future__ import annotations

from importlib import import_module

FAMILIES = (
    "convolution",
    "creation",
    "elementwise",
    "indexing",
    "layout",
    "masks",
    "padding",
    "pooling",
    "products",
    "recurrent",
    "reduction",
    "resize",
    "sampling",
    "complexes",  # last, to stand before the others
)


def load() -> None:
    """Register every mend."""
    for family in FAMILIES:
        import_module(f"{__name__}.{family}")
