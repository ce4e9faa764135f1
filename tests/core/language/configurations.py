"""Random small configurations of transformers' language models: what a config may say, one entry or several at a time.

``python -m tests.core.language.any_model`` tries many; ``test_any_model.py`` beside it keeps those that were wrong.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.formats.gguf.model.folders import trained

CONTEXT = 128
KINDS = {
    "llama": "scored",
    "mistral": "scored",
    "mixtral": "scored",
    "qwen2": "qwen2",
    "qwen3": "qwen2",
    "qwen3_moe": "qwen2",
    "qwen2_moe": "qwen2",
    "olmoe": "gpt2",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3_text": "gemma",
    "phi3": "phi",
    "gpt2": "gpt2",
    "bert": "words",
    "nomic_bert": "words",
}
"""Each ``model_type``, and the tokenizer of its folders (:func:`tests.formats.gguf.model.folders.trained`)."""
_WIDE = ("llama", "mistral", "mixtral", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text")
_BIASED = ("llama", "qwen3", "qwen3_moe", "olmoe", "gemma", "gemma2", "gemma3_text")
_SLIDING = ("mistral", "mixtral", "phi3", "qwen2", "qwen3", "qwen3_moe", "qwen2_moe", "gemma2", "gemma3_text")
_LAYERED = ("qwen2", "qwen3", "qwen2_moe", "gemma2", "gemma3_text")
_SCALED = ("gemma2", "gemma3_text")
_SPARSE = ("mixtral", "qwen3_moe", "qwen2_moe", "olmoe")
_ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "gelu_fast", "quick_gelu", "relu2", "tanh")


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration: ``model_type``, the config's entries, and how the folder is written: the weights' type, and
    whether the config is one as transformers 4 wrote it."""

    model_type: str
    entries: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    old: bool = False
    seed: int = 7

    @property
    def encodes(self) -> bool:
        """Whether it is an encoder."""
        return "bert" in self.model_type


def drawn(seed: int, model_type: str = "") -> Case:
    """Return the case of a seed, of any ``model_type`` or of the one given."""
    draw = random.Random(seed)
    kind = model_type or draw.choice(list(KINDS))
    heads, size, layers = draw.choice([1, 2, 3, 4, 6]), draw.choice([8, 12, 16, 24, 32]), draw.choice([1, 2, 3, 5, 7])
    make = _gpt2 if kind == "gpt2" else _encoder if "bert" in kind else _decoder
    entries = make(draw, kind, heads, size, layers)
    entries |= {"bos_token_id": 1, "eos_token_id": 2}
    return Case(kind, entries, draw.choice(["float32"] * 3 + ["bfloat16", "float16"]), draw.random() < 0.3, seed)


def _gpt2(draw: random.Random, kind: str, heads: int, size: int, layers: int) -> dict[str, Any]:
    width = heads * size
    entries: dict[str, Any] = {"n_embd": width, "n_layer": layers, "n_head": heads, "n_positions": CONTEXT}
    for name in ("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"):
        _sometimes(draw, entries, 0.15, name, (name != "scale_attn_weights",))
    _sometimes(draw, entries, 0.5, "n_inner", (width, 3 * width + 5, 40))
    _sometimes(draw, entries, 0.3, "activation_function", _ACTIVATIONS)
    _sometimes(draw, entries, 0.3, "layer_norm_epsilon", (1e-3, 1e-6))
    _sometimes(draw, entries, 0.3, "tie_word_embeddings", (False,))
    return entries


def _sized(draw: random.Random, heads: int, size: int, layers: int) -> dict[str, Any]:
    width = heads * size
    return {
        "hidden_size": width,
        "intermediate_size": draw.choice([width, 2 * width + 3, 96, 33]),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": CONTEXT,
        "pad_token_id": 0,
    }


def _encoder(draw: random.Random, kind: str, heads: int, size: int, layers: int) -> dict[str, Any]:
    entries = _sized(draw, heads, size, layers)
    _sometimes(draw, entries, 0.3, "hidden_act", _ACTIVATIONS)
    _sometimes(draw, entries, 0.3, "layer_norm_eps", (1e-3, 1e-6))
    _sometimes(draw, entries, 0.3, "type_vocab_size", (1, 5))
    if kind == "nomic_bert":
        _rotation(draw, entries, kind, size)
        _sometimes(draw, entries, 0.2, "head_dim", (16,))
    return entries


