"""Llama and what is built like it: Mistral, Mixtral, SmolLM; OLMoE with its experts.

Mistral's window is kept where a file has it, as transformers keeps it; llama.cpp attends to everything.
"""

from __future__ import annotations

from tlkit.frontends.gguf.kit.family import Family

FAMILIES = (
    Family("llama", pairs=True, renormalized=True, windowed=True),
    Family("olmoe"),
)
