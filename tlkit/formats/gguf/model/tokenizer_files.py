"""The files of a folder that describe its tokenizer, read once: ``tokenizer.json``, its config, and older forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tlkit.formats.files.mapped import parse_json, read_json, read_whole
from tlkit.formats.files.paths import inside
from tlkit.formats.gguf.model.pretokenizers import GPT2

_LIMIT = 1 << 27  # bytes: four times the largest known
_TOKENS = 1 << 23
# How a class splits text where no tokenizer.json says so; the end of the pattern is the same for all.
_SPLITS = {"Qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"}


@dataclass(frozen=True, slots=True)
class Added:
    """A token that was added to a trained vocabulary; ``special`` ones are never made from text."""

    id: int
    text: str
    special: bool


class TokenizerFiles:
    """What ``folder`` says of its tokenizer; nothing is read before it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def path(self) -> Path:
        """The file that describes it, for errors."""
        return self.folder / "tokenizer.json"

    @property
    def pieces(self) -> Path | None:
        """SentencePiece's own file, where there is one."""
        return next((file for name in ("tokenizer.model", "spiece.model") if (file := self._file(name))), None)

    @property
    def there(self) -> bool:
        """Whether the folder has a tokenizer at all."""
        names = ("tokenizer.json", "vocab.json", "vocab.txt")
        return self.pieces is not None or any(self._file(name) for name in names)

    @cached_property
    def described(self) -> Mapping[str, Any]:
        """``tokenizer.json``, or what older files (``vocab.json``, ``merges.txt``, ``vocab.txt``) say, in its words."""
        file = self._file("tokenizer.json")
        if file is None:
            return self._older()
        text = read_whole(file, _LIMIT)
        # Every item takes two characters at least.
        found = parse_json(text, str(file), max(len(text) // 2, 1))
        return found if isinstance(found, Mapping) else {}

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """``tokenizer_config.json``, over ``special_tokens_map.json``."""
        return {**self.json("special_tokens_map.json"), **self.json("tokenizer_config.json")}

    def json(self, name: str) -> Mapping[str, Any]:
        """Return the object in the file ``name``; empty where it is not there."""
        file = self._file(name)
        found = read_json(file) if file else {}
        return found if isinstance(found, Mapping) else {}

    def text(self, name: str) -> str:
        """Return the text of the file ``name``; empty where it is not there."""
        file = self._file(name)
        return read_whole(file, _LIMIT).decode("utf-8", "replace") if file else ""

    def added(self) -> list[Added]:
        """Return the tokens added to the vocabulary, in the order of their ids."""
        found: dict[int, Added] = {}
        for text, number in self.json("added_tokens.json").items():
            _enter(found, number, text, False)
        for item in listed(self.described.get("added_tokens")):
            if isinstance(item, Mapping):
                _enter(found, item.get("id"), item.get("content"), item.get("special"))
        decoder = self.config.get("added_tokens_decoder")
        for key, item in decoder.items() if isinstance(decoder, Mapping) else ():
            if isinstance(item, Mapping) and key.isdecimal():
                _enter(found, int(key[:9]), item.get("content"), item.get("special"))
        return [found[number] for number in sorted(found)]

    def _file(self, name: str) -> Path | None:
        file = self.folder / name
        return inside(self.folder, self.folder, name) if file.is_file() else None

    def _older(self) -> Mapping[str, Any]:
        kind = str(self.config.get("tokenizer_class", ""))
        if self._file("vocab.txt"):
            words = self.text("vocab.txt").split("\n")
            vocab = {word.rstrip("\r"): index for index, word in enumerate(words) if word or index < len(words) - 1}
            lower = self.config.get("do_lower_case", True)
            return {"model": {"type": "WordPiece", "vocab": vocab}, "normalizer": {"lowercase": lower}}
        if not (self._file("vocab.json") and self._file("merges.txt")):
            return {}
        lines = self.text("merges.txt").split("\n")
        merges = [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#version")]
        tail = r"\s*[\r\n]+|\s+(?!\S)|\s+"
        split = next((start + tail for name, start in _SPLITS.items() if kind.startswith(name)), GPT2)
        known = kind.startswith(("GPT2", "Qwen2"))
        steps = [
            {"type": "Split", "pattern": {"Regex": split if known else ""}, "behavior": "Isolated"},
            {"type": "ByteLevel", "use_regex": False},
        ]
        return {
            "model": {"type": "BPE", "vocab": dict(self.json("vocab.json")), "merges": merges},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        }


def listed(value: Any) -> list[Any]:
    """Return ``value`` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def _enter(found: dict[int, Added], number: Any, text: Any, special: Any) -> None:
    if type(number) is int and 0 <= number < _TOKENS and isinstance(text, str):
        found[number] = Added(number, text, special is True)
