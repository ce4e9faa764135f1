"""Small Hugging Face folders as save_pretrained writes them: weights of a seed, tokenizers trained on a few lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TEXTS = [
    "The quick brown fox jumps over the lazy dog. 1234567 foxes don't jump!",
    "Water boils at 100 degrees; the capital of France is Paris.\n\n  And so it's done.",
    "Ein Zug fährt über die Brücke, und 北京 liegt weit entfernt. 😀",
] * 8
"""What tokenizers are trained on."""

PROMPTS = [
    "The capital of France is",
    "  Water boils, don't it?\n\n12345 foxes",
    "Über die Brücke 😀 fährt",
    "北京 12345\t\tThe END",
    "a",
]
"""What they are tried with: some of it is in the vocabulary in no form but bytes."""

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
LLAMA3 += r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
SIZE = 384

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GEMMA: dict[str, Any] = {**SMALL, "head_dim": 32, "query_pre_attn_scalar": 32, "num_hidden_layers": 7}
ROPE3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.75,
    "long_factor": [1.5, 2.0, 2.5, 3.0, 3.5, 4.0],
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    "original_max_position_embeddings": 64,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", SMALL),
    "llama_wide": ("llama", {**SMALL, "head_dim": 24, "attention_bias": True, "mlp_bias": True}),
    "llama31": ("llama", {**SMALL, "rope_parameters": ROPE3, "tie_word_embeddings": True}),
    "mistral": ("mistral", {**SMALL, "sliding_window": None}),
    "mixtral": ("mixtral", {**SMALL, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("qwen2", SMALL),
    "qwen3": ("qwen3", {**SMALL, "head_dim": 32}),
    "qwen3_moe": (
        "qwen3_moe",
        {
            **SMALL,
            "head_dim": 32,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
        },
    ),
    "qwen2_moe": (
        "qwen2_moe",
        {
            **SMALL,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 96,
            "norm_topk_prob": False,
            "decoder_sparse_step": 1,
        },
    ),
    # llama.cpp has a key for each head here.
    "olmoe": ("olmoe", {**SMALL, "num_key_value_heads": 4, "num_experts": 4, "num_experts_per_tok": 2}),
    "gemma": ("gemma", {**SMALL, "head_dim": 32}),
    "gemma2": ("gemma2", {**GEMMA, "sliding_window": 16}),
    "gemma3": ("gemma3_text", {**GEMMA, "sliding_window": 16}),
    "phi3": ("phi3", {**SMALL, "sliding_window": None}),
    "phi3_long": (
        "phi3",
        {**SMALL, "rope_parameters": LONG, "original_max_position_embeddings": 64, "sliding_window": None},
    ),
    "gpt2": (
        "gpt2",
        {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "bert": ("bert", {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}),
}
"""``model_type`` and config by the case's name."""

TOKENIZERS = {
    "llama": "scored",
    "llama_wide": "scored",
    "llama31": "llama3",
    "mistral": "scored",
    "mixtral": "scored",
    "qwen2": "qwen2",
    "qwen3": "qwen2",
    "qwen3_moe": "qwen2",
    "qwen2_moe": "qwen2",
    "olmoe": "gpt2",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3": "gemma",
    "phi3": "phi",
    "phi3_long": "phi",
    "gpt2": "gpt2",
    "bert": "words",
}
"""Which kind of tokenizer the case has."""


def build(folder: Path, case: str, kind: str = "", **changes: Any) -> Path:
    """Write the folder of ``case``, with another kind of tokenizer or other entries of its config; return it."""
    import torch
    import transformers

    tokenizer = trained(kind or TOKENIZERS[case])
    model_type, entries = CONFIGS[case]
    rows = -(-len(tokenizer) // 32) * 32
    config = transformers.AutoConfig.for_model(model_type, **{**entries, "vocab_size": rows, **changes})
    torch.manual_seed(7)
    kind_of = transformers.AutoModel if model_type == "bert" else transformers.AutoModelForCausalLM
    model = kind_of.from_config(config).to(torch.float32)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape) * 0.2
            value.copy_(
                noise + (0 if "norm" in name and "gemma" in model_type else 1) if "norm" in name.lower() else noise
            )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def trained(kind: str) -> Any:
    """Return a tokenizer of transformers': ``gpt2``, ``llama3``, ``qwen2`` (byte-level BPE), ``scored``, ``gemma``
    (BPE like SentencePiece's), ``words`` (WordPiece), ``unigram``."""
    from transformers import PreTrainedTokenizerFast

    if kind == "words":
        names = {
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "mask_token": "[MASK]",
        }
        return PreTrainedTokenizerFast(tokenizer_object=_words(), **names)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    make = {"scored": _scored, "gemma": _gemma, "unigram": _unigram, "phi": _phi}.get(kind)
    inner = make() if make else _byte_level(kind)
    if make:
        names["unk_token"] = "<unk>"
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, **names, chat_template="{% for m in messages %}{{ m.content }}{% endfor %}"
    )


def _byte_level(kind: str) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    found = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    if kind == "gpt2":
        found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        split = pre_tokenizers.Split(Regex(LLAMA3 if kind == "llama3" else QWEN2), "isolated")
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        found.pre_tokenizer = pre_tokenizers.Sequence([split, plain])
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    found.train_from_iterator(TEXTS, trainer)
    found.add_tokens([AddedToken("<mine>", normalized=False)])
    if kind == "llama3":
        found.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return found


def _scored(prefix: bool = True) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    first = Tokenizer(models.BPE())
    first.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    first.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    first.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=160, show_progress=False))
    described = json.loads(first.to_str())["model"]
    letters = [token for token in described["vocab"] if len(token) == 1]
    made = [first + second for first, second in described["merges"]]
    tokens = ["<pad>", "<s>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += list(dict.fromkeys(made)) + letters
    vocab = {token: index for index, token in enumerate(tokens)}
    found = Tokenizer(
        models.BPE(vocab, sentencepiece_merges(made, vocab), byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    steps = [normalizers.Prepend("▁")] if prefix else []
    found.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    found.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if prefix else []),
        ]
    )
    found.add_special_tokens(["<pad>", "<s>", "</s>", "<unk>"])
    found.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return found


def sentencepiece_merges(made: Iterable[str], vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Return every merge of two tokens that makes a third, in the order of what they make: SentencePiece's."""
    return [
        (token[:cut], token[cut:])
        for token in dict.fromkeys(made)
        for cut in range(1, len(token))
        if token[:cut] in vocab and token[cut:] in vocab
    ]


def _gemma() -> Any:
    return _scored(prefix=False)


def _phi() -> Any:
    found = _scored()
    found.add_special_tokens(["<|endoftext|>"])
    return found


def _words() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    found = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    found.normalizer = normalizers.BertNormalizer(lowercase=True)
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    found.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=names, show_progress=False)
    )
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    found.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return found


def _unigram() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    found = Tokenizer(models.Unigram())
    found.pre_tokenizer = pre_tokenizers.Metaspace()
    found.decoder = decoders.Metaspace()
    names = ["<pad>", "<s>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=SIZE, special_tokens=names, unk_token="<unk>", show_progress=False)
    found.train_from_iterator(TEXTS, trainer)
    found.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return found
