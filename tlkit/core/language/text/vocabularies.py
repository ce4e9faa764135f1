"""GGUF's vocabularies as tokenizers of the ``tokenizers`` library: by scores, merges, words and probabilities.

Sources: llama.cpp's ``llama-vocab.cpp``; transformers' ``convert_slow_tokenizer.py`` for how SentencePiece's scores
become merges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.core.language.text.pieces import SPACE
from tlkit.core.language.text.places import Places, StoredPlaces
from tlkit.errors import LoadError, UnavailableError, reason
from tlkit.formats.gguf.header import GGUFArray, Strings
from tlkit.formats.gguf.model.pretokenizers import looks_words_up, splits
from tlkit.formats.gguf.model.vocabulary import BYTE, CONTROL, OWN_LOWERCASE, UNKNOWN, USER
from tlkit.host.quiet import hushed

_TOKENS = 1 << 23
_LONGEST = 1 << 12  # characters of a token
_DAMAGED = "the file is damaged: get it again"


def library() -> Any:
    """Return the ``tokenizers`` package; UnavailableError where it is not installed."""
    try:
        import tokenizers  # an extra
    except ImportError:
        raise UnavailableError(
            "language models need the package tokenizers", "pip install tokenizers (or tlkit's extra `language`)"
        ) from None
    return tokenizers


def stored_tokenizer(file: Path) -> Any:
    """Return the library's tokenizer of a ``tokenizer.json``; LoadError where it is none."""
    return _opened(library().Tokenizer.from_file, str(file), str(file))


def described_tokenizer(text: str, where: str) -> Any:
    """Return the library's tokenizer of the text of a ``tokenizer.json``; LoadError where it is none."""
    return _opened(library().Tokenizer.from_str, text, where)


def _opened(make: Callable[[str], Any], given: str, where: str) -> Any:
    with told_by_library(f"{where}: not a tokenizer", "get the file again"), hushed():
        return make(given)


@contextmanager
def told_by_library(said: str, hint: str) -> Iterator[None]:
    """Tell what the library raises as a LoadError that begins with ``said``. Its errors have no class of their own; a
    panic of its Rust code is no Exception, and writes to stderr."""
    try:
        yield
    except LoadError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise LoadError(f"{said} ({reason(error)[:200]})", hint) from None


def unbounded(found: Any) -> Any:
    """Return a tokenizer that neither cuts nor fills texts, whatever it was saved with."""
    found.no_truncation()
    found.no_padding()
    return found


class StoredVocabulary:
    """A vocabulary's parts by GGUF's keys, held to bounds."""

    def __init__(self, metadata: Mapping[str, Any], where: str) -> None:
        self.metadata, self.where = metadata, where
        self.model = self._text("model")
        self.pre = self._text("pre") or "default"
        found = self._list("tokens")
        if not found:
            raise LoadError(f"{where}: it has no vocabulary", "choose a model file with a tokenizer")
        self.tokens: Sequence[str] = found
        if isinstance(found, GGUFArray) and found.type == "str":
            self.tokens = found.strings()
        elif set(map(type, found)) != {str}:
            self.tokens = [str(token) for token in found]
        if len(self.tokens) > _TOKENS or _longest(self.tokens) > _LONGEST:
            raise LoadError(f"{where}: its vocabulary is too large to be one", _DAMAGED)
        self.types = self._numbers("token_type")
        self.scores = self._numbers("scores")
        self.merges = self._list("merges")

    def id(self, role: str) -> int | None:
        """Return the id of a special token (``bos``, ``eos``, ``unknown`` ...), None where there is none."""
        found = self.metadata.get(f"tokenizer.ggml.{role}_token_id")
        return found if type(found) is int and 0 <= found < len(self.tokens) else None

    def flag(self, name: str, default: bool) -> bool:
        """Return one of the habits, such as ``add_bos_token``."""
        found = self.metadata.get(f"tokenizer.ggml.{name}")
        return found if isinstance(found, bool) else default

    def of_type(self, *types: int) -> list[str]:
        """Return the tokens of these types."""
        places = np.flatnonzero(np.isin(np.asarray(self.types), types))
        return [token for place in places if (token := self.tokens[place])]

    def by_token(self) -> dict[str, int]:
        """Return ids by token; of tokens that are there twice the first."""
        tokens = list(self.tokens)
        found = dict(zip(reversed(tokens), range(len(tokens) - 1, -1, -1), strict=True))
        self._check_distinct(len(found))
        return found

    @cached_property
    def places(self) -> Places:
        """Where tokens are, for looking up few of them; of tokens that are there twice the first."""
        if not isinstance(self.tokens, Strings):
            return self.by_token()
        found = StoredPlaces(self.tokens)
        self._check_distinct(found.distinct)
        return found

    def _check_distinct(self, count: int) -> None:
        if count < len(self.tokens) // 2:
            raise LoadError(f"{self.where}: most tokens of its vocabulary are the same", _DAMAGED)

    def _text(self, key: str) -> str:
        found = self.metadata.get(f"tokenizer.ggml.{key}")
        return found if isinstance(found, str) else ""

    def _list(self, key: str) -> Sequence[Any]:
        found = self.metadata.get(f"tokenizer.ggml.{key}")
        if found is None:
            return []
        if not isinstance(found, Sequence) or isinstance(found, str):
            raise LoadError(f"{self.where}: tokenizer.ggml.{key} is not a list", _DAMAGED)
        return found

    def _numbers(self, key: str) -> Sequence[Any]:
        found = self._list(key)
        if found and len(found) != len(self.tokens):
            said = f"{self.where}: it has {len(self.tokens):,} tokens, and tokenizer.ggml.{key} {len(found):,}"
            raise LoadError(said, _DAMAGED)
        return found


