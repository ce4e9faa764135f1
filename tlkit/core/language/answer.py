"""What ``tlkit run`` does with a language model: answer a prompt, hold a conversation, judge a text, make a vector."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlkit.core.language.generate import Generated, generate
from tlkit.core.language.model import LanguageModel, open_language
from tlkit.core.language.package import PackagedModel, open_language_package
from tlkit.core.language.runner import Runner
from tlkit.core.language.sampling import GREEDY, Sampling, overflowed
from tlkit.core.language.text.chat import Message, conversation, template_of
from tlkit.errors import LoadError, UsageError, reason
from tlkit.formats.base.sniff import COREML
from tlkit.formats.describe import find_format
from tlkit.types import Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TEXT = 1 << 28  # bytes of a file that is read as a prompt
_STRIDE = 512
_SMALLEST = 5
_HOPELESS = 700.0
"""The mean of log likelihoods (below 0) whose exp is no number any more."""
_LOGITS = "convert its source with --returns logits"


@dataclass(frozen=True, slots=True)
class Perplexity:
    """How well a model predicts a text: exp of the mean negative log likelihood of ``tokens`` tokens, in natural
    logarithms; ``error`` is its standard error, as if tokens were independent."""

    perplexity: float
    error: float
    log_likelihood: float
    tokens: int
    windows: int


def read_text(file: str | os.PathLike[str]) -> str:
    """Return the content of a text file, or of stdin (``-``); UsageError where it is not there or not UTF-8."""
    try:
        with nullcontext(sys.stdin.buffer) if os.fspath(file) == "-" else open(file, "rb") as opened:
            data = opened.read(_TEXT + 1)
    except OSError as error:
        raise UsageError(f"{file}: {reason(error)}", "name a text file") from None
    if len(data) > _TEXT:
        raise UsageError(f"{file}: more than {_TEXT >> 20} MiB", "give it a part of the text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not UTF-8 (byte {error.start})", "save it as UTF-8") from None


def answer(
    model: str | os.PathLike[str],
    prompt: str,
    *,
    chat: bool = False,
    system: str | None = None,
    context: int | None = None,
    most: int = 256,
    sampling: Sampling = GREEDY,
    stop: Sequence[str] = (),
    engine: str = "auto",
    cache: bool = True,
    unit: Unit = Unit.CPU,
    told: Callable[[str], None] = lambda _: None,
) -> Generated:
    """Return what the language model at ``model`` generates after ``prompt``; ``told`` hears the text as it grows.

    ``chat`` makes a conversation of the prompt by the model's chat template, after ``system`` where that is given.
    ``cache`` keeps what an engine compiles; ``unit`` is the CPU or a GPU.
    """
    talk = Conversation(decoder_of(model), context, system if chat else None, engine, cache=cache, unit=unit)
    if not chat:
        return talk.follow(prompt, sampling, most, stop, told)
    return talk.ask(prompt, sampling, most, stop, told)


def _opened(model: str | os.PathLike[str]) -> LanguageModel | PackagedModel:
    return open_language_package(model) if find_format(Path(model)) in COREML else open_language(model)


def decoder_of(model: str | os.PathLike[str]) -> LanguageModel | PackagedModel:
    """Open a model that generates, of any format; UsageError for an encoder."""
    opened = _opened(model)
    if opened.encodes:
        said = f"{opened.path} is an encoder: it makes vectors of texts and generates nothing"
        raise UsageError(said, "tlkit run makes them with --embed; tlkit bench measures its package (tlkit convert)")
    return opened


class Conversation:
    """Turns of one conversation, on one cache: what was said before is not computed again."""

    def __init__(
        self,
        model: LanguageModel | PackagedModel,
        context: int | None = None,
        system: str | None = None,
        engine: str = "auto",
        *,
        cache: bool = True,
        unit: Unit = Unit.CPU,
    ) -> None:
        self.model = model
        self.runner: Runner = model.runner(context, engine, cache=cache, unit=unit)
        self._messages: list[Message] = [{"role": "system", "content": system}] if system else []
        self._fed: list[int] = []

    def ask(
        self,
        text: str,
        sampling: Sampling,
        most: int,
        stop: Sequence[str] = (),
        told: Callable[[str], None] = lambda _: None,
    ) -> Generated:
        """Return the model's answer to the next turn."""
        where, tokenizer = str(self.model.path), self.model.tokenizer
        template = template_of(self.model.metadata, where)
        asked: list[Message] = [*self._messages, {"role": "user", "content": text}]
        whole = conversation(template, asked, self._specials(), where)
        heard: list[str] = []

        def tell(part: str) -> None:
            heard.append(part)
            told(part)

        try:
            found = self._after(tokenizer.encode(whole), sampling, most, stop, tell)
        except KeyboardInterrupt:  # who goes on has heard as much
            self._messages = [*asked, {"role": "assistant", "content": "".join(heard)}]
            raise
        self._messages = [*asked, {"role": "assistant", "content": found.text}]
        return found

    def follow(
        self,
        text: str,
        sampling: Sampling,
        most: int,
        stop: Sequence[str] = (),
        told: Callable[[str], None] = lambda _: None,
    ) -> Generated:
        """Return what follows a text."""
        ids = self.model.tokenizer.encode(text)
        # What ends a text, such as T5's EOS, would end this one before it goes on.
        ids = ids[: len(ids) - len(self.model.tokenizer.after)] if self.model.tokenizer.after else ids
        if not ids:
            said = (
                "the model's vocabulary has none of it" if text else "it is empty, and this model begins with no token"
            )
            raise UsageError(f"the prompt has no token: {said}", "give another --prompt")
        return self._after(ids, sampling, most, stop, told)

    def _after(
        self, ids: list[int], sampling: Sampling, most: int, stop: Sequence[str], told: Callable[[str], None]
    ) -> Generated:
        if self.model.only_best and (sampling.temperature or sampling.repeat_penalty != 1):
            raise UsageError(f"{self.model.path}: it returns the likeliest token, and no logits to draw from", _LOGITS)
        limit = self.runner.context
        if len(ids) > limit:
            said = f"the prompt has {len(ids)} tokens, and the context {limit}"
            hint = "choose a larger --context, or a shorter prompt"
            raise UsageError(said, hint)
        same = next((i for i, (a, b) in enumerate(zip(ids, self._fed, strict=False)) if a != b), None)
        kept = min(len(ids) - 1, len(self._fed)) if same is None else same
        self.runner.rewind(kept)
        self._fed = ids[:kept]  # so far: what is fed next may be interrupted
        found = generate(
            self.runner, self.model.tokenizer, ids[kept:], sampling=sampling, most=most, stop=stop, told=told
        )
        self._fed = [*ids, *found.tokens][: self.runner.position]
        return found

    def _specials(self) -> Mapping[str, str]:
        metadata, found = self.model.metadata, {}
        for role in ("bos", "eos", "unknown", "padding"):
            index, tokens = metadata.get(f"tokenizer.ggml.{role}_token_id"), metadata.get("tokenizer.ggml.tokens")
            name = {"unknown": "unk", "padding": "pad"}.get(role, role)
            there = type(index) is int and tokens is not None and 0 <= index < len(tokens)
            found[f"{name}_token"] = str(tokens[index]) if there and tokens is not None else ""
        return found


