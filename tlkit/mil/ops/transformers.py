"""MIL's ops for transformers (iOS18)."""

from __future__ import annotations

import torch.nn.functional as F

from tlkit.mil.ops.kit.registry import Tensor, op


@op(since=18)
def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """softmax(query @ key^T / sqrt(E) + attn_mask) @ value; a bool mask keeps the places that are True."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask)
