"""``tlkit run`` on language models: text streamed to stdout, and what it took to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from tlkit.cli.sink import output
from tlkit.errors import UsageError
from tlkit.formats.fetch import came_through_stdin
from tlkit.types import Unit
from tlkit.words import byte_text, number_of

if TYPE_CHECKING:
    from tlkit.core.language.generate import Generated
    from tlkit.core.language.packaging import LanguagePackage

_WHY = {"context": "the context is full: --context makes it larger", "limit": "--max-tokens reached"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of language models, as given; ``sampling`` are those of :class:`Sampling`."""

    prompt: str | None
    prompt_file: str | None
    chat: bool
    system: str | None
    perplexity: str | None
    embed: bool
    context: int | None
    max_tokens: int
    stop: list[str]
    engine: str = "auto"
    cache: bool = True
    unit: str = "cpu"
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @property
    def anything(self) -> bool:
        """Whether the call is about a language model."""
        texts = (self.prompt, self.prompt_file, self.perplexity)
        return self.chat or self.embed or any(text is not None for text in texts)


_COMMON = {
    "model",
    "seed",
    "json",
    "quiet",
    "verbose",
    "cache",
    "offline",
}
_TEXTS = {"prompt", "prompt_file", "chat", "system", "perplexity", "embed"}
_GENERATION = {"max_tokens", "stop", "temperature", "top_k", "top_p", "min_p", "repeat_penalty"}
ENGINES = ("auto", "openvino", "eager", "torch", "llama.cpp")
"""What runs language models; eager and torch are one."""
KNOWN_ENGINES = "openvino, eager (PyTorch), or llama.cpp (GGUF files)"
_FLAGS = {"inputs": "--input", "shapes": "--shape"}


def refuse_others(given: set[str], wanted: Wanted) -> None:
    """UsageError for an option of ``tlkit run`` that would have no effect.

    ``given`` names the parameters that are not at their defaults.
    """
    if not wanted.anything:
        said, hint = "is for language models", "add --prompt TEXT, --chat or --perplexity FILE, or leave it out"
        useless = given & (_TEXTS | _GENERATION | {"context"})
    else:
        said, hint = "does not apply to a language model", "leave it out: it runs as it is stored"
        known = _COMMON | _TEXTS | _GENERATION | {"context", "engine", "units"}
        if wanted.engine not in ENGINES:
            known_here = f"a language model is run by {KNOWN_ENGINES}"
            raise UsageError(f"--engine {wanted.engine}: not for language models", known_here)
        useless = given - known
        if not useless and (wanted.embed or wanted.perplexity is not None):
            said, hint = f"has no effect on {'--embed' if wanted.embed else '--perplexity'}", "leave it out"
            useless = given & (_GENERATION | ({"context", "engine", "units"} if wanted.embed else set()))
    for name in sorted(useless):
        raise UsageError(f"{_FLAGS.get(name, '--' + name.replace('_', '-'))} {said}", hint)


def run_language(sink: output.Sink, model: str, wanted: Wanted) -> None:
    """Do what the options ask for, and print it."""
    _check(model, wanted)
    from tlkit.core.language import answer

    if wanted.perplexity is not None:
        with sink.progress(f"reading {wanted.perplexity}"):
            how: dict[str, Any] = {"context": wanted.context, "engine": wanted.engine, "cache": wanted.cache}
            how["unit"] = Unit.parse(wanted.unit)
            judged = answer.perplexity(model, wanted.perplexity, **how)
        tokens, windows = number_of(judged.tokens, "token"), number_of(judged.windows, "window")
        said = f"perplexity {judged.perplexity:.4f} +/- {judged.error:.4f} over {tokens} in {windows}"
        sink.answer({"model": model, "file": wanted.perplexity, "result": judged}, said)
        return
    text = wanted.prompt
    if wanted.prompt_file is not None:
        text = answer.read_text(wanted.prompt_file).removesuffix("\n")  # an editor's, and seldom a part of the prompt
    if wanted.embed:
        vector = answer.embed(model, text or "")
        values = [float(value) for value in vector]
        sink.answer({"model": model, "vector": values}, " ".join(f"{value:.6f}" for value in values))
    elif text is None:
        _talk(sink, model, wanted)
    else:
        _answer(sink, model, wanted, text)