def perplexity(
    model: str | os.PathLike[str],
    file: str | os.PathLike[str],
    *,
    context: int | None = None,
    engine: str = "auto",
    cache: bool = True,
    unit: Unit = Unit.CPU,
) -> Perplexity:
    """Return how well a model predicts a file's text, in windows of ``context`` tokens (by default 512).

    As llama-perplexity does it: the text, after BOS where texts begin with it, is cut into windows; BOS replaces the
    first token of each; and of each the second half is judged, so that every judged token has half a window before it.
    """
    opened = decoder_of(model)
    if opened.only_best:
        raise UsageError(f"{opened.path}: it returns the likeliest token, and no logits to judge by", _LOGITS)
    size = min(context or _STRIDE, opened.context_length)
    runner = opened.runner(size, engine, cache=cache, unit=unit)
    first = list(opened.tokenizer.before)
    ids = [*first, *opened.tokenizer.encode(read_text(file), whole=False)]
    if size < _SMALLEST:
        raise UsageError(f"--context {size}: a window of --perplexity is too small", f"give {_SMALLEST} tokens or more")
    if len(ids) < size:
        said = f"{file}: its text has {len(ids)} tokens, and one window {size}"
        raise UsageError(said, "give a longer text, or a smaller --context")
    shares: list[float] = []
    for start in range(0, len(ids) - size + 1, size):
        window = [*first, *ids[start + len(first) : start + size]]
        runner.rewind(0)
        scores = runner.scores(window)
        shares += [_log_share(scores[place], window[place + 1]) for place in range(size // 2, size - 1)]
    if not -_HOPELESS < np.mean(shares) <= 0:  # NaN among them
        raise overflowed(f"{opened.path}: it gives the text no likelihood")
    found = math.exp(-float(np.mean(shares)))
    error = found * float(np.std(shares)) / math.sqrt(len(shares) - 1)
    return Perplexity(found, error, math.fsum(shares), len(shares), len(ids) // size)


def _log_share(logits: NDArray[np.float32], token: int) -> float:
    values = logits.astype(np.float64)
    top = values.max()
    return float(values[token] - top - np.log(np.exp(values - top).sum()))


def embed(model: str | os.PathLike[str], text: str) -> NDArray[np.float32]:
    """Return an encoder's vector of a text, of length 1: the mean of its tokens' vectors, the first or the last, as the
    model says (``pooling_type``)."""
    opened = _opened(model)
    if not opened.encodes:
        said = f"{opened.path} is a decoder: it generates text"
        raise UsageError(said, "use --prompt without --embed")
    ids = opened.tokenizer.encode(text)
    if not 0 < len(ids) <= opened.context_length:
        said = f"the text has {len(ids)} tokens, and the model takes 1 to {opened.context_length}"
        raise UsageError(said, "give it a shorter text")
    vectors = opened.encode(ids)
    made = {2: vectors[0], 3: vectors[-1]}.get(opened.pooling, vectors.mean(axis=0))
    length = float(np.linalg.norm(made))
    if not math.isfinite(length) or length == 0:
        raise LoadError(f"{Path(model)}: its vector is not finite", "the weights are damaged")
    found: NDArray[np.float32] = np.asarray(made / length, np.float32)
    return found
