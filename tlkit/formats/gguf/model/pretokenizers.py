"""``tokenizer.ggml.pre``: which of llama.cpp's built-in ways of splitting text a ``tokenizer.json`` describes.

llama.cpp's own converter tells them by hashes of tokenized text; here the description itself is compared, which needs
no text and cannot mistake one vocabulary for another. Patterns are those of the models' published ``tokenizer.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DEPTH = 8
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _WORDS + r"\p{N}{1,3}" + _REST
_QWEN2 = _WORDS + r"\p{N}" + _REST
_QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_START = r"[^\r\n\p{L}\p{N}]?"
_CASED_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = f"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*" + r"|\p{N}" + _CASED_REST
_GPT4O = f"{_START}{_UPPER}*{_LOWER}+{_ENDS}|{_START}{_UPPER}+{_LOWER}*{_ENDS}" + r"|\p{N}{1,3}" + _CASED_REST
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""The pattern that ``ByteLevel`` splits by."""

_NAMES: Mapping[tuple[str, ...], str] = {
    (GPT2,): "gpt-2",
    (_QWEN2,): "qwen2",
    (_QWEN35,): "qwen35",
    ("digits", GPT2): "smollm",
    ("punctuation", GPT2, "[0-9][0-9][0-9]"): "falcon",
    (_TEKKEN,): "tekken",
    (_GPT4O,): "gpt-4o",
}

_LLAMA3_NAMES = ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2", "midm-2.0")
_GPT2_NAMES = ("gpt-2", "phi-2", "olmo", "mpt", "roberta-bpe", "mellum", "gigachat", "modern-bert", "jina-v2-code")
_JINA_NAMES = ("jina-v1-en", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de")
_DIGITS_NAMES = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
_UNNAMED = (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)


def splits(pre: str) -> tuple[str, ...]:
    """Return the patterns by which llama.cpp splits text of BPE named ``pre``, one after the other: matches stand by
    themselves. A name that llama.cpp does not know splits as its default does."""
    if pre in (*_LLAMA3_NAMES, "dbrx", "smaug-bpe"):
        return (_LLAMA3,)
    if pre in ("qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez"):
        return (_QWEN2,)
    if pre in (*_GPT2_NAMES, *_JINA_NAMES):
        return (GPT2,)
    if pre in _DIGITS_NAMES:
        return (r"\p{N}", GPT2)
    named = {"deepseek-v3": _DEEPSEEK3, "qwen35": (_QWEN35,), "tekken": (_TEKKEN,), "gpt-4o": (_GPT4O,)}
    falcon = (_UNNAMED[0], GPT2, "[0-9][0-9][0-9]")
    return named.get(pre, falcon if pre == "falcon" else _UNNAMED)


def looks_words_up(pre: str) -> bool:
    """Whether whole words that are tokens are taken before any merge, and a text begins with BOS by default."""
    return pre in (*_LLAMA3_NAMES, "tekken")


def pre_tokenizer(tokenizer: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for how ``tokenizer`` (byte-level BPE) splits text; "" where it has none."""
    steps = tuple(_steps(tokenizer.get("pre_tokenizer"), 0))
    model = tokenizer.get("model")
    if steps == (_LLAMA3,):  # llama.cpp looks whole words up first in this one only
        return "llama-bpe" if isinstance(model, Mapping) and model.get("ignore_merges") else "dbrx"
    return _NAMES.get(steps, "")


def _steps(described: Any, depth: int) -> list[str]:
    """Return what is done one after the other: patterns, and words for what has none."""
    if not isinstance(described, Mapping) or depth > _DEPTH:
        return ["?"]
    kind = described.get("type")
    inner = described.get("pretokenizers")
    if kind == "Sequence" and isinstance(inner, list):
        return [step for item in inner for step in _steps(item, depth + 1)]
    if kind == "ByteLevel":
        if described.get("add_prefix_space"):
            return ["prefix"]
        return [GPT2] if described.get("use_regex", True) else []
    if kind == "Split":
        pattern = described.get("pattern")
        said = pattern.get("Regex") if isinstance(pattern, Mapping) else None
        whole = described.get("behavior") == "Isolated" or described.get("invert") is True
        return [said if isinstance(said, str) and whole else "?"]
    if kind == "Digits":
        return ["digits" if described.get("individual_digits") else "?"]
    return ["punctuation" if kind == "Punctuation" and described.get("behavior") == "Contiguous" else "?"]
