"""Generation: how it ends, what is held back, and how tokens are drawn.

Covers tlkit/core/language/sampling.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tlkit.core.language.generate import generate
from tlkit.core.language.sampling import Sampler, Sampling
from tlkit.core.language.text.tokenizer import TextTokenizer
from tlkit.errors import UsageError


class Letters:
    """Each byte is a token."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")

    def json(self) -> str:
        return ""


class Reciting:
    """A model that says ``text`` whatever it is given."""

    name = "reciting"
    exact = True

    def __init__(self, text: bytes, context: int = 100) -> None:
        self.text, self.context, self.position, self._said = text, context, 0, -1

    def feed(self, tokens: Sequence[int]) -> np.ndarray[Any, Any]:
        self.position, self._said = self.position + len(tokens), self._said + 1
        logits = np.zeros(256, np.float32)
        logits[self.text[self._said % len(self.text)]] = 9
        return logits

    def scores(self, tokens: Sequence[int]) -> np.ndarray[Any, Any]:
        raise NotImplementedError

    def rewind(self, position: int) -> None:
        self.position = position


TOKENIZER = TextTokenizer(Letters(), [], [], [0])


@pytest.mark.parametrize(
    ("text", "given", "said", "reason"),
    [
        (b"hello\0more", {}, "hello", "end"),
        (b"hello", {"most": 3}, "hel", "limit"),
        (b"hello. Goodbye", {"stop": [". Go", "zzz"]}, "hello", "stop"),
        (b"hello. Guten", {"stop": [". Go"], "most": 12}, "hello. Guten", "limit"),
        ("größer\0".encode(), {}, "größer", "end"),
        (b"hello", {"context": 6}, "hell", "context"),
    ],
)
def test_how_an_answer_ends(text: bytes, given: dict[str, Any], said: str, reason: str) -> None:
    runner = Reciting(text, given.pop("context", 100))
    heard: list[str] = []
    found = generate(runner, TOKENIZER, [1, 2, 3], told=heard.append, **given)
    assert (found.text, found.stopped) == (said, reason)
    assert "".join(heard) == said


def test_near_ties_are_counted_where_activations_are_rounded() -> None:
    class Rounded(Reciting):
        exact = False

        def feed(self, tokens: Sequence[int]) -> np.ndarray[Any, Any]:
            logits = super().feed(tokens)
            logits[7] = 8.7 if self.position % 2 else 8.4  # the lead is 0.3, then 0.6
            return logits

    found = generate(Rounded(b"hello"), TOKENIZER, [1, 2, 3], most=5)
    assert (found.text, found.near_ties) == ("hello", 3)
    assert generate(Reciting(b"hello"), TOKENIZER, [1, 2, 3], most=5).near_ties is None


def drawn(logits: list[float], settings: Sampling, count: int = 4000, before: Sequence[int] = ()) -> Counter[int]:
    sampler = Sampler(settings)
    return Counter(sampler.choose(np.array(logits, np.float32), before) for _ in range(count))


def test_draws_follow_the_softmax_at_the_temperature() -> None:
    logits = [1.0, 2.0, 3.0]
    for temperature in (0.5, 1.0, 2.0):
        shares = np.exp(np.array(logits) / temperature)
        shares /= shares.sum()
        found = drawn(logits, Sampling(temperature=temperature))
        assert [found[i] / 4000 for i in range(3)] == pytest.approx(shares, abs=0.03)


def test_filters_leave_the_likeliest() -> None:
    logits = list(np.log([0.5, 0.3, 0.15, 0.05]))
    assert set(drawn(logits, Sampling(temperature=1, top_k=2))) == {0, 1}
    assert set(drawn(logits, Sampling(temperature=1, top_p=0.6))) == {0, 1}
    assert set(drawn(logits, Sampling(temperature=1, min_p=0.25))) == {0, 1, 2}
    assert set(drawn(logits, Sampling(temperature=1))) == {0, 1, 2, 3}
    assert set(drawn(logits, Sampling(), 3)) == {0}


def test_a_repetition_costs() -> None:
    assert set(drawn([2.0, 1.9], Sampling(repeat_penalty=1.1), 2, [0])) == {1}
    assert set(drawn([-1.0, -1.05], Sampling(repeat_penalty=1.1), 2, [0])) == {1}


def test_a_seed_draws_the_same_again() -> None:
    logits = np.zeros(50, np.float32)
    first, second = (Sampler(Sampling(temperature=1, seed=4)) for _ in range(2))
    assert [first.choose(logits, []) for _ in range(9)] == [second.choose(logits, []) for _ in range(9)]


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"repeat_penalty": 0.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="out of its range"):
        Sampler(Sampling(**wrong))
