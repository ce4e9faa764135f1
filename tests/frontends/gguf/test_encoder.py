"""Encoders against transformers: BERT and Nomic's.

Covers tlkit/frontends/gguf/families/bert.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.formats.gguf.model.folders import build
from tlkit.core.language.model import open_language

IDS = [2, 5, 9, 33, 100, 7, 60, 3]
NOMIC = {
    "token_embd": "embeddings.word_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
}
NOMIC_BLOCK = {
    "attn_output": "self_attn.o_proj",
    "attn_output_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "layer_output_norm": "post_mlp_layernorm",
}


def test_bert_is_that_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = build(tmp_path / "folder", "bert")
    with torch.no_grad():
        wanted = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()(torch.tensor([IDS])).last_hidden_state
    found = open_language(folder).encode(IDS)
    assert np.abs(found - wanted[0].numpy()).max() < 1e-4


def test_nomic_is_that_of_transformers(tmp_path: Path) -> None:
    """Written by the gguf package, as llama.cpp names and joins the tensors of this model."""
    from transformers import NomicBertConfig, NomicBertModel

    torch.manual_seed(3)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = NomicBertConfig(vocab_size=128, max_position_embeddings=64, **sizes)
    model: Any = NomicBertModel(config, add_pooling_layer=False).float().eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(torch.randn(value.shape) * 0.2 + (1 if "norm" in name.lower() and value.ndim == 1 else 0))
        wanted = model(torch.tensor([IDS])).last_hidden_state[0].numpy()
    found = open_language(nomic(tmp_path / "nomic.gguf", model, config)).encode(IDS)
    assert np.abs(found - wanted).max() < 1e-4


def nomic(file: Path, model: Any, config: Any) -> Path:
    """Write a Nomic model as a GGUF file."""
    import gguf

    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    writer = gguf.GGUFWriter(file, "nomic-bert")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_causal_attention(False)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"\u2581w{n}" for n in range(124))])
    writer.add_token_types([3] * 4 + [1] * 124)

    def add(new: str, *names: str) -> None:
        for ending in ("weight", "bias"):
            parts = [weights[f"{name}.{ending}"] for name in names if f"{name}.{ending}" in weights]
            if parts:
                writer.add_tensor(f"{new}.{ending}", np.concatenate(parts).astype(np.float32))

    for new, name in NOMIC.items():
        add(new, name)
    for layer in range(config.num_hidden_layers):
        add(f"blk.{layer}.attn_qkv", *(f"layers.{layer}.self_attn.{part}_proj" for part in "qkv"))
        for new, name in NOMIC_BLOCK.items():
            add(f"blk.{layer}.{new}", f"layers.{layer}.{name}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