def _decoder(draw: random.Random, kind: str, heads: int, size: int, layers: int) -> dict[str, Any]:
    entries = _sized(draw, heads, size, layers)
    entries["num_key_value_heads"] = draw.choice([n for n in range(1, heads + 1) if heads % n == 0])
    if kind in _WIDE and (draw.random() < 0.7 or kind == "qwen3" or kind.startswith("gemma")):
        size = entries["head_dim"] = draw.choice([8, 10, 16, 20, 34])
    _sometimes(draw, entries, 0.25, "hidden_activation" if kind in _SCALED else "hidden_act", _ACTIVATIONS)
    _sometimes(draw, entries, 0.4, "rms_norm_eps", (1e-3, 1e-5, 3e-7))
    _sometimes(draw, entries, 0.4, "tie_word_embeddings", (True, False))
    if kind in _BIASED:
        _sometimes(draw, entries, 0.3, "attention_bias", (True,))
    _sometimes(draw, entries, 0.3 * (kind == "llama"), "mlp_bias", (True,))
    _sometimes(draw, entries, 0.3 * (kind == "qwen2_moe"), "qkv_bias", (False,))
    _sometimes(draw, entries, 0.1 * kind.startswith("gemma"), "use_bidirectional_attention", (True,))
    _windows(draw, entries, kind, layers)
    if kind in _SCALED:
        entries["query_pre_attn_scalar"] = draw.choice([size, size, 7, 64])
        _sometimes(draw, entries, 0.4, "attn_logit_softcapping", (5.0, 50.0, None))
        _sometimes(draw, entries, 0.4, "final_logit_softcapping", (3.0, 30.0, None))
    if kind in _SPARSE:
        _experts(draw, entries, kind)
    _rotation(draw, entries, kind, size)
    return entries


def _windows(draw: random.Random, entries: dict[str, Any], kind: str, layers: int) -> None:
    if kind in _SLIDING and draw.random() < 0.6:
        entries["sliding_window"] = draw.choice([1, 2, 7, 16, 40, 300])
        if kind.startswith("qwen"):
            entries["use_sliding_window"] = draw.random() < 0.8
            _sometimes(draw, entries, kind != "qwen3_moe", "max_window_layers", (0, 1, layers, 28))
    elif kind in ("mistral", "phi3", "mixtral"):
        entries["sliding_window"] = None
    elif kind in _SCALED:
        entries["sliding_window"] = 16
    if kind in _LAYERED and draw.random() < 0.4:
        entries["layer_types"] = [draw.choice(["sliding_attention", "full_attention"]) for _ in range(layers)]
    elif kind == "gemma3_text":
        _sometimes(draw, entries, 0.3, "sliding_window_pattern", (2, 3))


def _experts(draw: random.Random, entries: dict[str, Any], kind: str) -> None:
    count = draw.choice([1, 2, 3, 5])
    entries["num_local_experts" if kind == "mixtral" else "num_experts"] = count
    entries["num_experts_per_tok"] = draw.randint(1, count)
    _sometimes(draw, entries, kind != "mixtral", "norm_topk_prob", (True, False))
    _sometimes(draw, entries, 0.3 * (kind == "olmoe"), "clip_qkv", (0.5, 8.0))
    if kind.startswith("qwen"):
        entries["moe_intermediate_size"] = draw.choice([32, 17])
        _sometimes(draw, entries, 0.2, "decoder_sparse_step", (2,))
        _sometimes(draw, entries, 0.2, "mlp_only_layers", ([0],))
        _sometimes(draw, entries, kind == "qwen2_moe", "shared_expert_intermediate_size", (40, 96))


def _sometimes(draw: random.Random, entries: dict[str, Any], share: float, name: str, values: tuple[Any, ...]) -> None:
    if draw.random() < share:
        entries[name] = draw.choice(values)


