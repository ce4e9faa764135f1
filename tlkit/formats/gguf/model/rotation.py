"""Rotary positions as llama.cpp wants them: keys for linear and YaRN scaling, tensors of factors for Llama 3 and Phi.

The formulas are those of transformers' ``modeling_rope_utils``: llama.cpp divides each frequency by a factor from the
tensor ``rope_freqs`` (Llama 3), or from ``rope_factors_short`` and ``rope_factors_long`` (LongRoPE).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tlkit.errors import reason
from tlkit.formats.gguf.model.architectures import Architecture
from tlkit.formats.gguf.write import Typed

Number = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a file says of it: the base, how many of a head's dimensions turn, keys, tensors by name, doubts."""

    base: float | None = None
    dimensions: int | None = None
    keys: Mapping[str, Typed] = field(default_factory=dict)
    tensors: Mapping[str, Sequence[float]] = field(default_factory=dict)
    doubts: Sequence[str] = ()


def rotation(rope: Mapping[str, Any], row: Architecture, real: Number, number: Number, head: int | None) -> Rotation:
    """Return what GGUF says of ``rope``; ``real`` and ``number`` look up entries of the config; ``head``: its width."""
    kind = str(rope.get("rope_type") or rope.get("type") or "default")
    base = _real(rope.get("rope_theta")) or real("rope_theta")
    share = _real(rope.get("partial_rotary_factor")) or real("partial_rotary_factor") or 1.0
    dimensions = int(head * share) if head else None
    if kind == "default":
        return Rotation(base, dimensions)
    try:
        if kind not in row.scalings:
            raise ValueError(f"llama.cpp has no '{kind[:40]}' scaling of the rotation for {row.name}")
        keys, tensors = _SCALINGS[kind](rope, base or 10000.0, dimensions or 0, number)
        return Rotation(base, dimensions, keys, tensors)
    except (KeyError, TypeError, ZeroDivisionError, OverflowError) as error:
        said = f"config.json: its '{kind[:40]}' scaling of the rotation cannot be read ({reason(error)[:60]})"
    except ValueError as error:
        said = reason(error)
    return Rotation(base, dimensions, doubts=(said,))


def _real(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and math.isfinite(value) and value > 0 else None


Made = tuple[dict[str, Typed], dict[str, list[float]]]


def _linear(rope: Mapping[str, Any], base: float, dimensions: int, number: Number) -> Made:
    return {
        "rope.scaling.type": Typed("str", "linear"),
        "rope.scaling.factor": Typed("f32", float(rope["factor"])),
    }, {}


def _yarn(rope: Mapping[str, Any], base: float, dimensions: int, number: Number) -> Made:
    keys = {"rope.scaling.type": Typed("str", "yarn"), "rope.scaling.factor": Typed("f32", float(rope["factor"]))}
    original = rope.get("original_max_position_embeddings") or number("original_max_position_embeddings")
    keys["rope.scaling.original_context_length"] = Typed("u32", int(original))
    options = {"attention_factor": "attn_factor", "beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow"}
    for name, key in options.items():
        if rope.get(name) is not None:
            keys[f"rope.scaling.{key}"] = Typed("f32", float(rope[name]))
    return keys, {}


def _llama3(rope: Mapping[str, Any], base: float, dimensions: int, number: Number) -> Made:
    factor, low, high = (float(rope[name]) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    original = float(rope["original_max_position_embeddings"])
    factors = []
    for index in range(0, dimensions, 2):
        length = 2 * math.pi * base ** (index / dimensions)  # positions for one turn of the pair
        smooth = min(max((original / length - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / factor + smooth))
    return {}, {"rope_freqs.weight": factors}


def _longrope(rope: Mapping[str, Any], base: float, dimensions: int, number: Number) -> Made:
    original = rope.get("original_max_position_embeddings") or number("original_max_position_embeddings")
    longest = int(number("max_position_embeddings"))
    factor = longest / int(original)
    said = rope.get("attention_factor")
    attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    tensors = {f"rope_factors_{name}.weight": [float(f) for f in rope[f"{name}_factor"]] for name in ("long", "short")}
    if any(len(factors) != dimensions // 2 for factors in tensors.values()):
        raise ValueError(f"config.json: the factors of its rotation are not {dimensions // 2}, half of a head's width")
    keys = {
        "rope.scaling.original_context_length": Typed("u32", int(original)),
        "rope.scaling.attn_factor": Typed("f32", float(said) if said is not None else attention),
    }
    return keys, tensors


_SCALINGS = {"linear": _linear, "yarn": _yarn, "llama3": _llama3, "longrope": _longrope, "su": _longrope}
