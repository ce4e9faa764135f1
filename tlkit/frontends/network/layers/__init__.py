"""The layer kinds, a family a module: importing this registers them all."""

from tlkit.frontends.network.layers import (
    activation,
    arrangement,
    constant,
    custom,
    elementwise,
    image,
    joining,
    linear,
    normalization,
    places,
    recurrent,
    reduction,
    window,
)

__all__ = [
    "activation",
    "arrangement",
    "constant",
    "custom",
    "elementwise",
    "image",
    "joining",
    "linear",
    "normalization",
    "places",
    "recurrent",
    "reduction",
    "window",
]
