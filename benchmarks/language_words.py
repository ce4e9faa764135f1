"""The same words: greedy tokens of a GGUF file beside transformers with the file's weights in f32, step by step.

    python benchmarks/language_words.py model.gguf [--package model.mlpackage] [--tokens 200] [--only openvino,torch]

For each prompt and way to run: how many tokens are transformers', the largest distance of a logit at any step, and at
how many steps the likeliest token led by less than 0.5 logits (near ties, where rounded activations could choose
otherwise). transformers reads what was said as a whole: where each token is its likeliest one, it says the same words.
A package's keys and values are f16: it is held to the file's tokens, and to transformers with such keys and values.
transformers reads GGUF with the packages gguf and accelerate. Exit 1 where a token differs, or where a logit of the
file does by more than 0.01.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, DynamicCache

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.core.language.halves import Halves
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


def said(runner: Runner, prompt: list[int], count: int) -> tuple[list[int], Any]:
    """Return a runner's greedy tokens, and the logits [count, vocabulary] that they were chosen by."""
    runner.rewind(0)
    tokens: list[int] = []
    logits = [runner.feed(prompt)]
    while True:
        tokens.append(int(logits[-1].argmax()))
        if len(tokens) == count:
            return tokens, np.stack(logits)
        logits.append(runner.feed(tokens[-1:]))


def told(model: Any, prompt: list[int], tokens: list[int], kind: type[DynamicCache]) -> Any:
    """Return transformers' logits [tokens, vocabulary] at each of the steps that chose ``tokens``."""
    with torch.inference_mode():
        given = torch.tensor([[*prompt, *tokens[:-1]]])
        found = model(given, past_key_values=kind(config=model.config), logits_to_keep=len(tokens))
    return found.logits[0].numpy()


def beside(tokens: list[int], logits: Any, wanted: Any) -> tuple[int, float, int]:
    """Return how many tokens are the likeliest of ``wanted``, the largest distance of a logit, and the near ties."""
    ranked = np.partition(wanted, -2)[:, -2:]
    same = int((wanted.argmax(-1) == tokens).sum())
    return same, float(np.abs(logits - wanted).max()), int((ranked[:, 1] - ranked[:, 0] < NEAR).sum())


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
    room, good = max(map(len, prompts)) + args.tokens, True
    for engine in args.only.split(","):
        runner = source.runner(room, engine)
        packaged = open_language_package(args.package).runner(None, engine) if args.package else None
        for prompt in prompts:
            tokens, logits = said(runner, prompt, args.tokens)
            same, furthest, near = beside(tokens, logits, told(reference, prompt, tokens, DynamicCache))
            text = f"{same} of {len(tokens)} tokens, logits within {furthest:.5f}, {near} near ties"
            print(f"{args.model.name} on {runner.name}: {text}", flush=True)
            good = good and same == len(tokens) and furthest < LIMIT
            if packaged is None:
                continue
            rounded, logits = said(packaged, prompt, args.tokens)
            alike = sum(a == b for a, b in zip(tokens, rounded, strict=True))
            same, furthest, near = beside(rounded, logits, told(reference, prompt, rounded, Halves))
            text = f"{alike} of {len(tokens)} tokens are the file's, {same} transformers' with f16 keys and values"
            print(f"{args.package.name} on {packaged.name}: {text}, logits within {furthest:.5f}", flush=True)
            good = good and alike == len(tokens)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
