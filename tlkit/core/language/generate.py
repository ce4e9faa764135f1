"""Generation: tokens one after another until an end, a stop text, a limit or the end of the context."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from tlkit.core.language.runner import Runner
from tlkit.core.language.sampling import GREEDY, Sampler, Sampling
from tlkit.core.language.text.tokenizer import GrowingText, TextTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEAR = 0.5
"""Logits: what is nearer is a near tie."""
Reason = Literal["end", "stop", "limit", "context"]


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer. ``stopped`` says why it ended; times are in seconds, the prompt's until the first token is known;
    ``engine`` says what ran. ``near_ties`` counts the choices that rounded activations may have changed: the likeliest
    token's lead was under 0.5 logits (None where activations were not rounded)."""

    text: str
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    stopped: Reason
    prompt_seconds: float
    seconds: float
    engine: str = ""
    near_ties: int | None = None

    @property
    def prompt_rate(self) -> float:
        """Tokens of the prompt per second."""
        return len(self.prompt_tokens) / self.prompt_seconds if self.prompt_seconds else 0.0

    @property
    def rate(self) -> float:
        """Generated tokens per second, from the second one on."""
        return (len(self.tokens) - 1) / self.seconds if len(self.tokens) > 1 and self.seconds else 0.0


def generate(
    runner: Runner,
    tokenizer: TextTokenizer,
    prompt: Sequence[int],
    *,
    sampling: Sampling = GREEDY,
    most: int = 256,
    stop: Sequence[str] = (),
    told: Callable[[str], None] = lambda _: None,
) -> Generated:
    """Return what follows ``prompt`` (token ids, fed after what the runner has), at most ``most`` tokens.

    ``told`` hears the text as it grows. A text in ``stop`` ends it, and is not part of it.
    """
    sampler = Sampler(sampling)
    start = time.perf_counter()
    logits = runner.feed(prompt)
    first = time.perf_counter()
    growing, held = GrowingText(tokenizer, prompt), _Held(stop, told)
    tokens: list[int] = []
    near = 0
    reason: Reason = "limit"
    while len(tokens) < most:
        token = sampler.choose(logits, [*prompt, *tokens])
        near += not runner.exact and _lead(logits) < NEAR
        if token in tokenizer.ends:
            reason = "end"
            break
        tokens.append(token)
        if held.add(growing.add(token)):
            reason = "stop"
            break
        if len(tokens) == most:
            break
        if runner.position >= runner.context:
            reason = "context"
            break
        logits = runner.feed([token])
    done = time.perf_counter()
    if reason != "stop":
        held.add(growing.rest())
        held.flush()
    times = (first - start, done - first)
    ties = None if runner.exact else near
    return Generated(held.text, tuple(prompt), tuple(tokens), reason, *times, runner.name, ties)


def _lead(logits: NDArray[np.float32]) -> float:
    """Return by how much the likeliest token leads."""
    second, first = np.partition(logits, -2)[-2:]
    return float(first - second)


class _Held:
    """Passes text on, except what may be the beginning of a stop text."""

    def __init__(self, stop: Sequence[str], told: Callable[[str], None]) -> None:
        self._stop, self._told = [text for text in stop if text], told
        self._waiting = ""
        self.text = ""

    def add(self, part: str) -> bool:
        """Take more text; return whether a stop text was found, before which everything has been passed on."""
        self._waiting += part
        places = [place for text in self._stop if (place := self._waiting.find(text)) >= 0]
        if places:
            self._pass(min(places))
            return True
        longest = max((self._overlap(text) for text in self._stop), default=0)
        self._pass(len(self._waiting) - longest)
        return False

    def flush(self) -> None:
        """Pass on all that waits."""
        self._pass(len(self._waiting))

    def _overlap(self, text: str) -> int:
        """Return how many characters at the end begin ``text``."""
        most = min(len(text) - 1, len(self._waiting))
        return next((size for size in range(most, 0, -1) if text.startswith(self._waiting[-size:])), 0)

    def _pass(self, count: int) -> None:
        part, self._waiting = self._waiting[:count], self._waiting[count:]
        if part:
            self.text += part
            self._told(part)
