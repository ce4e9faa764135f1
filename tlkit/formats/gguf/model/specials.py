"""Special tokens and chat templates, from ``tokenizer_config.json`` and its neighbours to GGUF's keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tlkit.formats.gguf.model.tokenizer_files import TokenizerFiles, listed
from tlkit.formats.gguf.model.vocabulary import Vocabulary
from tlkit.formats.gguf.write import Typed

_ROLES = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",  # GGUF's own spelling
    "pad": "padding_token_id",
    "cls": "cls_token_id",
    "mask": "mask_token_id",
}
_NAME = re.compile(r"[a-z0-9_]{1,64}")


def specials(files: TokenizerFiles, vocabulary: Vocabulary, config: Mapping[str, Any]) -> dict[str, Typed]:
    """Return the ids of special tokens, whether text gets them at its ends, and the chat templates.

    The tokenizer's own words come first, then ``config.json``'s ids; ids without a token are left out.
    """
    places = {token: index for index, token in enumerate(vocabulary.tokens)}
    found: dict[str, int] = {}
    for role in _ROLES:
        said = files.config.get(f"{role}_token")
        text = said.get("content") if isinstance(said, Mapping) else said
        # In llama.cpp's form of WordPiece a word's first part begins so (`vocabulary.py`).
        spelled = "▁" + text if vocabulary.model == "bert" and isinstance(text, str) and text not in places else text
        number = places.get(spelled) if isinstance(spelled, str) else config.get(f"{role}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        if type(number) is int and 0 <= number < len(vocabulary.tokens):
            found[role] = number
    if vocabulary.model == "bert":
        # llama.cpp puts "bos" before a text of WordPiece, whatever "cls" is; config.json may have ids of no use there.
        found |= {role: found[mark] for role, mark in (("bos", "cls"), ("eos", "sep")) if mark in found}
    ids = {f"tokenizer.ggml.{_ROLES[role]}": Typed("u32", number) for role, number in found.items()}
    stops = {} if vocabulary.model == "bert" else _stops(files, config, found, len(places))
    return ids | stops | _ends(files, found, vocabulary) | templates(files)


def _stops(files: TokenizerFiles, config: Mapping[str, Any], found: Mapping[str, int], count: int) -> dict[str, Typed]:
    """Return the tokens at which transformers stops beside the end of the text: those that end a turn, or a message."""
    said = files.json("generation_config.json").get("eos_token_id", config.get("eos_token_id"))
    stops = [stop for stop in (said if isinstance(said, list) else [said]) if type(stop) is int and 0 <= stop < count]
    others = dict.fromkeys(stop for stop in stops if stop != found.get("eos"))
    keys = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
    return {key: Typed("u32", stop) for key, stop in zip(keys, others, strict=False)}


def _ends(files: TokenizerFiles, found: Mapping[str, int], vocabulary: Vocabulary) -> dict[str, Typed]:
    """Return whether text gets a token before and after it."""
    if vocabulary.model == "bert":  # always [CLS] and [SEP]
        return {}
    habits = {}
    before, after = _template(files.described.get("post_processor"))
    for role, place, said in (("bos", before, "add_bos_token"), ("eos", after, "add_eos_token")):
        asked = files.config.get(said)
        token = vocabulary.tokens[found[role]] if role in found else None
        if isinstance(asked, bool):
            habits[f"tokenizer.ggml.{said}"] = Typed("bool", asked and token is not None)
        elif files.described:
            habits[f"tokenizer.ggml.{said}"] = Typed("bool", token is not None and place == token)
    return habits


def _template(described: Any, depth: int = 0) -> tuple[str, str]:
    """Return the tokens that a post-processor puts before and after a text, "" for none."""
    if not isinstance(described, Mapping) or depth > 8:
        return "", ""
    inner = described.get("processors")
    if isinstance(inner, list):
        found = [_template(item, depth + 1) for item in inner]
        return next((a for a, _ in found if a), ""), next((b for _, b in found if b), "")
    if described.get("type") in ("RobertaProcessing", "BertProcessing"):
        ends = [listed(described.get(name)) for name in ("cls", "sep")]
        return next(_texts(ends[0]), ""), next(_texts(ends[1]), "")
    single = described.get("single")
    if not isinstance(single, list):
        return "", ""
    ids = [item["SpecialToken"].get("id") if _is_special(item) else None for item in single]
    # What is not a special token is the text itself.
    text = next((index for index, item in enumerate(ids) if item is None), len(ids))
    return next(_texts(ids[:text]), ""), next(_texts(ids[text:]), "")


def _is_special(item: Any) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("SpecialToken"), Mapping)


def _texts(items: Sequence[Any]) -> Iterator[str]:
    return (item for item in items if isinstance(item, str))


def templates(files: TokenizerFiles) -> dict[str, Typed]:
    """Return the chat templates by GGUF's keys: the default one, and others by their names."""
    said = files.text("chat_template.jinja") or files.config.get("chat_template")
    said = said or files.json("chat_template.json").get("chat_template")
    if isinstance(said, str) and said:
        return {"tokenizer.chat_template": Typed("str", said)}
    named: dict[str, str] = {}
    for item in said if isinstance(said, list) else ():
        name, text = (item.get("name"), item.get("template")) if isinstance(item, Mapping) else (None, None)
        if isinstance(name, str) and isinstance(text, str) and _NAME.fullmatch(name):
            named[name] = text
    found = {"tokenizer.chat_template": Typed("str", named.pop("default"))} if "default" in named else {}
    found |= {f"tokenizer.chat_template.{name}": Typed("str", text) for name, text in named.items()}
    return found | ({"tokenizer.chat_templates": Typed("arr[str]", list(named))} if named else {})
