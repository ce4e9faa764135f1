"""Gemma 1 to 3: scaled embeddings, norms before and after each part, sliding windows, soft-capped logits.

GGUF stores norms with the 1 that Gemma adds. The models of 27B (46 and 62 layers) scale queries by another size.
"""

from __future__ import annotations

from tlkit.frontends.gguf.kit.family import Family

FAMILIES = (
    Family("gemma", activation="tanh", scaled=True),
    Family("gemma2", activation="tanh", scaled=True, full_every=2, odd_layers=46),
    Family("gemma3", activation="tanh", scaled=True, full_every=6, local_rotation=True, odd_layers=62),
)
