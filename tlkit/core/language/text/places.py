"""Where tokens are in a vocabulary that stays in its file: found by hashes, which are 12 bytes a token.

Strings and a dictionary of 262,144 tokens take 40 MB and half a second; a text needs a few thousand of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from tlkit.formats.gguf.header import Strings

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FACTOR = 0x9E3779B97F4A7C15  # odd, so that it has an inverse
_WHOLE = (1 << 64) - 1
_INVERSE = pow(_FACTOR, -1, 1 << 64)
_TOKENS = 1 << 13  # hashed at a time


class Places(Protocol):
    """Ids by token."""

    def get(self, token: str, /) -> int | None:
        """Return a token's id, None where there is none."""


class StoredPlaces:
    """The first place of each string. A hash is the sum of byte * factor^index, in 64 bits."""

    def __init__(self, strings: Strings) -> None:
        hashes = _hashes(strings)
        self._strings = strings
        self._order = np.argsort(hashes, kind="stable").astype(np.uint32)
        self._hashes = hashes[self._order]
        self.distinct = 1 + int(np.count_nonzero(np.diff(self._hashes)))
        """How many strings differ; strings of one hash count as one."""

    def get(self, token: str, /) -> int | None:
        """Return the first place of a string, None where there is none."""
        try:
            wanted = token.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return None
        found = _hash(wanted)
        at = int(np.searchsorted(self._hashes, np.uint64(found)))
        while at < len(self._hashes) and self._hashes[at] == found:
            place = int(self._order[at])
            if self._strings.raw(place) == wanted:
                return place
            at += 1
        return None


def _hash(text: bytes) -> int:
    found = 0
    for byte in reversed(text):
        found = (found * _FACTOR + byte + 1) & _WHOLE
    return found


def _hashes(strings: Strings) -> NDArray[np.uint64]:
    """Return each string's hash: sums over bytes by differences of running sums, shifted back to index 0."""
    data, ends = np.frombuffer(strings.data, np.uint8), np.asarray(strings.ends).astype(np.int64)
    starts = np.concatenate([[0], ends[:-1]]) + strings.step
    found = np.empty(len(ends), np.uint64)
    for first in range(0, len(ends), _TOKENS):
        some = slice(first, first + _TOKENS)
        base, last = int(starts[first]), int(ends[some][-1])
        count = last - base + 1
        values = np.zeros(count, np.uint64)
        values[1:] = data[base:last].astype(np.uint64) + np.uint64(1)
        values[1:] *= _powers(_FACTOR, count - 1)
        sums = np.cumsum(values, dtype=np.uint64)
        whole = sums[ends[some] - base] - sums[starts[some] - base]
        found[some] = whole * _powers(_INVERSE, count)[starts[some] - base]
    return found


def _powers(factor: int, count: int) -> NDArray[np.uint64]:
    """Return factor^0 ... factor^(count - 1), in 64 bits."""
    found = np.full(count, factor, np.uint64)
    found[:1] = 1
    return np.cumprod(found, dtype=np.uint64)
