"""Phi 3: q, k and v in one matrix, the gate in the first rows of ffn_up, LongRoPE."""

from __future__ import annotations

from tlkit.frontends.gguf.kit.family import Family

FAMILIES = (Family("phi3", windowed=True, gate_inside="first"),)
