"""Llama and what is built like it: Mistral, Mixtral, SmolLM; OLMoE with its experts."""

from __future__ import annotations

from tlkit.frontends.gguf.kit.family import Family

FAMILIES = (
    Family("llama", pairs=True, renormalized=True),
    Family("olmoe"),
)