def _longest(tokens: Sequence[str]) -> int:
    """Return the characters of the longest token, or a lower number that is enough."""
    if not isinstance(tokens, Strings):
        return max(map(len, tokens))
    sizes = np.diff(np.asarray(tokens.ends), prepend=0) - tokens.step
    return max((len(tokens[place]) for place in np.flatnonzero(sizes > _LONGEST)), default=0)


def made(vocabulary: StoredVocabulary) -> Any:
    """Return a ``tokenizers.Tokenizer``; LoadError where the vocabulary contradicts itself or is of no known kind."""
    make = _KINDS.get(vocabulary.model)
    if make is None:
        said = f"{vocabulary.where}: its tokenizer is of the kind '{vocabulary.model[:40]}'"
        raise LoadError(said, f"tlkit knows {', '.join(_KINDS)}")
    package = library()
    with told_by_library(f"{vocabulary.where}: its tokenizer contradicts itself", _DAMAGED), hushed():
        return make(vocabulary, package)


def _add(found: Any, vocabulary: StoredVocabulary, package: Any) -> None:
    """Add the tokens that are looked for in text as they are."""
    special = vocabulary.of_type(CONTROL, UNKNOWN)
    own = vocabulary.of_type(USER)
    found.add_special_tokens([package.AddedToken(token, normalized=False, special=True) for token in special])
    found.add_tokens([package.AddedToken(token, normalized=False) for token in own])


def _scored(vocabulary: StoredVocabulary, package: Any) -> Any:
    """SentencePiece's BPE, which merges what has the highest score, as merges in that order."""
    if not vocabulary.scores:
        raise LoadError(f"{vocabulary.where}: its tokens have no scores", _DAMAGED)
    places = vocabulary.by_token()
    unknown = vocabulary.id("unknown")
    model = package.models.BPE(
        places,
        list(_merges_of(vocabulary, places)),
        byte_fallback=BYTE in set(vocabulary.types),
        fuse_unk=True,
        unk_token=vocabulary.tokens[unknown] if unknown is not None else None,
    )
    found = package.Tokenizer(model)
    prefix = vocabulary.flag("add_space_prefix", True)
    marks = [package.normalizers.Prepend(SPACE)] if prefix else []
    found.normalizer = package.normalizers.Sequence([*marks, package.normalizers.Replace(" ", SPACE)])
    ends = [package.decoders.Strip(" ", 1, 0)] if prefix else []
    steps = [package.decoders.Replace(SPACE, " "), package.decoders.ByteFallback(), package.decoders.Fuse(), *ends]
    found.decoder = package.decoders.Sequence(steps)
    _add(found, vocabulary, package)
    return found


