from __future__ import annotations

import pytest
from gguf.constants import MODEL_ARCH_NAMES, MODEL_TENSORS, TENSOR_NAMES
from gguf.tensor_mapping import get_tensor_name_map

from tlkit.formats.gguf.names import _TABLES, are_gguf_names, find_architecture, to_gguf, to_hugging_face

LLAMA = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "blk.11.attn_q.weight": "model.layers.11.self_attn.q_proj.weight",
    "blk.11.attn_q.bias": "model.layers.11.self_attn.q_proj.bias",
    "blk.11.attn_output.weight": "model.layers.11.self_attn.o_proj.weight",
    "blk.11.attn_norm.weight": "model.layers.11.input_layernorm.weight",
    "blk.11.ffn_norm.weight": "model.layers.11.post_attention_layernorm.weight",
    "blk.11.ffn_gate.weight": "model.layers.11.mlp.gate_proj.weight",
    "blk.11.ffn_up.weight": "model.layers.11.mlp.up_proj.weight",
    "blk.11.ffn_down.weight": "model.layers.11.mlp.down_proj.weight",
}
"""As transformers' LlamaForCausalLM names its parameters."""

GEMMA3 = {
    "blk.0.attn_q_norm.weight": "model.layers.0.self_attn.q_norm.weight",
    "blk.0.post_attention_norm.weight": "model.layers.0.post_attention_layernorm.weight",
    "blk.0.ffn_norm.weight": "model.layers.0.pre_feedforward_layernorm.weight",
    "blk.0.post_ffw_norm.weight": "model.layers.0.post_feedforward_layernorm.weight",
}
GPT2 = {
    "token_embd.weight": "transformer.wte.weight",
    "blk.3.attn_qkv.bias": "transformer.h.3.attn.c_attn.bias",
    "blk.3.ffn_down.weight": "transformer.h.3.mlp.c_proj.weight",
    "output_norm.bias": "transformer.ln_f.bias",
}


@pytest.mark.parametrize(("arch", "pairs"), [("llama", LLAMA), ("gemma3", GEMMA3), ("gpt2", GPT2)])
def test_names_both_ways(arch: str, pairs: dict[str, str]) -> None:
    assert to_hugging_face(pairs, arch) == pairs
    assert to_gguf(pairs.values(), arch) == {theirs: ours for ours, theirs in pairs.items()}


@pytest.mark.parametrize("arch", sorted(_TABLES))
def test_every_name_given_is_one_that_gguf_s_map_leads_back_from(arch: str) -> None:
    kind = next(key for key, name in MODEL_ARCH_NAMES.items() if name == arch)
    names = [TENSOR_NAMES[tensor].format(bid=7) + ".weight" for tensor in MODEL_TENSORS[kind]]
    found = to_hugging_face(names, arch)
    mapping = get_tensor_name_map(kind, 8)
    assert {mapping.get_name(new, (".weight",)) for new in found.values()} == set(found)
    assert len(found) >= 8


def test_what_the_map_does_not_know_is_left_out() -> None:
    assert to_gguf(["model.embed_tokens.weight", "my.own.tensor"], "llama") == {
        "model.embed_tokens.weight": "token_embd.weight"
    }
    assert to_hugging_face(["rope_freqs.weight"], "llama") == {}
    assert to_hugging_face(["token_embd.weight"], "mamba") == {}


def test_two_names_for_one_tensor_are_both_kept_as_they_are() -> None:
    assert to_gguf(["model.embed_tokens.weight", "transformer.wte.weight"], "llama") == {}


@pytest.mark.parametrize(
    ("hint", "arch"),
    [
        ("llama", "llama"),
        ("gemma3_text", "gemma3"),
        ("mistral", "llama"),
        ("gpt_neox", "gptneox"),
        ("phi", "phi2"),
        ("qwen2_moe", "qwen2moe"),
        ("my_own", ""),
        ("", ""),
    ],
)
def test_architectures_by_their_model_type(hint: str, arch: str) -> None:
    assert find_architecture(hint) == arch


def test_gguf_s_names_are_known_by_sight() -> None:
    assert are_gguf_names(["a", "blk.0.attn_q.weight"])
    assert not are_gguf_names(["model.layers.0.self_attn.q_proj.weight", "lm_head.weight"])
