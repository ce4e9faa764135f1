"""A cache of transformers as a package's: for tests/core/language/test_words.py and benchmarks/language_words.py."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache


class Halves(DynamicCache):
    """A cache that rounds keys and values to f16, as a package's states do."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add keys and values, rounded."""
        return super().update(key_states.half().float(), value_states.half().float(), layer_idx, *args, **kwargs)
