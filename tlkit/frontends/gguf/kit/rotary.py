"""Rotary positions: the table of cosines and sines, and how heads turn by it.

The formulas are those of transformers' ``modeling_rope_utils`` and llama.cpp's ``ggml_rope_ext``, computed in float32
in the same order, so that the tables are theirs to the last bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.formats.gguf.model.rotation import yarn_attention
from tlkit.frontends.gguf.kit.hyperparameters import Hyperparameters
from tlkit.frontends.gguf.kit.net import Net
from tlkit.frontends.gguf.kit.source import LanguageSource
from tlkit.frontends.network.kit.blob import Blob

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Turned:
    """The cosines and sines of this call's positions, [1, 1, T, rotary] each, as heads have them:
    what turns them is an operation that engines know as a whole."""

    cosine: Blob
    sine: Blob


def frequencies(
    source: LanguageSource, sizes: Hyperparameters, context: int, *, local: bool = False
) -> tuple[NDArray[Any], float]:
    """Return the angle per position of each pair, float32 [rotary / 2], and what cosine and sine are multiplied with.

    ``local`` layers (gemma3's sliding ones) have a base of their own and no scaling.
    """
    exponents = np.arange(0, sizes.rotary, 2, dtype=np.float32) / np.float32(sizes.rotary)
    found = np.float32(1) / np.float32(sizes.local_base if local else sizes.base) ** exponents
    scaling = sizes.scaling
    if local:
        return found, scaling.attention or 1.0
    # Llama 3's scaling, and LongRoPE's, are tensors of divisors.
    long = scaling.original and context > scaling.original
    names = ("rope_freqs.weight", "rope_factors_long.weight" if long else "rope_factors_short.weight")
    divisors = next((name for name in names if name in source.tensors), None)
    if divisors:
        found = found / source.tensor(divisors, (sizes.rotary // 2,)).array()
    if scaling.kind == "yarn":
        return _yarn(found, sizes)
    return found / np.float32(scaling.factor), scaling.attention or 1.0


def _yarn(plain: NDArray[Any], sizes: Hyperparameters) -> tuple[NDArray[Any], float]:
    scaling = sizes.scaling
    original = scaling.original or sizes.context

    def place(turns: float) -> float:
        """The pair that makes so many turns within the trained context."""
        return sizes.rotary * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(sizes.base))

    low = max(math.floor(place(scaling.fast)), 0)
    high = min(math.ceil(place(scaling.slow)), sizes.rotary - 1)
    ramp = (np.arange(sizes.rotary // 2, dtype=np.float32) - low) / np.float32(max(high - low, 0.001))
    kept = 1 - np.clip(ramp, 0, 1)
    mixed = plain / np.float32(scaling.factor) * (1 - kept) + plain * kept
    return mixed.astype(np.float32), yarn_attention(scaling.factor) * (scaling.attention or 1.0)


def turned(net: Net, sizes: Hyperparameters, context: int, positions: Blob, *, local: bool = False) -> Turned:
    """Return cosines and sines at ``positions`` [T], of a table of ``context`` rows."""
    with np.errstate(all="ignore"):  # a damaged base gives angles that are no numbers, and so are the logits then
        each, scale = frequencies(net.source, sizes, context, local=local)
        angles = np.arange(context, dtype=np.float32)[:, None] * each[None, :].astype(np.float32)
        both = np.concatenate([angles, angles], axis=1)
        tables = {name: function(both) * np.float32(scale) for name, function in (("cosine", np.cos), ("sine", np.sin))}
    shape = (1, 1, positions.shape[0], sizes.rotary)
    made = []
    for name, values in tables.items():
        table = net.constant(f"rotary_{name}{'_local' if local else ''}", values[None, None])
        made.append(net.op("gather", shape, x=table, indices=positions, axis=2))
    return Turned(*made)


def rotated(net: Net, x: Blob, turn: Turned, rotary: int) -> Blob:
    """Return x [1, heads, T, size] with the first ``rotary`` dimensions of each head turned, halves against each
    other."""
    size = x.shape[3] or 0
    part = net.slice(x, 3, 0, rotary)
    half = rotary // 2
    first, second = net.slice(part, 3, 0, half), net.slice(part, 3, half, rotary)
    across = net.concat([net.multiply(second, -1.0), first], 3)
    made = net.add(net.multiply(part, turn.cosine), net.multiply(across, turn.sine))
    return made if rotary == size else net.concat([made, net.slice(x, 3, rotary, size)], 3)
