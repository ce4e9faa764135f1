"""What is said of one architecture: the type of the rows of :mod:`tlkit.formats.gguf.model.architectures`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ChangeKind = Literal["q rows", "k rows", "halves", "one more", "transposed"]
"""What llama.cpp's values are beside Hugging Face's: rows of each head in the order of its rotation; the two halves of
the rows the other way round; norms that hold 1 + the weight; matrices of a linear layer the other way round."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One ``model_type``. ``keys`` are rows of key, GGUF type and the config's names for it, the first that is there.

    ``tensors`` and ``blocks`` name what must be there in the model and in each block, ``optional`` what may be (as in
    GGUF, ``.weight`` where no ending is given); ``changes`` say by tensor what is done to values; ``renames`` bring
    other spellings of the weights' names to the usual one (pattern, replacement); ``skipped`` are patterns of tensors
    that no inference needs; ``activations`` and ``scalings`` are what llama.cpp computes for this architecture;
    ``expected`` are entries of the config that it takes for granted, ``defaults`` those that a config may leave out.
    """

    name: str
    keys: str
    tensors: str
    blocks: str
    activations: tuple[str, ...]
    defaults: Mapping[str, Any]
    optional: str = ""
    changes: Mapping[str, ChangeKind] = field(default_factory=dict)
    renames: tuple[tuple[str, str], ...] = ()
    skipped: tuple[str, ...] = ()
    scalings: tuple[str, ...] = ()
    expected: Mapping[str, Any] = field(default_factory=dict)
    rotates: bool = True
    encodes: bool = False
    """Whether it makes vectors of texts, and generates nothing."""
    joined: tuple[str, ...] = ()
    """Matrices that are several of the folder's, one below the other."""
    attention_pattern: int = 0
    """Every so many-th layer attends to everything, the others within the sliding window; 0: all attend to all."""
    slides: bool = False
    """Whether transformers keeps all or some of its layers to a ``sliding_window``."""


BODY = """
context_length u32 max_position_embeddings n_positions n_ctx
embedding_length u32 hidden_size n_embd
block_count u32 num_hidden_layers n_layer
feed_forward_length u32 intermediate_size n_inner
attention.head_count u32 num_attention_heads n_head
"""
"""The keys of every model."""
LAYER_NORM = "attention.layer_norm_epsilon f32 layer_norm_epsilon layer_norm_eps\n"
"""The key of those with LayerNorm."""
