"""Choosing the next token: greedily, or drawn from the likeliest, in llama.cpp's order of filters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.errors import ExecutionError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_REMEMBERED = 64
"""Tokens back to which a repetition costs, as in llama.cpp."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """``temperature`` 0 is greedy; ``top_k`` 0, ``top_p`` 1, ``min_p`` 0 and ``repeat_penalty`` 1 leave out nothing."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    seed: int = 0

    def check(self) -> None:
        """UsageError where a setting makes no sense."""
        rules = [
            ("--temperature", self.temperature, 0 <= self.temperature <= 100, "from 0 (the likeliest token) to 100"),
            ("--top-k", self.top_k, self.top_k >= 0, "from 0 (all tokens) on"),
            ("--top-p", self.top_p, 0 < self.top_p <= 1, "above 0 and up to 1 (all tokens)"),
            ("--min-p", self.min_p, 0 <= self.min_p <= 1, "from 0 (all tokens) to 1"),
            ("--repeat-penalty", self.repeat_penalty, 0 < self.repeat_penalty <= 100, "above 0, where 1 costs nothing"),
            ("--seed", self.seed, self.seed >= 0, "from 0 on"),
        ]
        for name, value, fits, there in rules:
            if not fits:
                raise UsageError(f"{name} {value}: out of its range", f"give a number {there}")


GREEDY = Sampling()
"""The likeliest token, always."""


def overflowed(said: str) -> ExecutionError:
    """Return the error for a model whose values are not finite."""
    hint = "the weights are damaged, or made for wider numbers: try the model's f32 file (a guess)"
    return ExecutionError(f"{said}: the model's values overflow", hint)


class Sampler:
    """Chooses tokens one after another; draws are those of the seed."""

    def __init__(self, settings: Sampling) -> None:
        settings.check()
        self._settings = settings
        self._random = np.random.default_rng(settings.seed)

    def choose(self, logits: NDArray[Any], before: Iterable[int]) -> int:
        """Return the token that follows ``before``."""
        settings = self._settings
        if not np.isfinite(logits).any():
            raise overflowed("no logit is finite")
        if settings.repeat_penalty != 1:
            logits = _penalized(logits, list(before)[-_REMEMBERED:], settings.repeat_penalty)
        if settings.temperature == 0:
            return int(np.argmax(logits))
        return self._drawn(np.asarray(logits, np.float64))

    def _drawn(self, logits: NDArray[np.float64]) -> int:
        """Draw from the tokens that top-k, top-p and min-p leave, at the temperature."""
        settings = self._settings
        count = min(settings.top_k or len(logits), len(logits))
        order = np.argsort(-logits, kind="stable")[:count]
        likely = _softmax(logits[order])
        kept = np.ones(len(order), bool)
        if settings.top_p < 1:
            # The token that reaches the sum still belongs to it.
            kept &= np.cumsum(likely) - likely < settings.top_p
        if settings.min_p:
            kept &= likely >= settings.min_p * likely[0]
        kept[0] = True
        order = order[kept]
        shares = _softmax(logits[order] / settings.temperature)
        return int(order[np.searchsorted(np.cumsum(shares), self._random.random() * shares.sum(), side="right")])


def _penalized(logits: NDArray[Any], recent: list[int], penalty: float) -> NDArray[Any]:
    found = np.array(logits)
    places = np.array(sorted(set(recent)), np.int64)
    if len(places):
        values = found[places]
        found[places] = np.where(values > 0, values / penalty, values * penalty)
    return found


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shares = np.exp(logits - logits.max())
    found: NDArray[np.float64] = shares / shares.sum()
    return found
