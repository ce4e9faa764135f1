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
from tlkit.formats.gguf.model.row import Architecture
from tlkit.formats.gguf.write import Typed

Number = Callable[..., Any]
_WIDEST = 1 << 20  # dimensions of a head


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a file says of it: the base, how many of a head's dimensions turn, keys, tensors by name; ``doubts`` say
    what llama.cpp does not do, ``limits`` what the keys and tensors cannot tell."""

    base: float | None = None
    dimensions: int | None = None
    keys: Mapping[str, Typed] = field(default_factory=dict)
    tensors: Mapping[str, Sequence[float]] = field(default_factory=dict)
    doubts: Sequence[str] = ()
    limits: Sequence[str] = ()


def rotation(rope: Mapping[str, Any], row: Architecture, real: Number, number: Number, head: int | None) -> Rotation:
    """Return what GGUF says of ``rope``; ``real`` and ``number`` look up entries of the config; ``head``: its width."""
    kind = str(rope.get("rope_type") or rope.get("type") or "default")
    base = _real(rope.get("rope_theta")) or real("rope_theta")
    share = _real(rope.get("partial_rotary_factor")) or real("partial_rotary_factor") or 1.0
    dimensions = int(head * min(share, 1.0)) if head else None
    if dimensions is not None and dimensions > _WIDEST:
        return Rotation(base, limits=(f"its rotation has {dimensions} dimensions, which no model has",))
    # Dynamic scaling only begins beyond max_position_embeddings, where a file's context ends.
    if kind in ("default", "dynamic"):
        return Rotation(base, dimensions)
    kind = _ALSO.get((row.name, kind), kind)
    try:
        if kind not in _SCALINGS:
            raise ValueError(f"its rotation is scaled by '{kind[:40]}', which tlkit does not compute")
        keys, tensors = _SCALINGS[kind](rope, base or 10000.0, dimensions or 0, number)
        doubts = () if kind in row.scalings else (f"llama.cpp has no '{kind}' scaling of the rotation for {row.name}",)
        return Rotation(base, dimensions, keys, tensors, doubts)
    except (KeyError, TypeError, ZeroDivisionError, OverflowError) as error:
        said = f"its '{kind[:40]}' scaling of the rotation cannot be read ({reason(error)[:60]})"
    except ValueError as error:
        said = reason(error)
    return Rotation(base, dimensions, limits=(said,))


def _real(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and math.isfinite(value) and value > 0 else None


Made = tuple[dict[str, Typed], dict[str, list[float]]]


def _linear(rope: Mapping[str, Any], base: float, dimensions: int, number: Number) -> Made:
    return {
        "rope.scaling.type": Typed("str", "linear"),
        "rope.scaling.factor": Typed("f32", float(rope["factor"])),
    }, {}


def _yarn(rope: Mapping[str, Any], base: float, dimensions: int, number: Number) -> Made:
    original = _trained(rope, number)
    factor = float(rope["factor"] or number("max_position_embeddings") / original)
    if rope.get("truncate") is False:
        raise ValueError("its 'yarn' scaling of the rotation is not truncated (truncate is false)")
    keys = {"rope.scaling.type": Typed("str", "yarn"), "rope.scaling.factor": Typed("f32", factor)}
    keys["rope.scaling.original_context_length"] = Typed("u32", original)
    for name in ("beta_fast", "beta_slow"):
        if rope.get(name):
            keys[f"rope.scaling.yarn_{name}"] = Typed("f32", float(rope[name]))
    scale, both = rope.get("attention_factor"), (rope.get("mscale"), rope.get("mscale_all_dim"))
    if scale is None and all(both):
        scale = yarn_attention(factor, float(both[0] or 0)) / yarn_attention(factor, float(both[1] or 0))
    if scale is not None:
        # llama.cpp multiplies the key with what it takes where there is none.
        keys["rope.scaling.attn_factor"] = Typed("f32", float(scale) / yarn_attention(factor))
    return keys, {}


def yarn_attention(factor: float, share: float = 1.0) -> float:
    """Return what YaRN multiplies cosine and sine with: ``get_mscale`` of transformers' ``modeling_rope_utils``."""
    return 0.1 * share * math.log(factor) + 1 if factor > 1 else 1.0


def _trained(rope: Mapping[str, Any], number: Number) -> int:
    """Return the context that the model was trained for, in tokens: first what the config says beside the rotation."""
    found = number("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
    return int(found or number("max_position_embeddings"))


def _llama3(rope: Mapping[str, Any], base: float, dimensions: int, number: Number) -> Made:
    factor, low, high = (float(rope[name]) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    original = float(_trained(rope, number))
    factors = []
    for index in range(0, dimensions, 2):
        length = 2 * math.pi * base ** (index / dimensions)  # positions for one turn of the pair
        smooth = min(max((original / length - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / factor + smooth))
    return {}, {"rope_freqs.weight": factors}


def _longrope(rope: Mapping[str, Any], base: float, dimensions: int, number: Number) -> Made:
    original = _trained(rope, number)
    factor = float(rope.get("factor") or int(number("max_position_embeddings")) / original)
    said = rope.get("attention_factor")
    attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    tensors = {f"rope_factors_{name}.weight": [float(f) for f in rope[f"{name}_factor"]] for name in ("long", "short")}
    if any(len(factors) != dimensions // 2 for factors in tensors.values()):
        raise ValueError(f"the factors of its rotation are not {dimensions // 2}, half of a head's width")
    keys = {
        "rope.scaling.original_context_length": Typed("u32", original),
        "rope.scaling.attn_factor": Typed("f32", float(said) if said is not None else attention),
    }
    return keys, tensors


_SCALINGS = {"linear": _linear, "yarn": _yarn, "llama3": _llama3, "longrope": _longrope}
_ALSO = {("phi3", "su"): "longrope", ("phi3", "yarn"): "longrope"}
"""What older configs of an architecture call a scaling."""
