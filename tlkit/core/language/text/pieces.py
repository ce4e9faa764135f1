"""SentencePiece's BPE by scores, as llama.cpp computes it: ready as soon as the vocabulary is read.

A vocabulary of 262,144 tokens has 500,000 pairs that merge, which the ``tokenizers`` library wants listed first. That
takes seconds; looking up what a text has takes milliseconds. Where the list itself is wanted (``tokenizer.json``),
:mod:`~tlkit.core.language.text.vocabularies` makes it, and tests hold both to the same tokens.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence, Set

from tlkit.core.language.text.places import Places

_REMEMBERED = 1 << 16  # pieces
SPACE = "\u2581"
"""SentencePiece's mark for a blank."""


class ScoredPieces:
    """Tokens by their ``places`` (ids), with a score each; those in ``apart`` are no pieces of texts. ``bytewise`` are
    the ids of the 256 bytes, empty where there are none; ``whole`` the tokens that are looked for in text before
    anything else; ``prefixed`` says whether text gets a blank before it."""

    def __init__(
        self,
        places: Places,
        apart: Set[int],
        scores: Sequence[float],
        bytewise: Sequence[int],
        whole: Mapping[str, int],
        unknown: int,
        prefixed: bool,
    ) -> None:
        self._tokens, self._apart, self._scores, self._bytes = places, apart, scores, bytewise
        self._known: dict[str, int | None] = {}
        self._whole, self._unknown, self._prefixed = whole, unknown, prefixed
        self._lengths: dict[str, list[int]] = {}
        for token in whole:
            self._lengths.setdefault(token[0], []).append(len(token))
        self._lengths = {first: sorted(set(sizes), reverse=True) for first, sizes in self._lengths.items()}

    def encode(self, text: str) -> list[int]:
        """Return a text's ids."""
        found: list[int] = []
        for part, token in self._parts(text):
            if part:
                marked = (SPACE if self._prefixed else "") + part.replace(" ", SPACE)
                for piece in self._pieces(marked):
                    found += self._ids(piece)
            if token is not None:
                found.append(token)
        return found

    def _parts(self, text: str) -> Iterator[tuple[str, int | None]]:
        """Yield stretches of text, each with the whole token after it."""
        start = at = 0
        while at < len(text):
            sizes = self._lengths.get(text[at], ())
            size = next((size for size in sizes if text[at : at + size] in self._whole), 0)
            if size:
                yield text[start:at], self._whole[text[at : at + size]]
                start = at = at + size
            else:
                at += 1
        yield text[start:], None

    def _pieces(self, text: str) -> list[str]:
        """Merge the neighbours that make the token of the highest score, the first of equals, until none do."""
        parts: list[str] = list(text)
        after = [*range(1, len(parts)), -1]
        before = list(range(-1, len(parts) - 1))
        queue: list[tuple[float, int, int, str]] = []

        def offer(left: int) -> None:
            right = after[left] if left >= 0 else -1
            if right < 0:
                return
            joined = parts[left] + parts[right]
            place = self._place(joined)
            if place is not None:
                heapq.heappush(queue, (-self._scores[place], left, right, joined))

        for index in range(len(parts) - 1):
            offer(index)
        while queue:
            _, left, right, joined = heapq.heappop(queue)
            # What a merge took part of is another piece by now.
            if after[left] != right or not parts[right] or parts[left] + parts[right] != joined:
                continue
            parts[left], parts[right] = joined, ""
            after[left] = after[right]
            if after[right] >= 0:
                before[after[right]] = left
            after[right] = -1
            offer(before[left])
            offer(left)
        return [part for part in parts if part]

    def _place(self, piece: str) -> int | None:
        """Return a piece's id; what was looked up once is remembered."""
        if piece not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            place = self._tokens.get(piece)
            self._known[piece] = None if place in self._apart else place
        return self._known[piece]

    def _ids(self, piece: str) -> list[int]:
        place = self._place(piece)
        if place is not None:
            return [place]
        if self._bytes:
            return [self._bytes[byte] for byte in piece.encode("utf-8", "replace")]
        return [self._unknown]
