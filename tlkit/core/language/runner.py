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


class Functions(Protocol):
    """Where a runner's functions come from. ``sizes`` are the numbers of tokens that they take, 1 among them,
    ``precision`` how they are run, ``tells_all`` whether they can return the logits of all tokens."""

    context: int
    sizes: Sequence[int]
    precision: str
    tells_all: bool

    def rows(self, needed: int) -> int:
        """Return how many rows of the cache a function attends to that needs so many."""

    def function(self, size: int, rows: int, logits: Literal["last", "all"]) -> Function:
        """Return the function for ``size`` tokens."""


class BuiltFunctions:
    """Functions that are made of a model's weights when they are needed."""

    def __init__(self, make: Callable[[Form], Function], context: int) -> None:
        self._make, self.context = make, context
        self.sizes: Sequence[int] = CHUNKS
        self.precision, self.tells_all = "f32", True

    def rows(self, needed: int) -> int:
        """Return 256 rows, or as many more as are needed."""
        return rows_for(needed, self.context)

    def function(self, size: int, rows: int, logits: Literal["last", "all"]) -> Function:
        """Return the function for ``size`` tokens."""
        return self._make(Form(size, self.context, rows, logits))


class TorchRunner:
    """Runs on PyTorch; the cache is the states of the functions, which are updated in place."""

    def __init__(self, functions: Functions) -> None:
        self.context, self.position = functions.context, 0
        self._functions = functions
        self._engines: dict[tuple[int, int, str], TorchEngine] = {}
        self._constants: dict[Any, torch.Tensor] = {}
        self._state: State | None = None

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Add tokens; return the logits of what follows."""
        logits: NDArray[np.float32] | None = None
        for chunk, size in chunks(tokens, self.position, self.context, self._functions.sizes):
            logits = self._run(chunk, size, "last")[0]
        if logits is None:
            raise UsageError("a text without tokens has no next one", "give a --prompt")
        return logits

    def scores(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Add tokens; return the logits of what follows each."""
        sizes = self._functions.sizes if self._functions.tells_all else (1,)
        cut = chunks(tokens, self.position, self.context, sizes)
        parts = [self._run(chunk, size, "all") for chunk, size in cut]
        return np.concatenate(parts)

    def rewind(self, position: int) -> None:
        """Forget what was fed after ``position`` tokens."""
        self.position = min(position, self.position)

    def _run(self, chunk: Sequence[int], size: int, logits: Literal["last", "all"]) -> NDArray[np.float32]:
        engine = self._engine(size, self._functions.rows(self.position + size), logits)
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
            function, rounded = self._functions.function(size, rows, logits), self._functions.precision
            self._engines[key] = TorchEngine(function, precision=rounded, constants=self._constants)
        return self._engines[key]


def chunks(
    tokens: Sequence[int], position: int, context: int, sizes: Sequence[int] = CHUNKS
) -> list[tuple[Sequence[int], int]]:
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
        fitting = [size for size in sizes if size <= room]
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
