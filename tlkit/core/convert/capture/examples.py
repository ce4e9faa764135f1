"""Seeded values for ports, as a package takes them and as its source module does. Importing this imports torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit.ports.port import Port


def draw(ports: tuple[Port, ...], module: nn.Module, seed: int) -> list[NDArray[Any]]:
    """Return a seeded value for each port: pixels 0 to 255 as uint8 (C, H, W), standard normals, or small integers.

    Integers stay below the smallest embedding table in ``module`` (2 where it has none), so that they index all.
    """
    rng = np.random.default_rng(seed)
    tables = [part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding)]
    return [_draw(port, rng, min(tables, default=2)) for port in ports]


def example_inputs(module: nn.Module, ports: tuple[Port, ...], seed: int) -> tuple[Tensor, ...]:
    """Return what ``module`` is captured on: seeded tensors, of the example's shape where shapes flex."""
    fixed = tuple(port.example() for port in ports)
    return tuple(to_source(port, value) for port, value in zip(fixed, draw(fixed, module, seed), strict=True))


def _draw(port: Port, rng: np.random.Generator, below: int) -> NDArray[Any]:
    if port.image:
        return rng.integers(0, 256, port.shape[1:], dtype=np.uint8)
    if port.dtype == "int32":
        return rng.integers(0, below, port.shape, dtype=np.int32)
    return rng.standard_normal(port.shape, dtype=np.float32).astype(port.dtype)


def to_source(port: Port, value: NDArray[Any]) -> Tensor:
    """Return the tensor that the source module gets for ``value``: f32 or int64; pixels after scale and bias."""
    if port.image:
        bias = np.asarray(port.image.bias, np.float32)[:, None, None]
        value = (value.astype(np.float32) * np.float32(port.image.scale) + bias)[None]
    return torch.from_numpy(np.ascontiguousarray(value)).to(torch.int64 if port.dtype == "int32" else torch.float32)