def _check(model: str, wanted: Wanted) -> None:
    """UsageError where options exclude each other."""
    turns = wanted.chat and wanted.prompt is None and wanted.prompt_file is None
    if came_through_stdin(model) and (turns or "-" in (wanted.prompt_file, wanted.perplexity)):
        raise UsageError("stdin is the model already, and cannot be the text", "give the model or the text as a file")
    if wanted.prompt is not None and wanted.prompt_file is not None:
        raise UsageError("--prompt and --prompt-file are two prompts", "give one of them")
    if wanted.embed and wanted.prompt is None and wanted.prompt_file is None:
        raise UsageError("--embed needs a text", "give it with --prompt")
    if wanted.embed and (wanted.chat or wanted.perplexity is not None):
        raise UsageError("--embed excludes --chat and --perplexity", "leave one of them out")
    if wanted.perplexity is not None and (wanted.prompt is not None or wanted.prompt_file is not None or wanted.chat):
        raise UsageError("--perplexity judges a file's text and answers no prompt", "leave --prompt and --chat out")
    if wanted.system is not None and not wanted.chat:
        raise UsageError("--system is a part of a conversation", "add --chat")
    if wanted.max_tokens < 1:
        raise UsageError(f"--max-tokens {wanted.max_tokens}: at least 1 is generated", "give a count from 1 on")


def _answer(sink: output.Sink, model: str, wanted: Wanted, text: str) -> None:
    from tlkit.core.language import answer
    from tlkit.core.language.sampling import Sampling

    found = answer.answer(
        model,
        text,
        chat=wanted.chat,
        system=wanted.system,
        context=wanted.context,
        most=wanted.max_tokens,
        sampling=Sampling(**wanted.sampling),
        stop=wanted.stop,
        engine=wanted.engine,
        cache=wanted.cache,
        unit=Unit.parse(wanted.unit),
        told=_teller(sink),
    )
    if sink.json:
        sink.answer(document(model, text, found), "")
    else:
        sink.piece("\n")
    _rates(sink, found)


def _teller(sink: output.Sink) -> Callable[[str], None]:
    """Return what passes text on, and ends the command when nobody reads it any more."""

    def tell(part: str) -> None:
        sink.piece(part)
        if sink.unheard:
            raise typer.Exit

    return tell


def _talk(sink: output.Sink, model: str, wanted: Wanted) -> None:
    """Answer each line of stdin, in one conversation."""
    from tlkit.core.language.answer import Conversation, decoder_of
    from tlkit.core.language.sampling import Sampling

    talk = Conversation(
        decoder_of(model),
        wanted.context,
        wanted.system,
        wanted.engine,
        cache=wanted.cache,
        unit=Unit.parse(wanted.unit),
    )
    by_hand = sys.stdin.isatty() and sys.stdout.isatty()
    if by_hand:
        sink.note("a line is a turn; Ctrl-C ends an answer, Ctrl-D the conversation")
    for said in filter(str.strip, _typed(sink) if by_hand else (line.rstrip("\n") for line in sys.stdin)):
        try:
            found = talk.ask(said, Sampling(**wanted.sampling), wanted.max_tokens, wanted.stop, _teller(sink))
        except KeyboardInterrupt:
            if not by_hand:
                raise
            sink.piece("\n")
            continue
        if sink.json:
            sink.row(document(model, said, found), "")
        else:
            sink.piece("\n")
        _rates(sink, found)
        if sink.unheard:
            return


