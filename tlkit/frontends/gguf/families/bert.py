"""Encoders that give a vector per text: BERT, Nomic's with rotary positions, Jina's with ALiBi."""

from __future__ import annotations

from tlkit.frontends.gguf.kit.family import Family

FAMILIES = (
    Family(
        "bert",
        activation="erf",
        rotates=False,
        reads="all",
        biased=("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"),
        unused=("cls.weight", "cls.bias", "cls.output.weight", "cls.output.bias"),
    ),
    Family("nomic-bert", activation="silu", reads="all"),
    Family("jina-bert-v2", activation="erf", rotates=False, reads="all", biases=True, gate_inside="first"),
)
