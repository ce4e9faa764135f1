"""What runs a decoder token by token, whichever engine does: where the cache stands, and how texts are cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tlkit.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNKS = (1, 8, 32, 128, 512)
"""Tokens of one call."""
_ROWS = 256
"""Rows of the cache that the first functions attend to; more are twice as many each time."""


class FullError(UsageError):
    """The text has as many tokens as the context."""


class Runner(Protocol):
    """A decoder with a cache. ``context`` is how many tokens it holds, ``position`` how many are there, ``name`` what
    runs it, ``exact`` whether it multiplies with activations as they are (else they are rounded, for speed)."""

    name: str
    exact: bool
    context: int
    position: int

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Add tokens; return the logits [vocabulary] of what follows the last one. FullError where there is no room."""

    def scores(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Add tokens; return the logits [tokens, vocabulary] of what follows each."""

    def rewind(self, position: int) -> None:
        """Forget what was fed after ``position`` tokens."""


def chunks(
    tokens: Sequence[int], position: int, context: int, sizes: Sequence[int] = CHUNKS
) -> list[tuple[Sequence[int], int]]:
    """Cut tokens into calls: pairs of some tokens and the size of the function that takes them.

    FullError where the context has no room for them.
    """
    check_room(tokens, position, context)
    found: list[tuple[Sequence[int], int]] = []
    start = 0
    while start < len(tokens):
        left, room = len(tokens) - start, context - position - start
        # The smallest that takes all, or the largest; padding must fit into the context, too.
        fitting = [size for size in sizes if size <= room]
        size = next((size for size in fitting if size >= left), fitting[-1])
        found.append((tokens[start : start + size], size))
        start += size
    return found


def check_room(tokens: Sequence[int], position: int, context: int) -> None:
    """FullError where the context has no room for tokens."""
    if position + len(tokens) > context:
        said = f"the context is full: {context} tokens, and {position + len(tokens)} are needed"
        raise FullError(said, "choose a larger --context, or a shorter prompt")


def check_next(tokens: Sequence[int], position: int, context: int) -> None:
    """UsageError where there are no tokens to go on from, FullError where the context has no room for them."""
    if not tokens:
        raise UsageError("a text without tokens has no next one", "give a --prompt")
    check_room(tokens, position, context)


def parts(tokens: Sequence[int], position: int, context: int) -> list[Sequence[int]]:
    """Return tokens in parts of at most the largest of :data:`CHUNKS`; UsageError for none, FullError without room."""
    check_next(tokens, position, context)
    return [tokens[start : start + CHUNKS[-1]] for start in range(0, len(tokens), CHUNKS[-1])]


def rows_for(needed: int, context: int) -> int:
    """Return how many rows of the cache a function attends to that needs so many."""
    rows = _ROWS
    while rows < needed:
        rows *= 2
    return min(rows, context)