def _typed(sink: output.Sink) -> Iterator[str]:
    """Yield the lines that somebody types at a terminal, who can edit them and go back to those before."""
    with suppress(ImportError):
        import readline  # noqa: F401  # not on Windows; input() uses it once it is there
    with suppress(EOFError):
        while True:
            yield input("> ")
    sink.piece("\n")


def document(model: str, prompt: str, found: Generated) -> dict[str, Any]:
    """Return one answer for ``--json``."""
    return {
        "model": model,
        "prompt": prompt,
        "text": found.text,
        "stopped": found.stopped,
        "prompt_tokens": found.prompt_tokens,
        "tokens": found.tokens,
        "prompt_seconds": found.prompt_seconds,
        "seconds": found.seconds,
        "prompt_tokens_per_second": found.prompt_rate,
        "tokens_per_second": found.rate,
        "engine": found.engine,
        "near_ties": found.near_ties,
    }


def _rates(sink: output.Sink, found: Generated) -> None:
    prompt = f"prompt: {number_of(len(found.prompt_tokens), 'token')}, {found.prompt_rate:.1f} a second"
    rate = f", {found.rate:.1f} a second" if found.rate else ""
    sink.note(f"{prompt}; generated: {number_of(len(found.tokens), 'token')}{rate} ({found.engine})")
    if found.near_ties:
        said = f"{found.near_ties} of {len(found.tokens)} choices had a lead under 0.5 logits: exact activations may"
        sink.note(f"{said} choose otherwise (leave --engine out)")
    if found.stopped in _WHY:
        sink.note(_WHY[found.stopped])


def answer(sink: output.Sink, result: LanguagePackage) -> None:
    """Print what was made; exit 1 where the package says something else than its source."""
    from tlkit.core.inspect.risks import grave
    from tlkit.mil.risks.kit import risk_text

    counts, chunks = result.tensors, [size for size in result.chunks if size > 1]
    lines = [f"{result.path}: {byte_text(result.size)}, a context of {result.context} tokens, {result.precision}"]
    prompts = f", prefill ({', '.join(map(str, chunks))})" if chunks else ""
    if result.encodes:
        lines.append(
            f"functions: main (texts of 1 to {result.context} tokens); it returns each token's vector and the text's"
        )
    else:
        lines.append(f"functions: main (1 token){prompts}; each returns {_RETURNED[result.returns]}")
    kinds = [f"{counts['blocks']} in the file's blocks", f"{counts['nested']} in nested blocks"]
    kinds += [f"{counts['channels']} with a scale per channel"] if counts["channels"] else []
    kinds += [f"{counts['half']} as f16"] if counts["half"] else []
    lines.append(f"weights: {', '.join(kinds)}, {counts['dense']} dense")
    lines += [
        f"  {error.tensor}: {error.stored} to {error.kind}, relative error {error.relative:.2e}, "
        f"at most {error.largest:.2e}"
        for error in result.errors
    ]
    if result.compared and result.encodes:
        lines.append(
            f"vectors of {result.compared} texts: at most {result.gap or 0:.1e} from the source's (of length 1)"
        )
    elif result.compared:
        said = f"greedy tokens: {result.same} of {result.compared} as the source says"
        lines.append(said + ("" if result.gap is None else f"; where not, its lead is at most {result.gap:.3f} logits"))
    if result.judged != result.gap:
        unit = "" if result.encodes else " logits"
        same = "the same" if result.judged is None else f"the same up to {result.judged:.2g}{unit}"
        lines.append(f"the rounded weights, run from memory, say {same}")
    lines += [f"note: {note}" for note in result.notes]
    lines += [f"risk: {risk_text(risk)}" for risk in grave(result.risks)]
    lines += [f"ways out: tlkit inspect {result.path} --risks"] if grave(result.risks) else []
    sink.answer({"package": result, "ok": result.ok}, "\n".join(lines))
    if not result.ok:
        raise typer.Exit(1)


_RETURNED = {"logits": "logits", "argmax": "the likeliest token"}
