"""Configurations that nobody tried: random ones, and the smallest of each kind that was computed wrongly once, from the
folder, from GGUF (f32 and Q8_0) and from the packages of both, on OpenVINO and PyTorch, beside transformers in f32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.core.language.any_model import tried, wrong
from tests.core.language.configurations import KINDS, Case, drawn, write
from tests.formats.gguf.model.test_folder import changed
from tlkit import convert_weights
from tlkit.core.language.model import open_language
from tlkit.errors import LoadError
from tlkit.formats.gguf.model.architectures import ARCHITECTURES
from tlkit.formats.gguf.model.hyperparameters import hyperparameters

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
ENCODER = {name: value for name, value in SMALL.items() if name != "num_key_value_heads"}
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 500.0,
    "factor": 3.0,
    "long_factor": [2.0] * 8,
    "short_factor": [1.0 + 0.3 * n for n in range(8)],
    "original_max_position_embeddings": 64,
}
SPARSE = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SHARED = {**SPARSE, "shared_expert_intermediate_size": 40}
WINDOW = {"sliding_window": 7, "use_sliding_window": True}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 7}

KEPT: dict[str, Case] = {
    "a scaling that llama.cpp has for others": Case("qwen2", {**SMALL, "rope_parameters": LLAMA3}),
    "LongRoPE outside Phi, and its factor": Case("llama", {**SMALL, "rope_parameters": LONG}),
    "YaRN's two scales": Case("llama", {**SMALL, "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5}}),
    "YaRN's own scale": Case("llama", {**SMALL, "rope_parameters": {**YARN, "attention_factor": 0.8}}),
    "an encoder's wider heads": Case("nomic_bert", {**ENCODER, "head_dim": 24}),
    "YaRN of an encoder": Case("nomic_bert", {**ENCODER, "rope_parameters": YARN}),
    "dynamic": Case("llama", {**SMALL, "rope_parameters": {**YARN, "rope_type": "dynamic"}}),
    "ReLU": Case("llama", {**SMALL, "hidden_act": "relu"}),
    "another GELU": Case("phi3", {**SMALL, "hidden_act": "gelu"}),
    "an encoder's other GELU": Case("bert", {**ENCODER, "hidden_act": "gelu_new"}),
    "Gemma's first name of GELU": Case("gemma", {**SMALL, "head_dim": 16, "hidden_act": "gelu"}),
    "GELU by Gemma 2's name": Case("gemma2", {**SMALL, **GEMMA, "hidden_activation": "gelu"}),
    "experts' activation": Case("mixtral", {**SMALL, "num_local_experts": 3, "hidden_act": "gelu"}),
    "a window of all": Case("mixtral", {**SMALL, "num_local_experts": 2, "sliding_window": 7}),
    "a window of later layers": Case("qwen3", {**SMALL, "head_dim": 16, **WINDOW, "max_window_layers": 1}),
    "a window of every second layer": Case("qwen2_moe", {**SMALL, **SHARED, **WINDOW}),
    "a window of experts": Case("qwen3_moe", {**SMALL, **SPARSE, **WINDOW}),
    "layers as they are listed": Case("qwen2", {**SMALL, **WINDOW, "layer_types": ["full_attention"] * 2}),
    "layers in another order": Case(
        "gemma3_text", {**SMALL, **GEMMA, "layer_types": ["full_attention", "sliding_attention"]}
    ),
    "another scale of queries": Case("gemma2", {**SMALL, **GEMMA, "query_pre_attn_scalar": 7}),
    "no caps": Case("gemma2", {**SMALL, **GEMMA, "attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "a cap that is there and not used": Case("gemma3_text", {**SMALL, **GEMMA, "attn_logit_softcapping": 5.0}),
    "one expert": Case("olmoe", {**SMALL, "num_experts": 1, "num_experts_per_tok": 1}),
    "renormalized": Case("qwen2_moe", {**SMALL, **SHARED, "norm_topk_prob": True}),
    "not renormalized": Case("qwen3_moe", {**SMALL, **SPARSE, "norm_topk_prob": False}),
    "no biases": Case("qwen2_moe", {**SMALL, **SHARED, "qkv_bias": False}),
}
"""By what was wrong."""

LIMITS: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"hidden_act": "quick_gelu"}, "activation is quick_gelu"),
    ("llama", {"rope_scaling": {"rope_type": "spiral", "factor": 2.0}}, "'spiral'"),
    ("llama", {"rope_parameters": {**YARN, "truncate": False}}, "truncate is false"),
    ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
    ("gemma3_text", {"rope_parameters": {"full_attention": YARN, "sliding_attention": YARN}}, "sliding layers"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is False"),
    ("olmoe", {"clip_qkv": 8.0}, "clip_qkv is 8.0"),
    ("qwen3_moe", {"mlp_only_layers": [0]}, "mlp_only_layers is [0]"),
    ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type is relative_key"),
    ("qwen3", {"layer_types": ["linear_attention"]}, "linear_attention"),
    ("nomic_bert", {"rotary_emb_fraction": 0.5}, "rotary_emb_fraction is 0.5"),
    ("llama", {"num_hidden_layers": -1}, "num_hidden_layers is -1"),
    ("gemma3_text", {"num_hidden_layers": 2**31 - 1}, "num_hidden_layers is 2147483647"),
    ("llama", {"head_dim": 2**31 - 1, "rope_parameters": LLAMA3}, "2147483647 dimensions"),
]
"""Entries that nothing computes, by ``model_type``, and what is said of them."""


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_what_was_wrong_is_right(tmp_path: Path, name: str) -> None:
    found = tried(KEPT[name], tmp_path)
    assert "transformers" not in found
    assert len(found) > 3
    assert not wrong(found)
    assert not [value for key, value in found.items() if isinstance(value, str)]


@pytest.mark.slow
@pytest.mark.parametrize("model_type", KINDS)
def test_random_ones_are_right_or_refused(tmp_path: Path, model_type: str) -> None:
    for seed in range(1000, 1003):
        found = tried(drawn(seed, model_type), tmp_path / str(seed))
        assert not wrong(found), found


@pytest.mark.parametrize(("model_type", "entries", "said"), LIMITS)
def test_what_is_not_computed_is_named(model_type: str, entries: dict[str, Any], said: str) -> None:
    made = hyperparameters({**SMALL, **entries}, ARCHITECTURES[model_type])
    assert any(said in limit for limit in made.limits), made.limits
    assert not hyperparameters(SMALL, ARCHITECTURES[model_type]).limits


def test_what_makes_one_vector_of_an_encoder_s_is_kept_or_named(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    write(folder, Case("bert", ENCODER))
    place = folder / "1_Pooling"
    place.mkdir()
    for said, number in (({"pooling_mode_cls_token": True}, 2), ({"pooling_mode": "mean"}, 1)):
        (place / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": False, **said}))
        assert open_language(folder).pooling == number
    for said, word in (
        ({"pooling_mode_max_tokens": True}, "max_tokens"),
        ({"pooling_mode": ["cls", "mean"]}, "cls and"),
    ):
        (place / "config.json").write_text(json.dumps(said))
        with pytest.raises(LoadError, match=f"pooled by {word}"):
            open_language(folder)
    (place / "config.json").unlink()
    (folder / "2_Dense").mkdir()
    with pytest.raises(LoadError, match="dense layer follows its pooling"):
        open_language(folder)


def test_what_is_not_computed_is_refused_from_the_folder_and_from_its_gguf(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "a.gguf"
    write(folder, Case("llama", SMALL))
    changed(folder, "config.json", hidden_act="quick_gelu")
    assert any("activation is quick_gelu" in note for note in convert_weights(folder, file).notes)
    for path in (folder, file):
        with pytest.raises(LoadError, match="activation is quick_gelu, which tlkit does not compute"):
            open_language(path)
