"""The rows of encoders: BERT, Jina's and Nomic's (:mod:`tlkit.formats.gguf.model.architectures`)."""

from __future__ import annotations

from dataclasses import replace

from tlkit.formats.gguf.model.row import BODY, LAYER_NORM, Architecture

_BERT_LAYERS = ("attn_q", "attn_k", "attn_v", "attn_output", "attn_output_norm", "ffn_up", "ffn_down")
BERT = Architecture(
    "bert",
    keys=BODY + LAYER_NORM,
    tensors="token_embd position_embd token_types token_embd_norm.weight token_embd_norm.bias",
    blocks=" ".join(f"{name}.weight {name}.bias" for name in (*_BERT_LAYERS, "layer_output_norm")),
    activations=("gelu", "gelu_new", "gelu_pytorch_tanh"),
    renames=((r"^bert\.", ""),),
    skipped=(r"\.position_ids$", r"^pooler\.", r"^cls\.", r"^embeddings\.token_type_ids$"),
    expected={"is_decoder": False, "position_embedding_type": "absolute"},
    rotates=False,
    encodes=True,
    defaults={
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 512,
        "layer_norm_eps": 1e-12,
        "vocab_size": 30522,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "tie_word_embeddings": True,
    },
)
_NORMED = " ".join(f"{name}.weight {name}.bias" for name in ("attn_output_norm", "layer_output_norm"))
# BERT with ALiBi in place of positions, and a gate in the first rows of its first matrix (JinaBertModel).
JINA = replace(
    BERT,
    name="jina-bert-v2",
    tensors="token_embd token_types token_embd_norm.weight token_embd_norm.bias",
    blocks=" ".join(f"{name}.weight {name}.bias" for name in (*_BERT_LAYERS[:4], "ffn_down")) + f" {_NORMED} ffn_up",
    optional=" ".join(f"{name}.weight {name}.bias" for name in ("attn_q_norm", "attn_k_norm", "attn_norm_2")),
    activations=("gelu",),
    renames=(
        *BERT.renames,
        (r"\.mlp\.(gated_layers|up_gated_layer)\.", ".intermediate.dense."),
        (r"\.mlp\.(wo|down_layer)\.", ".output.dense."),
        (r"\.(mlp\.layernorm|layer_norm_2)\.", ".output.LayerNorm."),
    ),
    expected={"is_decoder": False, "position_embedding_type": "alibi", "feed_forward_type": "geglu"},
    defaults={**BERT.defaults, "position_embedding_type": "alibi", "feed_forward_type": "geglu"},
)
JINA_CODE = (".mlp.up_gated_layer.", replace(JINA, changes={"ffn_up.weight": "halves"}))
"""Part of the names by which Jina's models of code are known, and their row: the gate is in the other half."""
NOMIC = Architecture(
    "nomic-bert",
    keys=BODY
    + LAYER_NORM
    + "rope.freq_base f32 rope_theta rotary_emb_base\n"
    + "attention.key_length u32 head_dim\nattention.value_length u32 head_dim\n",
    tensors="token_embd token_types token_embd_norm.weight token_embd_norm.bias",
    blocks=f"attn_qkv attn_output ffn_gate ffn_up ffn_down {_NORMED}",
    activations=("silu", "swish", "swiglu"),
    renames=(
        (r"^layers\.(\d+)\.self_attn\.[qkv]_proj\.", r"encoder.layers.\1.attn.Wqkv."),
        (r"^layers\.(\d+)\.self_attn\.o_proj\.", r"encoder.layers.\1.attn.out_proj."),
        (r"^layers\.(\d+)\.mlp\.up_proj\.", r"encoder.layers.\1.mlp.fc11."),
        (r"^layers\.(\d+)\.mlp\.gate_proj\.", r"encoder.layers.\1.mlp.fc12."),
        (r"^layers\.(\d+)\.mlp\.down_proj\.", r"encoder.layers.\1.mlp.fc2."),
        (r"^layers\.(\d+)\.post_attention_layernorm\.", r"encoder.layers.\1.norm1."),
        (r"^layers\.(\d+)\.post_mlp_layernorm\.", r"encoder.layers.\1.norm2."),
    ),
    skipped=BERT.skipped,
    encodes=True,
    joined=("attn_qkv.weight",),
    # What the first configs of this model may say otherwise.
    expected={
        "prenorm": False,
        "use_rms_norm": False,
        "parallel_block": False,
        "causal": False,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "moe_every_n_layers": 0,
    },
    defaults={
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 2048,
        "layer_norm_eps": 1e-12,
        "vocab_size": 30528,
        "type_vocab_size": 2,
        "rope_theta": 1000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
    },
)
