"""The mends, one module per family; importing a module registers its mends."""

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
    "complexes",  # after what it is to stand before
    "transforms",
)


def load() -> None:
    """Register every mend."""
    for family in FAMILIES:
        import_module(f"{__name__}.{family}")
