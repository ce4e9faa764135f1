"""A model folder's vocabulary as llama.cpp keeps it: tokens in the order of their ids, with types, scores or merges."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError
from tlkit.formats.gguf.model.pretokenizers import pre_tokenizer
from tlkit.formats.gguf.model.sentencepiece import read_pieces
from tlkit.formats.gguf.model.tokenizer_files import Added, TokenizerFiles, listed
from tlkit.formats.gguf.write import Typed

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""``tokenizer.ggml.token_type``."""

TOKENIZER = "tokenizer.huggingface.json"
"""GGUF's key for the text of ``tokenizer.json``: written where llama.cpp's own words do not say the same."""
OWN_LOWERCASE = "tlkit.tokenizer.lowercase"
"""Whether WordPiece writes text small, where it does not."""

_ADDED_SCORE = -1000.0  # what llama.cpp's converter gives tokens that no merge makes
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "\u2581"  # SentencePiece's mark for a blank
_TOKENS = 1 << 23
_LENGTH = 1 << 10  # characters of a token whose splits are looked at


@dataclass(slots=True)
class Vocabulary:
    """``model`` is llama.cpp's algorithm: llama (by scores), gpt2 (by merges), bert (WordPiece), t5 (Unigram)."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    habits: dict[str, Typed] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)

    def add(self, added: Sequence[Added]) -> None:
        """Put tokens in that were added to the trained vocabulary, over what is at their place."""
        for token in added:
            self.pad(token.id + 1)
            # As llama.cpp's converter: ordinary tokens are looked for in text before its blanks are marked.
            text = token.text if token.special else token.text.replace(_SPACE, " ")
            self.tokens[token.id] = text
            if self.types[token.id] not in (UNKNOWN, BYTE):
                self.types[token.id] = CONTROL if token.special else USER
            if self.scores:
                self.scores[token.id] = _ADDED_SCORE

    def pad(self, count: int) -> None:
        """Fill up to ``count`` tokens with ones that no text has."""
        for index in range(len(self.tokens), count):
            self.tokens.append(f"[PAD{index}]")
            self.types.append(UNUSED)
            if self.scores:
                self.scores.append(_ADDED_SCORE)

    def fit(self, rows: int) -> None:
        """Bring the vocabulary to as many tokens as the embedding has rows; llama.cpp loads no other."""
        if rows > _room(len(self.tokens)):
            self.doubts.append(f"its embedding has {rows:,} rows for {len(self.tokens):,} tokens")
            return
        self.pad(rows)
        if len(self.tokens) > rows:
            self.doubts += [
                f"{len(self.tokens) - rows} of its tokens have no row in the embedding"
                for kind in self.types[rows:]
                if kind not in (CONTROL, USER, UNUSED)
            ][:1]
            del self.tokens[rows:], self.types[rows:], self.scores[rows:]

    def metadata(self) -> dict[str, Typed]:
        """Return GGUF's entries."""
        found = {
            "tokenizer.ggml.model": Typed("str", self.model),
            "tokenizer.ggml.pre": Typed("str", self.pre),
            "tokenizer.ggml.tokens": Typed("arr[str]", self.tokens),
            "tokenizer.ggml.scores": Typed("arr[f32]", self.scores),
            "tokenizer.ggml.token_type": Typed("arr[i32]", self.types),
            "tokenizer.ggml.merges": Typed("arr[str]", self.merges),
        }
        return {key: typed for key, typed in found.items() if typed.value} | self.habits


def read_vocabulary(files: TokenizerFiles) -> Vocabulary | None:
    """Return the folder's vocabulary; None where it has no tokenizer, LoadError where that cannot be read."""
    found = None
    if files.pieces and not _is_byte_level(files.described):
        try:
            found = _from_pieces(files.pieces)
        except LoadError:
            if not files.described:
                raise
    if found is None and files.described:
        found = _from_json(files.described, str(files.path))
    if found is not None:
        added = files.added()
        if added and added[-1].id >= _room(len(found.tokens)):
            raise LoadError(
                f"{files.path}: it adds a token {added[-1].id:,} to {len(found.tokens):,}", "save the tokenizer again"
            )
        found.add(added)
    return found


