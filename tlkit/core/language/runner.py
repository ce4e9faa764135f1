"""Runs a decoder token by token: which functions are made, what they are given, and where the cache stands.

Functions have fixed numbers of tokens and of cached rows. A prompt is cut into chunks of a few sizes, the last one
padded; as the text grows, functions that attend to more rows take over, on the same cache and weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from tlkit.engines.torch.engine import State, TorchEngine
from tlkit.errors import UsageError
from tlkit.frontends.gguf.decoder import Form
from tlkit.mil.program import Function

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

CHUNKS = (1, 8, 32, 128, 512)
"""Tokens of one call."""
_ROWS = 256
"""Rows of the cache that the first functions attend to; more are twice as many each time."""


class FullError(UsageError):
    """The text has as many tokens as the context."""


class Runner(Protocol):
    """A decoder with a cache. ``context`` is how many tokens it holds, ``position`` how many are there."""

    context: int
    position: int

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Add tokens; return the logits [vocabulary] of what follows the last one. FullError where there is no room."""

    def scores(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Add tokens; return the logits [tokens, vocabulary] of what follows each."""

    def rewind(self, position: int) -> None:
        """Forget what was fed after ``position`` tokens."""


class TorchRunner:
    """Runs on PyTorch; the cache is the states of the functions, which are updated in place."""

    def __init__(self, make: Callable[[Form], Function], context: int, *, unit: Any = None) -> None:
        self.context, self.position = context, 0
        self._make = make
        self._engines: dict[tuple[int, int, str], TorchEngine] = {}
        self._constants: dict[Any, torch.Tensor] = {}
        self._state: State | None = None

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Add tokens; return the logits of what follows."""
        logits: NDArray[np.float32] | None = None
        for chunk, size in chunks(tokens, self.position, self.context):
            logits = self._run(chunk, size, "last")[0]
        if logits is None:
            raise UsageError("a text without tokens has no next one", "give a --prompt")
        return logits

    def scores(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Add tokens; return the logits of what follows each."""
        parts = [self._run(chunk, size, "all") for chunk, size in chunks(tokens, self.position, self.context)]
        return np.concatenate(parts)

    def rewind(self, position: int) -> None:
        """Forget what was fed after ``position`` tokens."""
        self.position = min(position, self.position)

    def _run(self, chunk: Sequence[int], size: int, logits: Literal["last", "all"]) -> NDArray[np.float32]:
        engine = self._engine(size, rows_for(self.position + size, self.context), logits)
        if self._state is None:
            self._state = engine.make_state()
        padded = [*chunk, *[0] * (size - len(chunk))]
        given = {"tokens": np.array([padded], np.int32), "position": np.array([self.position], np.int32)}
        if logits == "last" and size > 1:
            given["last"] = np.array([len(chunk) - 1], np.int32)
        found: NDArray[np.float32] = engine.run(given, self._state)["logits"]
        self.position += len(chunk)
        return found[: len(chunk)] if logits == "all" else found

    def _engine(self, size: int, rows: int, logits: Literal["last", "all"]) -> TorchEngine:
        key = (size, rows, "all" if size == 1 else logits)
        if key not in self._engines:
            function = self._make(Form(size, self.context, rows, logits))
            self._engines[key] = TorchEngine(function, precision="f32", constants=self._constants)
        return self._engines[key]


def chunks(tokens: Sequence[int], position: int, context: int) -> list[tuple[Sequence[int], int]]:
    """Cut tokens into calls: pairs of some tokens and the size of the function that takes them.

    FullError where the context has no room for them.
    """
    if position + len(tokens) > context:
        said = f"the context is full: {context} tokens, and {position + len(tokens)} are needed"
        raise FullError(said, "choose a larger --context, or a shorter prompt")
    found: list[tuple[Sequence[int], int]] = []
    start = 0
    while start < len(tokens):
        left, room = len(tokens) - start, context - position - start
        # The smallest that takes all, or the largest; padding must fit into the context, too.
        fitting = [size for size in CHUNKS if size <= room]
        size = next((size for size in fitting if size >= left), fitting[-1])
        found.append((tokens[start : start + size], size))
        start += size
    return found


def rows_for(needed: int, context: int) -> int:
    """Return how many rows of the cache a function attends to that needs so many."""
    rows = _ROWS
    while rows < needed:
        rows *= 2
    return min(rows, context)
