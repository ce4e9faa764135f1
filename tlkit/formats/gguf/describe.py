"""Describe a GGUF file: architecture, context length, types by role, tokenizer, memory."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tlkit.formats.base.tensors import TensorEntry
from tlkit.formats.gguf.header import GGUFArray
from tlkit.formats.gguf.read import GGUFFile, text_of

# The numbers between are of recipes that llama.cpp has removed: 4 to 6, 33 to 35.
FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
    39: "NVFP4",
    40: "Q1_0",
}
"""``general.file_type``: the recipe a file was quantized by, as the gguf package numbers them (LlamaFileType)."""

_CONTEXTS = (2048, 8192, 32768, 131072, 1048576)
_SPECIALS = ("bos", "eos", "unknown", "seperator", "padding", "cls", "mask", "eot", "eom", "fim_pre", "fim_suf")
_CACHE_BYTES = 2  # an element of the key and value cache, in f16


def describe_gguf(file: GGUFFile) -> dict[str, Any]:
    """Return a GGUF file's ``details``: plain data, in the order in which it is shown."""
    architecture = text_of(file.metadata, "general.architecture")
    own = {
        key.removeprefix(f"{architecture}."): value
        for key, value in file.metadata.items()
        if key.startswith(f"{architecture}.")
    }
    size = sum(entry.nbytes for entry in file.entries())
    found: dict[str, Any] = {
        "architecture": architecture,
        "gguf_version": file.version,
        "big_endian": file.big_endian,
        "files": len(file.shards),
        "context_length": own.get("context_length"),
        "embedding_length": own.get("embedding_length"),
        "layers": own.get("block_count"),
        "heads": _plain(own.get("attention.head_count")),
        "kv_heads": _plain(own.get("attention.head_count_kv")),
        "experts": own.get("expert_count"),
        "experts_used": own.get("expert_used_count"),
        "mix": mix(file.entries()),
        "roles": roles(file.entries()),
        "tokenizer": _tokenizer(file.metadata),
        "memory": memory(own, size) if size else {},
    }
    return {key: value for key, value in found.items() if value}


def quantization(file: GGUFFile) -> str:
    """Return the recipe that the file names if its tensors confirm it; else the type of most elements."""
    counts: dict[str, int] = {}
    for entry in file.entries():
        counts[entry.dtype] = counts.get(entry.dtype, 0) + entry.elements
    if not counts:
        return ""
    named = file.metadata.get("general.file_type")
    recipe = FILE_TYPES.get(named, "") if isinstance(named, int) else ""
    stem = re.sub(r"_[SML]$", "", recipe)
    # IQ recipes mix types, and some (IQ3_XS) are named after none.
    return recipe if stem in counts or recipe.startswith("IQ") else max(counts, key=lambda name: counts[name])


def mix(entries: Sequence[TensorEntry]) -> dict[str, dict[str, int]]:
    """Return tensors, parameters and bytes by stored type, largest first."""
    found: dict[str, dict[str, int]] = {}
    for entry in entries:
        row = found.setdefault(entry.dtype, {"tensors": 0, "parameters": 0, "bytes": 0})
        row["tensors"] += 1
        row["parameters"] += entry.elements
        row["bytes"] += entry.nbytes
    return dict(sorted(found.items(), key=lambda item: -item[1]["bytes"]))


def roles(entries: Sequence[TensorEntry]) -> dict[str, dict[str, int]]:
    """Return how many tensors of each type play each role (``ffn_down``: Q4_K 13, Q6_K 13), in the file's order."""
    found: dict[str, dict[str, int]] = {}
    for entry in entries:
        row = found.setdefault(re.sub(r"^(blk|enc\.blk|dec\.blk)\.\d+\.|\.(weight|bias)$", "", entry.name), {})
        row[entry.dtype] = row.get(entry.dtype, 0) + 1
    return found if len(found) <= 64 else {}


def memory(own: Mapping[str, Any], weights: int) -> dict[str, int]:
    """Return the estimated bytes of weights and f16 key-value cache by context length; empty where the cache is
    unknown.

    Every layer is assumed to attend to the whole context: sliding windows need less.
    """
    layers, heads, width = (_number(own.get(k)) for k in ("block_count", "attention.head_count", "embedding_length"))
    per_layer = own.get("attention.head_count_kv", heads)
    # Latent attention and state-space layers keep something else than keys and values.
    if not layers or not heads or "attention.kv_lora_rank" in own or "ssm.state_size" in own or layers > 10_000:
        return {}
    keys = [_number(head) for head in per_layer] if isinstance(per_layer, Sequence) else [_number(per_layer)] * layers
    key = _number(own.get("attention.key_length")) or width // heads
    value = _number(own.get("attention.value_length")) or width // heads
    token = sum(keys) * (key + value) * _CACHE_BYTES
    longest = _number(own.get("context_length"))
    lengths = sorted({length for length in _CONTEXTS if length < longest} | ({longest} if longest else set()))
    return {str(length): weights + token * length for length in lengths}


def _tokenizer(metadata: Mapping[str, Any]) -> dict[str, Any]:
    def length(key: str) -> int:
        value = metadata.get(f"tokenizer.ggml.{key}")
        return len(value) if isinstance(value, GGUFArray) else 0

    template = text_of(metadata, "tokenizer.chat_template")
    specials = {name: metadata.get(f"tokenizer.ggml.{name}_token_id") for name in _SPECIALS}
    found = {
        "model": text_of(metadata, "tokenizer.ggml.model"),
        "pre": text_of(metadata, "tokenizer.ggml.pre"),
        "tokens": length("tokens"),
        "merges": length("merges"),
        "special_ids": {name: number for name, number in specials.items() if isinstance(number, int)},
        "chat_template": template,
    }
    return {key: value for key, value in found.items() if value}


def _number(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 1 << 40 else 0


def _plain(value: Any) -> Any:
    """Return a count, or counts by layer; a single one where all are equal."""
    if not isinstance(value, GGUFArray):
        return value
    counts = list(value) if len(value) <= 10_000 else []
    return counts[0] if len(set(counts)) == 1 else counts