def _from_pieces(path: Path) -> Vocabulary:
    read = read_pieces(path)
    habits = {"tokenizer.ggml.add_space_prefix": Typed("bool", read.prefix)}
    if read.unigram:
        habits["tokenizer.ggml.remove_extra_whitespaces"] = Typed("bool", read.squeezes)
        if read.charsmap:
            habits["tokenizer.ggml.precompiled_charsmap"] = Typed("arr[u8]", read.charsmap)
    types = [kind if NORMAL <= kind <= BYTE else NORMAL for kind in read.types]
    model = "t5" if read.unigram else "llama"
    return Vocabulary(model, "default", list(read.pieces), types, list(read.scores), habits=habits)


def _from_json(described: Mapping[str, Any], path: str) -> Vocabulary:
    model = described.get("model")
    if not isinstance(model, Mapping):
        raise LoadError(f"{path}: it describes no model of a tokenizer", "save the tokenizer again")
    kind = model.get("type") or ("BPE" if "merges" in model else "WordPiece")
    if kind == "Unigram":
        return _unigram(described, model, path)
    tokens = _by_id(model.get("vocab"), path)
    if kind == "WordPiece":
        return _word_piece(described, model, tokens)
    if kind != "BPE":
        raise LoadError(f"{path}: llama.cpp has no tokenizer of the kind '{str(kind)[:40]}'", "convert without it")
    merges = list(_merges(model.get("merges"), path))
    if _is_byte_level(described):
        return _byte_level(described, tokens, merges)
    return _scored(described, model, tokens, merges)


def _by_id(vocab: Any, path: str) -> list[str]:
    """Return tokens in the order of their ids; those that are not there have names that no text has."""
    if not isinstance(vocab, Mapping) or not all(type(id) is int and 0 <= id < _TOKENS for id in vocab.values()):
        raise LoadError(f"{path}: its vocabulary is not ids by token", "save the tokenizer again")
    size = max(vocab.values(), default=-1) + 1
    if size > _room(len(vocab)):
        raise LoadError(f"{path}: its vocabulary has {len(vocab):,} tokens and ids up to {size:,}", "save it again")
    tokens = [f"[PAD{index}]" for index in range(size)]
    for token, id in vocab.items():
        tokens[id] = token
    return tokens


def _room(tokens: int) -> int:
    """Return how many ids a vocabulary of so many tokens may have: more are a damaged file, not padding."""
    return 2 * tokens + (1 << 16)


def _merges(found: Any, path: str) -> Iterator[tuple[str, str]]:
    for merge in found if isinstance(found, list) else ():
        pair = merge.split(" ", 1) if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise LoadError(f"{path}: '{str(merge)[:60]}' is not a merge of two tokens", "save the tokenizer again")
        yield pair[0], pair[1]


def _kinds(described: Any) -> set[str]:
    """Return the types of all steps of a normalizer, a pre-tokenizer or a decoder."""
    if not isinstance(described, Mapping):
        return set()
    inner = [item for key in ("normalizers", "pretokenizers", "decoders") for item in listed(described.get(key))]
    return {str(described.get("type"))} | {str(item.get("type")) for item in inner if isinstance(item, Mapping)}


def _is_byte_level(described: Mapping[str, Any]) -> bool:
    return "ByteLevel" in _kinds(described.get("pre_tokenizer")) | _kinds(described.get("decoder"))


def _byte_level(described: Mapping[str, Any], tokens: list[str], merges: list[tuple[str, str]]) -> Vocabulary:
    pre = pre_tokenizer(described)
    # A token may hold a blank, which parts the two tokens of a merge in GGUF: byte-level text writes it otherwise.
    # chr(288) is Ġ, the blank of byte-level text.
    joined = [f"{first.replace(' ', chr(288))} {second.replace(' ', chr(288))}" for first, second in merges]
    types = [UNUSED if token == f"[PAD{index}]" else NORMAL for index, token in enumerate(tokens)]
    doubts = [] if pre else ["llama.cpp has no name for how its tokenizer splits text: some text becomes other tokens"]
    return Vocabulary("gpt2", pre or "default", tokens, types, merges=joined, doubts=doubts)


def _scored(
    described: Mapping[str, Any], model: Mapping[str, Any], tokens: list[str], merges: list[tuple[str, str]]
) -> Vocabulary:
    """Return the scores that make llama.cpp merge in the order of ``merges``: it has no list of them here."""
    ranks: dict[str, int] = {}
    scattered, last = False, ""
    for rank, (first, second) in enumerate(merges):
        token = first + second
        scattered = scattered or (token in ranks and token != last)
        ranks.setdefault(token, rank)
        last = token
    unknown = model.get("unk_token")
    types = [UNKNOWN if token == unknown else BYTE if _BYTE.fullmatch(token) else NORMAL for token in tokens]
    scores = [-float(ranks[token]) if token in ranks else 0.0 for token in tokens]
    habits = {"tokenizer.ggml.add_space_prefix": Typed("bool", _prefixed(described))}
    doubts = []
    if scattered or _unlisted(ranks, merges, set(tokens)):
        doubts = ["its merges are not those of a SentencePiece vocabulary: llama.cpp splits some text otherwise"]
    return Vocabulary("llama", "default", tokens, types, scores, habits=habits, doubts=doubts)


