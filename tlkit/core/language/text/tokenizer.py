"""A model's tokenizer: text to ids and back, its special tokens, and text as it grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tlkit.core.language.text.pieces import SPACE, ScoredPieces
from tlkit.core.language.text.vocabularies import (
    StoredVocabulary,
    described_tokenizer,
    made,
    stored_tokenizer,
    told_by_library,
    unbounded,
)
from tlkit.errors import LoadError
from tlkit.formats.gguf.model.pretokenizers import looks_words_up
from tlkit.formats.gguf.model.vocabulary import BYTE, CONTROL, NORMAL, TOKENIZER, UNKNOWN, UNUSED, USER

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|eom_id|>", "<|im_sep|>")
"""Tokens that end an answer whatever the metadata say, as in llama.cpp."""


class Inner(Protocol):
    """What turns text into ids and back, without a thought for a text's ends."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; special tokens that it spells out are such."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without special tokens."""

    def json(self) -> str:
        """Return the tokenizer as ``tokenizer.json`` describes one."""


class LibraryTokens:
    """A tokenizer of the ``tokenizers`` library."""

    def __init__(self, found: Any) -> None:
        self._found = found

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; LoadError where the tokenizer has no token for what it does not know."""
        with told_by_library("the model's tokenizer fails on this text", "the tokenizer is damaged: get it again"):
            return list(self._found.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""
        with told_by_library("the model's tokenizer fails on its tokens", "the tokenizer is damaged: get it again"):
            return str(self._found.decode(list(ids), skip_special_tokens=True))

    def json(self) -> str:
        """Return the library's own description."""
        return str(self._found.to_str())


class ScoredTokens:
    """A vocabulary by scores, without the library until its description is wanted."""

    def __init__(self, vocabulary: StoredVocabulary) -> None:
        self._vocabulary = vocabulary
        tokens, types = vocabulary.tokens, vocabulary.types or [NORMAL] * len(vocabulary.tokens)
        if not vocabulary.scores:
            raise LoadError(f"{vocabulary.where}: its tokens have no scores", "the file is damaged: get it again")
        self._prefixed = vocabulary.flag("add_space_prefix", True)
        other = [int(index) for index in np.flatnonzero(np.asarray(types) != NORMAL)]  # few, where the rest is many
        self._hidden = {index for index in other if types[index] in (CONTROL, UNKNOWN)}
        places = vocabulary.places
        whole = {
            token: place
            for token in vocabulary.of_type(CONTROL, UNKNOWN, USER)
            if (place := places.get(token)) is not None
        }
        values = {tokens[index]: index for index in other if types[index] == BYTE}
        bytewise = [values.get(f"<0x{byte:02X}>", -1) for byte in range(256)]
        self._bytes = {index: byte for byte, index in enumerate(bytewise) if index >= 0}
        apart = {index for index in other if types[index] not in (USER, UNUSED)}
        unknown = vocabulary.id("unknown") or 0
        complete = bytewise if len(self._bytes) == 256 else []
        self._pieces = ScoredPieces(places, apart, vocabulary.scores, complete, whole, unknown, self._prefixed)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return self._pieces.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""
        tokens, parts = self._vocabulary.tokens, []
        for bytewise, group in groupby(ids, self._bytes.__contains__):
            if bytewise:
                parts.append(_of_bytes(bytes(self._bytes[index] for index in group)))
            else:
                shown = (index for index in group if 0 <= index < len(tokens) and index not in self._hidden)
                parts += [tokens[index].replace(SPACE, " ") for index in shown]
        text = "".join(parts)
        return text[1:] if self._prefixed and text.startswith(" ") else text

    def json(self) -> str:
        """Return the description, for which the library makes the list of merges."""
        return str(made(self._vocabulary).to_str())


def _of_bytes(found: bytes) -> str:
    """Return the text of bytes; as in the library, each is a replacement character where they are not UTF-8."""
    try:
        return found.decode()
    except UnicodeDecodeError:
        return _UNFINISHED * len(found)


