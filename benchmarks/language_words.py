"""The same words: greedy tokens of a GGUF file beside transformers with the file's weights in f32, step by step.

    python benchmarks/language_words.py model.gguf [--package model.mlpackage] [--tokens 200] [--only openvino,torch]

For each prompt and way to run: how many tokens are transformers', the largest distance of a logit at any step, and at
how many steps the likeliest token led by less than 0.5 logits (near ties, where rounded activations could choose
otherwise). Each way is given its own tokens as long as they are transformers', and transformers' from there on.
A package's keys and values are f16: it is held to the file's tokens, and to transformers with such keys and values.
transformers reads GGUF with the packages gguf and accelerate. Exit 1 where a token differs, or where a logit of the
file does by more than 0.01.
"""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from tlkit.core.language.generate import NEAR
from tlkit.core.language.model import open_language
from tlkit.core.language.package import open_language_package
from tlkit.core.language.runner import Runner

PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):",
    "Once upon a time, in a village by the sea,",
    "Q: Why is the sky blue?\nA:",
    "Die Brücke über den Fluss wurde",
)
LIMIT = 0.01


class Halves(DynamicCache):
    """A cache that rounds keys and values to f16, as a package's states do."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add keys and values, rounded."""
        return super().update(key_states.half().float(), value_states.half().float(), layer_idx, *args, **kwargs)


def wanted(model: Any, prompt: list[int], count: int, kind: type[DynamicCache]) -> tuple[list[int], Any]:
    """Return transformers' greedy tokens, and the logits [count, vocabulary] that they were chosen by."""
    cache, given = kind(config=model.config), prompt
    tokens: list[int] = []
    logits: list[Any] = []
    with torch.inference_mode():
        while len(tokens) < count:
            found = model(torch.tensor([given]), past_key_values=cache, use_cache=True, logits_to_keep=1)
            logits.append(found.logits[0, -1].numpy())
            tokens.append(int(logits[-1].argmax()))
            given = tokens[-1:]
    return tokens, np.stack(logits)


def beside(runner: Runner, prompt: list[int], tokens: list[int], logits: Any) -> tuple[int, float]:
    """Return how many of a runner's tokens are the given ones, and the largest distance of a logit."""
    runner.rewind(0)
    same, furthest, given = 0, 0.0, prompt
    for token, row in zip(tokens, logits, strict=True):
        found = runner.feed(given)
        same += int(found.argmax()) == token
        furthest = max(furthest, float(np.abs(found - row).max()))
        given = [token]
    return same, furthest


def main() -> int:
    """Compare, and print a line for each prompt and way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--package", type=Path)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--only", default="openvino,torch")
    args = parser.parse_args()
    source = open_language(args.model)
    prompts = [source.tokenizer.encode(text) for text in PROMPTS]
    loader: Any = AutoModelForCausalLM
    reference = loader.from_pretrained(
        args.model.parent, gguf_file=args.model.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    kinds = [DynamicCache, *([Halves] if args.package else [])]
    answers = {kind: [wanted(reference, prompt, args.tokens, kind) for prompt in prompts] for kind in kinds}
    del reference
    gc.collect()
    room, good = max(map(len, prompts)) + args.tokens, True
    for engine in args.only.split(","):
        runner = source.runner(room, engine)
        for prompt, (tokens, logits) in zip(prompts, answers[DynamicCache], strict=True):
            same, furthest = beside(runner, prompt, tokens, logits)
            ranked = np.partition(logits, -2)[:, -2:]
            near = int((ranked[:, 1] - ranked[:, 0] < NEAR).sum())
            said = f"{same} of {len(tokens)} tokens, logits within {furthest:.5f}, {near} near ties"
            print(f"{args.model.name} on {runner.name}: {said}", flush=True)
            good = good and same == len(tokens) and furthest < LIMIT
        if args.package is None:
            continue
        packaged = open_language_package(args.package).runner(None, engine)
        both = zip(prompts, answers[DynamicCache], answers[Halves], strict=True)
        for prompt, (tokens, _), (rounded, logits) in both:
            same, furthest = beside(packaged, prompt, rounded, logits)
            alike = sum(a == b for a, b in zip(tokens, rounded, strict=True))
            said = f"{same} of {len(rounded)} tokens of transformers with f16 keys and values"
            said += f", logits within {furthest:.5f}, {alike} are the file's"
            print(f"{args.package.name} on {packaged.name}: {said}", flush=True)
            good = good and same == len(rounded) == alike
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