def _unlisted(ranks: Mapping[str, int], merges: Sequence[tuple[str, str]], tokens: set[str]) -> bool:
    """Whether two tokens make a third without a merge that says so: llama.cpp merges all that make a token."""
    listed = set(merges)
    return any(
        token[:cut] in tokens and token[cut:] in tokens and (token[:cut], token[cut:]) not in listed
        for token in ranks
        for cut in range(1, min(len(token), _LENGTH))
    )


def _prefixed(described: Mapping[str, Any]) -> bool:
    """Whether text gets a blank before it."""
    steps = described.get("pre_tokenizer")
    inner = [steps, *listed(steps.get("pretokenizers"))] if isinstance(steps, Mapping) else []
    spaces = [step for step in inner if isinstance(step, Mapping) and step.get("type") == "Metaspace"]
    if spaces:
        step = spaces[0]
        return step.get("prepend_scheme", "always") != "never" and step.get("add_prefix_space") is not False
    return "Prepend" in _kinds(described.get("normalizer"))


def _word_piece(described: Mapping[str, Any], model: Mapping[str, Any], tokens: list[str]) -> Vocabulary:
    prefix = str(model.get("continuing_subword_prefix", "##"))
    normalizer = described.get("normalizer")
    lower = "Lowercase" in _kinds(normalizer) or (isinstance(normalizer, Mapping) and normalizer.get("lowercase"))
    doubts = [] if lower else ["its tokenizer keeps capitals, and llama.cpp writes all text small for this kind"]
    usual = {"strip_accents": (None, bool(lower)), "handle_chinese_chars": (None, True), "clean_text": (None, True)}
    said = normalizer if isinstance(normalizer, Mapping) else {}
    if any(said.get(name) not in values for name, values in usual.items()):
        doubts.append("its tokenizer keeps accents or spaces, or splits Chinese otherwise than llama.cpp")

    def told(token: str) -> str:
        if token.startswith("[") and token.endswith("]"):
            # [CLS], [SEP] and the like are not parts of words.
            return token
        return token[len(prefix) :] if token.startswith(prefix) else _SPACE + token

    types = [UNUSED if token == f"[PAD{index}]" and index else NORMAL for index, token in enumerate(tokens)]
    habits = {} if lower else {OWN_LOWERCASE: Typed("bool", False)}
    return Vocabulary("bert", "default", [told(token) for token in tokens], types, habits=habits, doubts=doubts)


def _unigram(described: Mapping[str, Any], model: Mapping[str, Any], path: str) -> Vocabulary:
    pieces = model.get("vocab")
    if not isinstance(pieces, list) or not all(
        isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], int | float)
        for item in pieces
    ):
        raise LoadError(f"{path}: its vocabulary is not tokens with scores", "save the tokenizer again")
    tokens, scores = [item[0] for item in pieces], [float(item[1]) for item in pieces]
    types = [BYTE if _BYTE.fullmatch(token) else NORMAL for token in tokens]
    unknown = model.get("unk_id")
    if type(unknown) is int and 0 <= unknown < len(types):
        types[unknown] = UNKNOWN
    habits = {
        "tokenizer.ggml.add_space_prefix": Typed("bool", _prefixed(described)),
        "tokenizer.ggml.remove_extra_whitespaces": Typed("bool", "Strip" in _kinds(described.get("normalizer"))),
    }
    charsmap = _charsmap(described.get("normalizer"))
    if charsmap:
        habits["tokenizer.ggml.precompiled_charsmap"] = Typed("arr[u8]", charsmap)
    return Vocabulary("t5", "default", tokens, types, scores, habits=habits)


def _charsmap(normalizer: Any) -> bytes:
    """Return SentencePiece's table of characters to normalize."""
    steps = [normalizer, *listed(normalizer.get("normalizers"))] if isinstance(normalizer, Mapping) else []
    said = next((step.get("precompiled_charsmap") for step in steps if isinstance(step, Mapping)), None)
    try:
        return base64.b64decode(said) if isinstance(said, str) else b""
    except (binascii.Error, ValueError):
        return b""