def _rotation(draw: random.Random, entries: dict[str, Any], kind: str, size: int) -> None:
    """Add how positions rotate."""
    base = draw.choice([10000.0, 500.0, 1e6])
    if kind == "gemma3_text":
        full = _scaling(draw, size, base) if draw.random() < 0.5 else {"rope_type": "default", "rope_theta": base}
        local = {"rope_type": "default", "rope_theta": draw.choice([10000.0, 333.0])}
        if draw.random() < 0.1:
            local = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
        if draw.random() < 0.8:
            entries["rope_parameters"] = {"full_attention": full, "sliding_attention": local}
        return
    if draw.random() < 0.3:
        entries["rope_parameters"] = {"rope_type": "default", "rope_theta": base}
        if kind == "phi3" and draw.random() < 0.5 and size % 4 == 0:
            entries["rope_parameters"]["partial_rotary_factor"] = 0.5
    elif draw.random() < 0.6:
        if kind == "phi3":
            share = draw.choice([1.0, 0.5]) if size % 4 == 0 else 1.0
            entries["rope_parameters"] = _long(draw, int(size * share), base) | {"partial_rotary_factor": share}
            entries["original_max_position_embeddings"] = draw.choice([64, 128])
            entries["rope_parameters"]["original_max_position_embeddings"] = entries["original_max_position_embeddings"]
        else:
            entries["rope_parameters"] = _scaling(draw, size, base)


def _scaling(draw: random.Random, size: int, base: float) -> dict[str, Any]:
    kind = draw.choice(["linear", "llama3", "yarn", "yarn", "longrope", "dynamic"])
    found: dict[str, Any] = {"rope_type": kind, "rope_theta": base, "factor": draw.choice([2.0, 4.0, 8.0])}
    if kind == "llama3":
        found |= {"low_freq_factor": 1.0, "high_freq_factor": draw.choice([4.0, 2.0])}
    if kind in ("llama3", "yarn"):
        found["original_max_position_embeddings"] = draw.choice([16, 32, 64])
    if kind == "yarn":
        _sometimes(draw, found, 0.3, "attention_factor", (0.8, 1.0, 1.5))
        _sometimes(draw, found, 0.3, "beta_fast", (8.0, 64.0))
        _sometimes(draw, found, 0.3, "beta_slow", (2.0, 0.5))
        _sometimes(draw, found, 0.2, "truncate", (False,))
        if draw.random() < 0.2:
            found |= {"mscale": 1.0, "mscale_all_dim": draw.choice([0.5, 1.0])}
        if draw.random() < 0.2:
            found["mscale"] = 0.7
    if kind == "longrope":
        found = _long(draw, size, base)
        found["original_max_position_embeddings"] = draw.choice([64, 128])
    return found


def _long(draw: random.Random, size: int, base: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        "rope_type": "longrope",
        "rope_theta": base,
        "long_factor": [1.5 + 0.3 * n for n in range(size // 2)],
        "short_factor": [1.0 + 0.1 * n for n in range(size // 2)],
    }
    _sometimes(draw, found, 0.2, "attention_factor", (1.3,))
    return found


def write(folder: Path, case: Case) -> Any:
    """Write the folder of ``case``; return transformers' model of it, in f32."""
    import torch
    import transformers

    tokenizer = trained(KINDS[case.model_type])
    entries = {"vocab_size": len(tokenizer) + case.seed % 3, **case.entries}
    config = transformers.AutoConfig.for_model(case.model_type, **entries)
    torch.manual_seed(case.seed)
    kind = transformers.AutoModel if case.encodes else transformers.AutoModelForCausalLM
    plain = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model = kind.from_config(config, **plain).to(torch.float32).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            one = 1 if "norm" in name.lower() and "weight" in name and "gemma" not in case.model_type else 0
            value.copy_((torch.randn(value.shape) * 0.2 + one).to(getattr(torch, case.dtype)))
    model.to(getattr(torch, case.dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if case.old:
        _aged(folder / "config.json")
    return kind.from_pretrained(folder, dtype=torch.float32, **plain).eval()


def _aged(file: Path) -> None:
    """Write a config as transformers 4 did: ``rope_theta`` and ``rope_scaling`` beside each other."""
    said = json.loads(file.read_text())
    rope = said.pop("rope_parameters", None) or {}
    if "full_attention" in rope:
        local, rope = rope["sliding_attention"], rope["full_attention"]
        said["rope_local_base_freq"] = local["rope_theta"]
    if "rope_theta" in rope:
        said["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        said["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    if rope.get("rope_type", "default") != "default":
        kind = rope.pop("rope_type")
        said["rope_scaling"] = {"type": kind, **rope}
    said["torch_dtype"] = said.pop("dtype", "float32")
    file.write_text(json.dumps(said))
