"""Translate tensor names between Hugging Face and GGUF, by the gguf package's own map.

For an architecture, the map gives GGUF's name for each name that some model uses; several names map to one. So the
reverse needs the names that Hugging Face uses for each architecture. The tables below list them, and a name is used
only if the map confirms it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

_SUFFIXES = (".weight", ".bias")
_GGUF_NAME = re.compile(r"(blk\.\d+|token_embd|output_norm)\.")
_LAYER = re.compile(r"(?:^|\.)(?:blk|layers?|h|blocks?)\.(\d{1,4})\.")
_ALIASES = {"mistral": "llama", "mixtral": "llama", "phi": "phi2", "gpt-neox": "gptneox"}

_LLAMA = """
token_embd model.embed_tokens
output_norm model.norm
output lm_head
attn_norm model.layers.#.input_layernorm
attn_q model.layers.#.self_attn.q_proj
attn_k model.layers.#.self_attn.k_proj
attn_v model.layers.#.self_attn.v_proj
attn_qkv model.layers.#.self_attn.qkv_proj
attn_output model.layers.#.self_attn.o_proj
attn_q_norm model.layers.#.self_attn.q_norm
attn_k_norm model.layers.#.self_attn.k_norm
post_attention_norm model.layers.#.post_attention_layernorm
ffn_norm model.layers.#.pre_feedforward_layernorm model.layers.#.post_attention_layernorm
post_ffw_norm model.layers.#.post_feedforward_layernorm
ffn_gate model.layers.#.mlp.gate_proj
ffn_up model.layers.#.mlp.up_proj
ffn_down model.layers.#.mlp.down_proj
ffn_gate_inp model.layers.#.mlp.gate model.layers.#.block_sparse_moe.gate
"""
_PHI3 = _LLAMA.replace("mlp.up_proj", "mlp.gate_up_proj")
_PHI2 = """
token_embd model.embed_tokens
output_norm model.final_layernorm
output lm_head
attn_norm model.layers.#.input_layernorm
attn_q model.layers.#.self_attn.q_proj
attn_k model.layers.#.self_attn.k_proj
attn_v model.layers.#.self_attn.v_proj
attn_output model.layers.#.self_attn.dense
ffn_up model.layers.#.mlp.fc1
ffn_down model.layers.#.mlp.fc2
"""
_GPT2 = """
token_embd transformer.wte
position_embd transformer.wpe
output_norm transformer.ln_f
output lm_head
attn_norm transformer.h.#.ln_1
attn_qkv transformer.h.#.attn.c_attn
attn_output transformer.h.#.attn.c_proj
ffn_norm transformer.h.#.ln_2
ffn_up transformer.h.#.mlp.c_fc
ffn_down transformer.h.#.mlp.c_proj
"""
_GPTNEOX = """
token_embd gpt_neox.embed_in
output_norm gpt_neox.final_layer_norm
output embed_out
attn_norm gpt_neox.layers.#.input_layernorm
attn_qkv gpt_neox.layers.#.attention.query_key_value
attn_output gpt_neox.layers.#.attention.dense
ffn_norm gpt_neox.layers.#.post_attention_layernorm
ffn_up gpt_neox.layers.#.mlp.dense_h_to_4h
ffn_down gpt_neox.layers.#.mlp.dense_4h_to_h
"""
_BERT = """
token_embd embeddings.word_embeddings
token_embd_norm embeddings.LayerNorm
token_types embeddings.token_type_embeddings
position_embd embeddings.position_embeddings
attn_q encoder.layer.#.attention.self.query
attn_k encoder.layer.#.attention.self.key
attn_v encoder.layer.#.attention.self.value
attn_output encoder.layer.#.attention.output.dense
attn_output_norm encoder.layer.#.attention.output.LayerNorm
ffn_up encoder.layer.#.intermediate.dense
ffn_down encoder.layer.#.output.dense
layer_output_norm encoder.layer.#.output.LayerNorm
"""
_TABLES = {
    **dict.fromkeys(("llama", "gemma", "gemma2", "gemma3", "qwen2", "qwen2moe", "qwen3", "qwen3moe"), _LLAMA),
    **dict.fromkeys(("olmo", "olmo2", "olmoe", "granite", "stablelm", "smollm3", "command-r", "seed_oss"), _LLAMA),
    "phi3": _PHI3,
    "phi2": _PHI2,
    "gpt2": _GPT2,
    "gptneox": _GPTNEOX,
    "bert": _BERT,
}


def are_gguf_names(names: Iterable[str]) -> bool:
    """Whether the tensors have GGUF's names."""
    return any(_GGUF_NAME.match(name) for name in names)


def find_architecture(hint: str) -> str:
    """Return the gguf package's name for the architecture ``hint`` (a ``model_type``), or ""."""
    from gguf.constants import MODEL_ARCH_NAMES

    known = set(MODEL_ARCH_NAMES.values())
    plain = hint.lower().removesuffix("_text")
    options = (plain, plain.replace("_", "-"), plain.replace("_", "").replace("-", ""))
    return next((found for name in options if (found := _ALIASES.get(name, name)) in known), "")


def to_gguf(names: Iterable[str], arch: str) -> dict[str, str]:
    """Return GGUF's name for each of ``names``; unknown ones are left out."""
    names = list(names)
    mapping = _map(arch, _blocks(names))
    found = {name: mapping.get_name(name, try_suffixes=_SUFFIXES) for name in names}
    return _distinct({name: new for name, new in found.items() if new})


def to_hugging_face(names: Iterable[str], arch: str) -> dict[str, str]:
    """Return Hugging Face's name for each of ``names``, which are GGUF's; those not in the tables are left out."""
    names = list(names)
    mapping, table = _map(arch, _blocks(names)), _table(arch)
    found = {}
    for name in names:
        base, dot, suffix = name.rpartition(".")
        block, _, short = base.removeprefix("blk.").partition(".")
        inside = base.startswith("blk.")
        options = (option.replace("#", block) for option in table.get(short if inside else base, ()))
        new = next((option for option in options if mapping.get_name(option) == base), None)
        if new:
            found[name] = new + dot + suffix
    return _distinct(found)


def _distinct(found: dict[str, str]) -> dict[str, str]:
    """Leave out names that two tensors would share."""
    counts = Counter(found.values())
    return {name: new for name, new in found.items() if counts[new] == 1}


def _blocks(names: Iterable[str]) -> int:
    return max((int(layer[1]) + 1 for name in names if (layer := _LAYER.search(name))), default=0)


@cache
def _map(arch: str, blocks: int) -> Any:
    from gguf.constants import MODEL_ARCH_NAMES
    from gguf.tensor_mapping import get_tensor_name_map

    return get_tensor_name_map(next(key for key, name in MODEL_ARCH_NAMES.items() if name == arch), blocks)


@cache
def _table(arch: str) -> dict[str, tuple[str, ...]]:
    rows = (line.split() for line in _TABLES.get(arch, "").strip().splitlines())
    return {name: tuple(options) for name, *options in rows}
