"""Random numbers. With a seed each call gives the same ones on every machine, though not those that Core ML draws.
Without a seed (or with a negative one) PyTorch's global generator is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tlkit.errors import ExecutionError
from tlkit.mil.ops.kit.registry import Ints, Tensor, declared_carrier, op


@op()
def random_uniform(output_types: Any, shape: Ints, low: float = 0.0, high: float = 1.0, seed: int = -1) -> Tensor:
    """Uniform in [``low``, ``high``)."""
    return _drawn(torch.rand, shape, seed, output_types) * (high - low) + low


@op()
def random_normal(output_types: Any, shape: Ints, mean: float = 0.0, stddev: float = 1.0, seed: int = -1) -> Tensor:
    """Normal with this mean and standard deviation."""
    return _drawn(torch.randn, shape, seed, output_types) * stddev + mean


@op()
def random_bernoulli(output_types: Any, shape: Ints, prob: float = 0.5, seed: int = -1) -> Tensor:
    """1 with probability ``prob``, else 0."""
    return (_drawn(torch.rand, shape, seed, output_types) < prob).to(declared_carrier(output_types))


@op()
def random_categorical(output_types: Any, x: Tensor, mode: str = "logits", size: int = 1, seed: int = -1) -> Tensor:
    """``size`` draws, with replacement, from the distribution in the last dimension of ``x``."""
    if mode not in ("logits", "probs"):
        raise ExecutionError(f"unknown mode '{mode}'", "modes are logits, probs")
    weights = x.float().softmax(-1) if mode == "logits" else x.float()
    # On the CPU, for the reason that _drawn gives.
    rows = weights.reshape(-1, weights.shape[-1]).cpu()
    drawn = torch.multinomial(rows, size, replacement=True, generator=_generator(seed))
    return drawn.reshape(*x.shape[:-1], size).to(x.device, declared_carrier(output_types))


def _drawn(draw: Callable[..., Tensor], shape: Ints, seed: int, output_types: Any) -> Tensor:
    """Drawn on the CPU, so that a seed means the same everywhere, then moved to where the model runs."""
    drawn = draw(tuple(shape), generator=_generator(seed), dtype=declared_carrier(output_types), device="cpu")
    return drawn.to(torch.get_default_device())


def _generator(seed: int) -> torch.Generator | None:
    return torch.Generator().manual_seed(seed) if seed >= 0 else None
