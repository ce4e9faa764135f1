"""The architectures that a Hugging Face folder becomes a whole GGUF model of, as data.

One row per ``model_type`` of ``config.json``: which of llama.cpp's architectures it is, which metadata keys llama.cpp
reads and from which of the config's entries they come, the defaults of transformers' config classes (a config may leave
out what equals them), the tensors that llama.cpp asks for, and what it expects of their values. A row says nothing of
weights' names: :mod:`tlkit.formats.gguf.names` does. Keys are those of gguf's ``constants.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tlkit.formats.gguf.model.encoder_rows import BERT, JINA, NOMIC
from tlkit.formats.gguf.model.row import BODY, LAYER_NORM, Architecture, ChangeKind

_GROUPED = BODY + "attention.head_count_kv u32 num_key_value_heads\n"
_RMS = _GROUPED + "attention.layer_norm_rms_epsilon f32 rms_norm_eps\nrope.freq_base f32 rope_theta\n"
_HEADS = _RMS + "attention.key_length u32 head_dim\nattention.value_length u32 head_dim\n"
_LLAMA_KEYS = _HEADS + "vocab_size u32 vocab_size\nrope.dimension_count u32 head_dim\n"
_WINDOW = _HEADS + "attention.sliding_window u32 sliding_window\n"
_EXPERTS = "expert_count u32 num_experts num_local_experts\nexpert_used_count u32 num_experts_per_tok\n"

_ENDS = "token_embd output_norm"
_ATTENTION = "attn_norm attn_q attn_k attn_v attn_output ffn_norm"
_GATED = _ATTENTION + " ffn_gate ffn_up ffn_down"
_SPARSE = _ATTENTION + " ffn_gate_inp ffn_gate_exps ffn_up_exps ffn_down_exps"
_BIASES = "attn_q.bias attn_k.bias attn_v.bias"
_ROWS: dict[str, ChangeKind] = {
    "attn_q.weight": "q rows",
    "attn_q.bias": "q rows",
    "attn_k.weight": "k rows",
    "attn_k.bias": "k rows",
}
_NORMS = ("attn_norm", "ffn_norm", "output_norm", "post_attention_norm", "post_ffw_norm", "attn_q_norm", "attn_k_norm")
_ONE_MORE: dict[str, ChangeKind] = {f"{name}.weight": "one more" for name in _NORMS}
# A model that sees images keeps its language model inside, under names that changed with transformers.
_DECODER = ((r"^(model\.)?language_model\.(model\.)?", "model."), (r"^model\.lm_head\.", "lm_head."))
# A base model (LlamaModel) is saved without `model.` before its names.
_BARE = ((r"^(?=(layers|embed_tokens|norm)\.)", "model."),)
# It follows from rope_theta; older checkpoints store it.
_UNUSED = (r"\.rotary_emb\.inv_freq$",)
# What sees images: llama.cpp takes that from a file of its own.
_TOWERS = (r"^(model\.)?(vision_tower|multi_modal_projector|vision_model)\.",)


def _sized(
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    groups: int | None,
    context: int,
    eps: float,
    vocabulary: int,
    activation: str = "hidden_act",
) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "max_position_embeddings": context,
        "rms_norm_eps": eps,
        "rope_theta": 10000.0,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        activation: "silu",
    }


_LLAMA = Architecture(
    "llama",
    keys=_LLAMA_KEYS,
    tensors=_ENDS,
    blocks=_GATED,
    optional=f"output rope_freqs {_BIASES} attn_output.bias ffn_gate.bias ffn_up.bias ffn_down.bias",
    changes=_ROWS,
    activations=("silu", "swish"),
    scalings=("linear", "llama3", "yarn"),
    renames=_BARE,
    skipped=_UNUSED,
    defaults=_sized(4096, 11008, 32, 32, None, 2048, 1e-6, 32000),
)
_UNUSED_WINDOW = {"use_sliding_window": False, "max_window_layers": 28}
_QWEN2 = replace(
    _LLAMA,
    name="qwen2",
    keys=_HEADS,
    blocks=f"{_GATED} {_BIASES}",
    optional="output",
    changes={},
    scalings=("linear", "yarn"),
    expected={"use_sliding_window": False},
    slides=True,
    defaults=_sized(4096, 22016, 32, 32, 32, 32768, 1e-6, 151936) | _UNUSED_WINDOW,
)
_QWEN3 = replace(
    _QWEN2,
    name="qwen3",
    keys=_HEADS,
    blocks=f"{_GATED} attn_q_norm attn_k_norm",
    defaults={**_QWEN2.defaults, "head_dim": 128},
)
_GEMMA = replace(
    _LLAMA,
    name="gemma",
    keys=_HEADS,
    optional="",
    changes=_ONE_MORE,
    activations=("gelu_pytorch_tanh", "gelu", "gelu_new"),  # transformers takes them all for the first one
    scalings=(),
    skipped=_UNUSED,
    expected={"use_bidirectional_attention": None},
    defaults=_sized(3072, 24576, 28, 16, 16, 8192, 1e-6, 256000)
    | {"head_dim": 256, "tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh"},
)
_GEMMA2 = replace(
    _GEMMA,
    name="gemma2",
    keys=_WINDOW
    + "attn_logit_softcapping f32 attn_logit_softcapping\nfinal_logit_softcapping f32 final_logit_softcapping\n",
    blocks=f"{_GATED} post_attention_norm post_ffw_norm",
    activations=("gelu_pytorch_tanh",),
    attention_pattern=2,
    defaults=_sized(2304, 9216, 26, 8, 4, 8192, 1e-6, 256000, "hidden_activation")
    | {
        "head_dim": 256,
        "tie_word_embeddings": True,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "query_pre_attn_scalar": 256,
    },
)
_GEMMA3 = replace(
    _GEMMA2,
    name="gemma3",
    keys=_WINDOW + "final_logit_softcapping f32 final_logit_softcapping\n",
    blocks=f"{_GATED} post_attention_norm post_ffw_norm attn_q_norm attn_k_norm",
    optional="output",
    scalings=("linear",),
    renames=_DECODER + _BARE,
    skipped=_UNUSED + _TOWERS,
    attention_pattern=6,
    # Its configs may have attn_logit_softcapping, too, of which transformers makes no use.
    expected={"use_bidirectional_attention": False},
    defaults=_sized(2304, 9216, 26, 8, 4, 131072, 1e-6, 262208, "hidden_activation")
    | {
        "head_dim": 256,
        "tie_word_embeddings": True,
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_theta": 1000000.0,
        "sliding_window": 4096,
        "query_pre_attn_scalar": 256,
    },
)
_PHI3 = replace(
    _LLAMA,
    name="phi3",
    keys=_HEADS + "rope.dimension_count u32 rotary_dim\nattention.sliding_window u32 sliding_window\n",
    blocks="attn_norm attn_qkv attn_output ffn_norm ffn_up ffn_down",
    optional="output rope_factors_long rope_factors_short",
    changes={},
    slides=True,
    scalings=("longrope",),
    defaults=_sized(3072, 8192, 32, 32, None, 4096, 1e-5, 32064),
)
_LINEAR = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")
_WITH_BIASES = " ".join(f"{name}.weight {name}.bias" for name in ("attn_norm", "ffn_norm", *_LINEAR))
_GPT2 = Architecture(
    "gpt2",
    keys=BODY + LAYER_NORM,
    tensors="token_embd position_embd output_norm.weight output_norm.bias",
    blocks=_WITH_BIASES,
    optional="output",
    changes={f"{name}.weight": "transposed" for name in _LINEAR},
    activations=("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),
    renames=((r"^(?=(wte|wpe|ln_f|h)\.)", "transformer."),),
    skipped=(r"\.attn\.(bias|masked_bias)$",),
    expected={"scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False, "scale_attn_weights": True},
    rotates=False,
    defaults={
        "n_embd": 768,
        "n_inner": None,
        "n_layer": 12,
        "n_head": 12,
        "n_positions": 1024,
        "layer_norm_epsilon": 1e-5,
        "vocab_size": 50257,
        "tie_word_embeddings": True,
        "activation_function": "gelu_new",
    },
)

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": replace(
        _LLAMA,
        slides=True,
        keys=_LLAMA_KEYS + "attention.sliding_window u32 sliding_window\n",
        defaults=_sized(4096, 14336, 32, 32, 8, 131072, 1e-6, 32000) | {"sliding_window": 4096},
    ),
    "mixtral": replace(
        _LLAMA,
        slides=True,
        keys=_LLAMA_KEYS + "attention.sliding_window u32 sliding_window\n" + _EXPERTS,
        blocks=_SPARSE,
        defaults=_sized(4096, 14336, 32, 32, 8, 131072, 1e-5, 32000)
        | {"rope_theta": 1000000.0, "num_local_experts": 8, "num_experts_per_tok": 2},
    ),
    "qwen2": _QWEN2,
    "qwen3": _QWEN3,
    "qwen3_moe": replace(
        _QWEN3,
        name="qwen3moe",
        keys=_HEADS + _EXPERTS + "expert_feed_forward_length u32 moe_intermediate_size\n",
        blocks=f"{_SPARSE} attn_q_norm attn_k_norm",
        expected={"use_sliding_window": False, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
        defaults=_sized(2048, 6144, 24, 32, 4, 32768, 1e-6, 151936)
        | {
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
            "norm_topk_prob": False,
            "decoder_sparse_step": 1,
            "use_sliding_window": False,
        },
    ),
    "qwen2_moe": replace(
        _QWEN2,
        name="qwen2moe",
        keys=_HEADS
        + _EXPERTS
        + "expert_feed_forward_length u32 moe_intermediate_size\n"
        + "expert_shared_feed_forward_length u32 shared_expert_intermediate_size\n",
        blocks=f"{_SPARSE} {_BIASES} ffn_gate_shexp ffn_up_shexp ffn_down_shexp ffn_gate_inp_shexp",
        expected={
            "use_sliding_window": False,
            "norm_topk_prob": False,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        },
        defaults=_sized(2048, 5632, 24, 16, 16, 32768, 1e-6, 151936)
        | {
            "num_experts": 60,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
            "norm_topk_prob": False,
            "decoder_sparse_step": 1,
            **_UNUSED_WINDOW,
        },
    ),
    "olmoe": replace(
        _LLAMA,
        name="olmoe",
        keys=_HEADS + _EXPERTS,
        blocks=f"{_SPARSE} attn_q_norm attn_k_norm",
        optional="output",
        changes={},
        scalings=("linear", "yarn"),
        expected={"clip_qkv": None, "norm_topk_prob": False},
        defaults=_sized(2048, 2048, 16, 16, None, 4096, 1e-5, 50304)
        | {"num_experts": 64, "num_experts_per_tok": 8, "norm_topk_prob": False},
    ),
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "gemma3": _GEMMA3,
    "phi3": _PHI3,
    "gpt2": _GPT2,
    "bert": BERT,
    "jina_bert": JINA,
    "nomic_bert": NOMIC,
}
"""By the ``model_type`` of ``config.json``; a ``bert`` with ALiBi is ``jina_bert``."""


def by_gguf_name(name: str) -> Architecture | None:
    """Return the first row of the architecture that GGUF calls ``name``; None if there is none."""
    return next((row for row in ARCHITECTURES.values() if row.name == name), None)


def full_name(short: str) -> str:
    """Return a tensor's name with its ending: ``.weight`` where it has none."""
    return short if short.endswith((".weight", ".bias")) else f"{short}.weight"
