"""Runs a decoder on PyTorch: which functions are made, and what they are given.

Functions have fixed numbers of tokens and of cached rows. A prompt is cut into chunks of a few sizes, the last one
padded; as the text grows, functions that attend to more rows take over, on the same cache and weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch

from tlkit.core.language.runner import CHUNKS, chunks, rows_for
from tlkit.engines.torch.device import device_for
from tlkit.engines.torch.engine import TorchEngine
from tlkit.engines.torch.state import State
from tlkit.errors import UsageError
from tlkit.frontends.gguf.decoder import Form
from tlkit.mil.program import Function
from tlkit.types import Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
    """Runs on PyTorch; the cache is the states of the functions, which are updated in place.

    On a CUDA GPU a step is one graph."""

    exact = True

    def __init__(self, functions: Functions, unit: Unit = Unit.CPU) -> None:
        device = device_for(unit)
        where = f" on {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
        self.name = f"PyTorch {torch.__version__}{where}"
        self._unit = unit
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
        outputs = engine.run(given, self._state)
        found: NDArray[np.float32] = outputs["logits"] if "logits" in outputs else _certain(outputs["token"])
        self.position += len(chunk)
        return found[: len(chunk)] if logits == "all" else found

    def _engine(self, size: int, rows: int, logits: Literal["last", "all"]) -> TorchEngine:
        key = (size, rows, "all" if size == 1 else logits)
        if key not in self._engines:
            self._engines[key] = TorchEngine(
                self._functions.function(size, rows, logits),
                precision=self._functions.precision,
                unit=self._unit,
                constants=self._constants,
                decoding=True,
            )
        return self._engines[key]


def _certain(tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return logits that say no more than a function that returns the likeliest token: 0 for it, and none for others
    (up to the token itself)."""
    found = np.full((len(tokens), int(tokens.max()) + 2), -np.inf, np.float32)
    found[np.arange(len(tokens)), tokens] = 0
    return found