class TextTokenizer:
    """``before`` and ``after`` are the ids that a whole text gets at its ends; ``ends`` are those that end a generated
    text."""

    def __init__(self, inner: Inner, before: Sequence[int], after: Sequence[int], ends: Sequence[int]) -> None:
        self.inner = inner
        self.before, self.after, self.ends = tuple(before), tuple(after), frozenset(ends)

    def encode(self, text: str, *, whole: bool = True) -> list[int]:
        """Return the ids of a text; special tokens that it spells out are such. ``whole`` adds those at its ends.

        Halves of surrogate pairs, which bytes that are not UTF-8 become on the command line, are replaced."""
        ids = self.inner.encode(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
        if not whole:
            return ids
        # A text that begins with BOS, as chat templates' do, gets no second one.
        doubled = self.before and tuple(ids[: len(self.before)]) == self.before
        return [*(() if doubled else self.before), *ids, *self.after]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without special tokens."""
        return self.inner.decode(ids)


class GrowingText:
    """Text of tokens that come one by one: what :meth:`add` returns is final, and together it is all text."""

    def __init__(self, tokenizer: TextTokenizer, before: Sequence[int] = ()) -> None:
        # A token's text may depend on those before it (a blank at the start is dropped).
        self._tokenizer, self._ids = tokenizer, list(before[-4:])
        self._start, self._told = 0, len(self._ids)

    def add(self, token: int) -> str:
        """Return what a token adds to the text; nothing while a character is incomplete."""
        self._ids.append(token)
        known = self._tokenizer.decode(self._ids[self._start : self._told])
        now = self._tokenizer.decode(self._ids[self._start :])
        if now.endswith(_UNFINISHED) and len(self._ids) - self._told < 8:
            return ""
        # The next text is told from a token that shows: one that does not would let a blank after it seem the first.
        last = self._tokenizer.decode(self._ids[self._told - 1 : self._told]) if self._told else ""
        if last and _UNFINISHED not in last:  # nor from the midst of a character
            self._start = self._told - 1
        self._told = len(self._ids)
        return now[len(known) :]

    def rest(self) -> str:
        """Return what was held back."""
        known = self._tokenizer.decode(self._ids[self._start : self._told])
        return self._tokenizer.decode(self._ids[self._start :])[len(known) :]


def beside(make: Callable[[], TextTokenizer]) -> Callable[[], TextTokenizer]:
    """Begin to make a tokenizer in a thread, as it takes as long as loading weights does; return what waits for it, and
    raises what went wrong."""
    pool = ThreadPoolExecutor(1)
    made = pool.submit(make)
    pool.shutdown(wait=False)
    return made.result


def from_metadata(metadata: Mapping[str, Any], where: str) -> TextTokenizer:
    """Return the tokenizer that GGUF's metadata describe; LoadError where there is none, or it is damaged."""
    vocabulary = StoredVocabulary(metadata, where)
    described = metadata.get(TOKENIZER)
    inner: Inner
    if isinstance(described, str) and described:
        inner = LibraryTokens(unbounded(described_tokenizer(described, where)))
    else:
        inner = ScoredTokens(vocabulary) if vocabulary.model == "llama" else LibraryTokens(made(vocabulary))
    return TextTokenizer(inner, *_borders(vocabulary), _endings(vocabulary))


def from_folder(folder: Path, metadata: Mapping[str, Any]) -> TextTokenizer:
    """Return the tokenizer of a folder: its ``tokenizer.json``, or what older files of it say."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return from_metadata(metadata, str(folder))
    vocabulary = StoredVocabulary(metadata, str(folder))
    inner = unbounded(stored_tokenizer(file))
    return TextTokenizer(LibraryTokens(inner), *_borders(vocabulary), _endings(vocabulary))


def from_description(file: Path, said: Mapping[str, Any]) -> TextTokenizer:
    """Return the tokenizer of a ``tokenizer.json``, with the ids that ``said`` has for the ends of texts."""
    inner = stored_tokenizer(file)
    return TextTokenizer(LibraryTokens(inner), said["before"], said["after"], said["ends"])


def _borders(vocabulary: StoredVocabulary) -> tuple[list[int], list[int]]:
    """Return the ids before and after a text."""
    if vocabulary.model == "bert":
        first = vocabulary.id("bos") if vocabulary.id("cls") is None else vocabulary.id("cls")
        last = vocabulary.id("eos") if vocabulary.id("seperator") is None else vocabulary.id("seperator")
        return list(_there(first)), list(_there(last))
    begins = vocabulary.model == "llama" or looks_words_up(vocabulary.pre)
    before = vocabulary.id("bos") if vocabulary.flag("add_bos_token", begins) else None
    after = vocabulary.id("eos") if vocabulary.flag("add_eos_token", vocabulary.model == "t5") else None
    return list(_there(before)), list(_there(after))


def _endings(vocabulary: StoredVocabulary) -> list[int]:
    said = [vocabulary.id(role) for role in ("eos", "eot", "eom")]
    return list(_there(*said, *map(vocabulary.places.get, _ENDS)))


def _there(*ids: int | None) -> Iterator[int]:
    return (index for index in ids if index is not None)
