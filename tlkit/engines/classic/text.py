"""Create ML's text classifiers of kind maxEnt (2018 to 2026), whose data was decoded from public models.

The data is a container of five sections: a property list that says the kind, records of weights, labels, the
vocabulary, and document frequencies. The score of a label is the sum over the text's distinct known tokens of
ln(1 + count) * ln(documents / documents with the token) * weight, and probabilities are their softmax; a text without
known tokens has equal ones. The arithmetic is exact; where Apple's tokenizer draws borders between words is only
approximated by a pattern, which agrees on 3,407 of 3,413 words of one model's vocabulary.
"""

from __future__ import annotations

import plistlib
import re
import struct
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from tlkit.engines.classic.answers import Classification, softmax
from tlkit.engines.classic.values import DAMAGED, Features, Rows, each, given, only_input
from tlkit.errors import ExecutionError, LoadError
from tlkit.types import TensorSpec

_MAGIC, _CLASSIFIER = 0x0956D3DE, 4
# Letters, digits and _, also joined by an inner mark (t.co, it's, D-76); or one mark by itself.
_TOKEN = re.compile(r"[^\W]+(?:[.'’\-:][^\W]+)*|[^\w\s]", re.UNICODE)


def classifier(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return what a ``textClassifier`` of kind maxEnt computes; LoadError for the other kinds, by name."""
    source = only_input(model)
    data = _Data(bytes(model.textClassifier.modelParameterData))
    answer = Classification(model, data.labels)

    def step(features: Features) -> dict[str, Any]:
        text = given(features, source)
        if not isinstance(text, str):
            raise ExecutionError(f"the input '{source}' is not a text", "give it one")
        found = softmax(data.scores(tokens(text))[None])
        return answer.rows(found.argmax(1), found)[0]

    return each(step)


def tokens(text: str) -> Counter[str]:
    """Return the words and marks of a text, with how often each comes: case is kept, blanks are not tokens."""
    return Counter(_TOKEN.findall(text))


def vocabulary(data: bytes) -> list[str]:
    """Return the words that a model's ``modelParameterData`` knows; LoadError as for the model."""
    return list(_Data(data).places)


class _Data:
    """The decoded ``modelParameterData``."""

    def __init__(self, data: bytes) -> None:
        sections = _sections(data)
        plist = _plist(sections[0])
        kind = plist.get("ModelType") if isinstance(plist, dict) else None
        if kind != 0:
            named = {1: "a CRF"}.get(kind, "transfer learning") if isinstance(kind, int) else "an unknown kind"
            raise LoadError(f"a text classifier of {named} needs what only Apple's systems contain", "only maxEnt runs")
        self.labels = tuple(_texts(sections[2])[1:])  # entry 0 is empty
        words = _texts(sections[3])
        self.places = {word: place for place, word in enumerate(words) if word}
        documents = plist.get("NumberOfTrainingInstances", 0)
        if not isinstance(documents, int) or documents < 1 or not self.labels:
            raise LoadError("a text classifier without labels or training instances", DAMAGED)
        self._rarity = _rarity(_plist(sections[4]), len(words), documents)
        self._weights = _weights(sections[1], len(words), len(self.labels))

    def scores(self, words: Counter[str]) -> Any:
        """Return the score of each label."""
        found = np.zeros(len(self.labels))
        for word, count in words.items():
            place = self.places.get(word)
            for label, weight in self._weights.get(place, ()) if place is not None else ():
                found[label] += np.log1p(count) * self._rarity[place] * weight
        return found


def _sections(data: bytes) -> list[bytes]:
    try:
        magic, kind = struct.unpack_from("<IH", data)
        # After the magic, the kind and four more numbers: 16 bytes.
        places = [struct.unpack_from("<II", data, 16 + 8 * number) for number in range(5)]
    except struct.error:
        raise LoadError("a text classifier's data is cut short", DAMAGED) from None
    if magic != _MAGIC or kind != _CLASSIFIER:
        raise LoadError("a text classifier whose data has a form that only Apple's systems read", "only maxEnt runs")
    # In every file met this offset is 4 too small, and only this one.
    places[0] = (places[0][0] + 4, places[0][1])
    if any(offset + size > len(data) + 4 for offset, size in places):
        raise LoadError("a text classifier's data is cut short", DAMAGED)
    return [data[offset : offset + size] for offset, size in places]


def _plist(data: bytes) -> Any:
    try:
        return plistlib.loads(data)
    except Exception as error:  # plistlib lets through whatever its parsers raise
        raise LoadError(f"a text classifier's property list is unreadable ({type(error).__name__})", DAMAGED) from None


def _texts(data: bytes) -> list[str]:
    return [part.decode("utf-8", "replace") for part in data.rstrip(b"\0").split(b"\0")]


def _rarity(frequencies: Any, words: int, documents: int) -> Any:
    """Return ln(documents / documents with the word) of each word; words past the list's end were in one."""
    if not isinstance(frequencies, list) or not all(isinstance(item, int) and item >= 0 for item in frequencies):
        raise LoadError("a text classifier's document frequencies are unreadable", DAMAGED)
    counts = np.ones(words)
    known = np.array(frequencies[:words], np.float64)
    counts[: len(known)] = np.maximum(known, 1)
    return np.log(documents / counts)


def _weights(data: bytes, words: int, labels: int) -> dict[int, list[tuple[int, float]]]:
    """Return (label, weight) pairs by word: records of a word in three bytes, a label, and a big-endian f32."""
    found: dict[int, list[tuple[int, float]]] = {}
    for place in range(0, len(data) - len(data) % 8, 8):
        word, label = int.from_bytes(data[place : place + 3], "little"), data[place + 3]
        (weight,) = struct.unpack_from(">f", data, place + 4)
        if word < words and 1 <= label <= labels:
            found.setdefault(word, []).append((label - 1, weight))
    return found