def _merges_of(vocabulary: StoredVocabulary, places: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Yield every pair of tokens that makes a third, highest score first."""
    scores, types = vocabulary.scores, vocabulary.types or [1] * len(vocabulary.tokens)
    order = sorted(range(len(vocabulary.tokens)), key=lambda index: -scores[index])
    for index in order:
        token = vocabulary.tokens[index]
        if types[index] != 1 or places[token] != index:
            continue
        pairs = [
            (token[:cut], token[cut:])
            for cut in range(1, len(token))
            if token[:cut] in places and token[cut:] in places
        ]
        yield from sorted(pairs, key=lambda pair: (places[pair[0]], places[pair[1]]))


def _merged(vocabulary: StoredVocabulary, package: Any) -> Any:
    """Byte-level BPE with the file's merges."""
    if vocabulary.metadata.get("tokenizer.ggml.merges") is None:
        raise LoadError(f"{vocabulary.where}: its tokens have no merges", _DAMAGED)
    pairs = []
    for merge in vocabulary.merges:
        first, blank, second = str(merge).partition(" ")
        if not blank or not first or not second:
            raise LoadError(f"{vocabulary.where}: '{str(merge)[:60]}' is not a merge of two tokens", _DAMAGED)
        pairs.append((first, second))
    found = package.Tokenizer(
        package.models.BPE(vocabulary.by_token(), pairs, ignore_merges=looks_words_up(vocabulary.pre))
    )
    split = [package.pre_tokenizers.Split(package.Regex(text), "isolated") for text in splits(vocabulary.pre)]
    bytewise = package.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    found.pre_tokenizer = package.pre_tokenizers.Sequence([*split, bytewise])
    found.decoder = package.decoders.ByteLevel()
    _add(found, vocabulary, package)
    return found


def _words(vocabulary: StoredVocabulary, package: Any) -> Any:
    """WordPiece: llama.cpp marks the first part of a word, BERT the others."""
    unknown = vocabulary.id("unknown")
    marked = [_told(token) for token in vocabulary.tokens]
    places = {token: index for index, token in reversed(list(enumerate(marked)))}
    name = marked[unknown] if unknown is not None else "[UNK]"
    found = package.Tokenizer(package.models.WordPiece(places, unk_token=name, max_input_chars_per_word=100))
    small = vocabulary.metadata.get(OWN_LOWERCASE) is not False
    found.normalizer = package.normalizers.BertNormalizer(lowercase=small, strip_accents=small)
    found.pre_tokenizer = package.pre_tokenizers.BertPreTokenizer()
    found.decoder = package.decoders.WordPiece()
    ids = [vocabulary.id(role) for role in ("bos", "cls", "seperator", "eos", "padding", "mask", "unknown")]
    special = dict.fromkeys(marked[index] for index in ids if index is not None)
    found.add_special_tokens([package.AddedToken(token, normalized=False, special=True) for token in special])
    return found


def _told(token: str) -> str:
    if token.startswith("[") and token.endswith("]") and len(token) > 2:
        return token
    return token[1:] if token.startswith(SPACE) else f"##{token}"


def _likely(vocabulary: StoredVocabulary, package: Any) -> Any:
    """Unigram: the likeliest way to split a text."""
    if not vocabulary.scores:
        raise LoadError(f"{vocabulary.where}: its tokens have no scores", _DAMAGED)
    unknown = vocabulary.id("unknown")
    if unknown is None:
        unknown = next((index for index, kind in enumerate(vocabulary.types) if kind == UNKNOWN), 0)
    pieces = list(zip(vocabulary.tokens, map(float, vocabulary.scores), strict=True))
    found = package.Tokenizer(package.models.Unigram(pieces, unknown, BYTE in set(vocabulary.types)))
    steps = []
    table = vocabulary.metadata.get("tokenizer.ggml.precompiled_charsmap")
    if table is not None and len(table):
        steps.append(package.normalizers.Precompiled(bytes(table)))
    if vocabulary.flag("remove_extra_whitespaces", False):
        steps += [package.normalizers.Strip(), package.normalizers.Replace(package.Regex(" {2,}"), " ")]
    if steps:
        found.normalizer = package.normalizers.Sequence(steps)
    scheme = "always" if vocabulary.flag("add_space_prefix", True) else "never"
    found.pre_tokenizer = package.pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme)
    found.decoder = package.decoders.Metaspace(SPACE, prepend_scheme=scheme)
    _add(found, vocabulary, package)
    return found


_KINDS: Mapping[str, Callable[[StoredVocabulary, Any], Any]] = {
    "llama": _scored,
    "gpt2": _merged,
    "bert": _words,
    "t5": _likely,
}
