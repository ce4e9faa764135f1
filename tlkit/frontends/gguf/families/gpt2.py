"""GPT-2: learned positions, LayerNorm, biases everywhere."""

from __future__ import annotations

from tlkit.frontends.gguf.kit.family import Family

FAMILIES = (Family("gpt2", activation="tanh", rotates=False, biased=("attn_qkv", "attn_output", "ffn_up", "ffn_down")),)
