"""The same words: 64 greedy tokens of small random models, from GGUF, from the folder and from both packages, beside
transformers in f32 (for packages: whose keys and values are rounded to f16, as a package's states are).

docs/language.md has what is checked here as a table; ``smallest lead`` in the report is that of a choice, in logits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.formats.gguf.model.folders import CONFIGS, build
from tests.frontends.gguf.test_decoder import YARN
from tlkit import convert_weights
from tlkit.core.language.model import open_language
from tlkit.core.language.package import open_language_package
from tlkit.core.language.packaging import convert_language
from tlkit.core.language.runner import Runner

SHORT = [1, 5, 9, 33, 200, 7, 60]
LONG = [1, *range(20, 87)]
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
BOTH = {
    "full_attention": {**LINEAR, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, YaRN": ("llama", {"rope_parameters": YARN}),
    "llama, linear": ("llama", {"rope_parameters": LINEAR}),
    "llama, tied, one group": ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "mistral, window": ("mistral", {"sliding_window": 8}),
    "qwen2, YaRN": ("qwen2", {"rope_parameters": YARN}),
    "qwen2, linear": ("qwen2", {"rope_parameters": LINEAR}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "phi3, window": ("phi3", {"sliding_window": 16}),
    "gemma2, other caps": ("gemma2", {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}),
    "gemma3, linear": ("gemma3", {"rope_parameters": BOTH}),
    "gpt2, untied": ("gpt2", {"tie_word_embeddings": False}),
}
"""By what they vary: RoPE's scalings, windows, soft caps, tied embeddings."""
CASES = {**{case: (case, {}) for case in CONFIGS if case != "bert"}, **VARIANTS}
WINDOWED = {"mistral, window", "phi3, window"}
"""Where llama.cpp attends to the whole context, and convert says so."""


def loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def after_each(model: Any, tokens: list[int], halves: bool) -> np.ndarray[Any, Any]:
    """The logits after each token of a given text; with ``halves`` its keys and values are rounded to f16."""
    from transformers import DynamicCache

    from tests.core.language.halves import Halves

    with torch.no_grad():
        cache = (Halves if halves else DynamicCache)(config=model.config)
        found: np.ndarray[Any, Any] = model(torch.tensor([tokens]), past_key_values=cache).logits[0].numpy()
    return found


def by_transformers(model: Any, prompt: list[int], count: int, halves: bool) -> tuple[list[int], float]:
    """The likeliest tokens one after another, and the smallest lead of one of them."""
    ids, lead = list(prompt), float("inf")
    for _ in range(count):
        logits = after_each(model, ids, halves)[-1]
        second, first = np.partition(logits, -2)[-2:]
        lead = min(lead, float(first - second))
        ids.append(int(logits.argmax()))
    return ids[len(prompt) :], lead


def said(runner: Runner, prompt: list[int], count: int) -> list[int]:
    """The same of a runner."""
    found = [int(np.argmax(runner.feed(prompt)))]
    while len(found) < count:
        found.append(int(np.argmax(runner.feed(found[-1:]))))
    return found


def followed(runner: Runner, tokens: list[int]) -> list[int]:
    """The same of a runner, fed one by one."""
    runner.rewind(0)
    return [int(np.argmax(runner.feed([token]))) for token in tokens]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_all_ways_say_the_same_words(tmp_path: Path, name: str, record_property: Callable[[str, object], None]) -> None:
    case, changes = CASES[name]
    folder, file = build(tmp_path / "folder", case, **changes), tmp_path / "model.gguf"
    notes = convert_weights(folder, file).notes
    assert any("llama.cpp may not run it" in note for note in notes) == (name in WINDOWED)
    # Beyond the trained context LongRoPE's factors are others, for all tokens: a context that never gets there.
    room, count = (64, 56) if case == "phi3_long" else (96, 64)
    model = loaded(folder)
    # Small models with tied embeddings may say one word again and again: what follows each word of a text varies.
    text = [int(token) for token in np.random.default_rng(1).integers(5, 380, count)]
    walked = [after_each(model, text, halves) for halves in (False, True)]
    assert len(set(walked[0].argmax(-1))) > 1
    leads = [by_transformers(model, SHORT, count, halves) for halves in (False, True)]
    for path in (folder, file):
        made = convert_language(path, tmp_path / f"{path.name}.mlpackage", context=room, verify=False)
        runners = (open_language(path).runner(room, cache=False), open_language_package(made.path).runner(None))
        # A key that lies between two f16 numbers may be rounded to the other one.
        for runner, (wanted, lead), logits, near in zip(runners, leads, walked, (1e-4, 0.003), strict=True):
            if lead > near:
                assert said(runner, SHORT, count) == wanted
            chosen = logits[np.arange(count), followed(runner, text)]
            assert (logits.max(-1) - chosen).max() < near
    record_property("smallest lead", leads[0][1])


@pytest.mark.slow
def test_beyond_its_trained_context_longrope_turns_by_the_long_factors(tmp_path: Path) -> None:
    folder, file = build(tmp_path / "folder", "phi3_long"), tmp_path / "model.gguf"
    convert_weights(folder, file)
    wanted, _ = by_transformers(loaded(folder), LONG, 32, halves=False)
    for path in (folder, file):
        assert said(open_language(path).runner(112, cache=False), LONG, 32) == wanted
    made = convert_language(file, tmp_path / "m.mlpackage", context=112, verify=False)
    assert said(open_language_package(made.path).runner(None), LONG, 32) == wanted
