"""Qwen 2 with biases on q, k and v; Qwen 3 with norms of q and k; both with experts."""

from __future__ import annotations

from tlkit.frontends.gguf.kit.family import Family

_BIASED = ("attn_q", "attn_k", "attn_v")

FAMILIES = (
    Family("qwen2", biased=_BIASED),
    Family("qwen2moe", biased=_BIASED),
    Family("qwen3"),
    Family("qwen3moe", renormalized=True),
)
