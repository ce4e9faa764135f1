"""Decoders of every architecture against transformers in f32, from GGUF and from the folder.

Covers tlkit/frontends/gguf/kit/source.py, tlkit/frontends/gguf/kit/net.py, tlkit/frontends/gguf/kit/norms.py,
tlkit/frontends/gguf/kit/rotary.py, tlkit/frontends/gguf/kit/cache.py, tlkit/frontends/gguf/kit/attention.py,
tlkit/frontends/gguf/kit/feed_forward.py, tlkit/frontends/gguf/kit/family.py, tlkit/frontends/gguf/families/llama.py,
tlkit/frontends/gguf/families/qwen.py, tlkit/frontends/gguf/families/gemma.py, tlkit/frontends/gguf/families/phi.py,
tlkit/frontends/gguf/families/gpt2.py, tlkit/core/language/model.py, tlkit/core/language/runner.py,
tlkit/core/language/by_torch.py, tlkit/core/language/by_openvino.py, tlkit/engines/openvino/program.py,
tlkit/engines/openvino/operations.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.formats.gguf.model.folders import CONFIGS, build
from tlkit import convert_weights
from tlkit.core.language.model import open_language
from tlkit.core.language.runner import FullError, chunks, rows_for
from tlkit.errors import LoadError
from tlkit.frontends.gguf.decoder import Form

CASES = [case for case in CONFIGS if case != "bert"]
QUICK = {"llama31", "gemma3"}
IDS = [1, 5, 9, 33, 200, 7, 60, *range(20, 50)]
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}


def expected(folder: Path, ids: list[int]) -> np.ndarray[Any, Any]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        found: np.ndarray[Any, Any] = model(torch.tensor([ids])).logits[0].numpy()
    return found


def computed(path: Path, ids: list[int], engine: str = "openvino", context: int = 64) -> np.ndarray[Any, Any]:
    """Logits of every place: those of a chunk, then of single steps."""
    runner = open_language(path).runner(context, engine)
    first = runner.scores(ids[:20])
    return np.concatenate([first, *(runner.feed([token])[None] for token in ids[20:])])


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_logits_are_those_of_transformers(tmp_path: Path, case: str) -> None:
    folder, file = build(tmp_path / "folder", case), tmp_path / "model.gguf"
    convert_weights(folder, file)
    wanted = expected(folder, IDS)
    for path in (file, folder):
        for engine in ("openvino", "torch"):
            assert np.abs(computed(path, IDS, engine) - wanted).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "changes"),
    [
        ("llama", {"rope_parameters": YARN, "max_position_embeddings": 128}),
        ("qwen2", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}}),
        ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
        ("mistral", {"sliding_window": 8}),
    ],
)
def test_variants_are_those_of_transformers(tmp_path: Path, case: str, changes: dict[str, Any]) -> None:
    folder = build(tmp_path / "folder", case, **changes)
    wanted = expected(folder, IDS)
    for engine in ("openvino", "torch"):
        assert np.abs(computed(folder, IDS, engine) - wanted).max() < 1e-4


def test_chunks_fit_the_context() -> None:
    assert chunks(range(5), 0, 64) == [(range(5), 8)]
    assert [size for _, size in chunks(range(6), 58, 64)] == [1] * 6  # nothing is padded past the end
    assert [len(part) for part, _ in chunks(range(600), 0, 4096)] == [512, 88]
    with pytest.raises(FullError, match="context is full: 64"):
        chunks(range(65), 0, 64)
    assert (rows_for(10, 4096), rows_for(257, 4096), rows_for(257, 300)) == (256, 512, 300)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = build(tmp_path / "folder", "qwen2")
    model = open_language(folder)
    whole = dict(model.source.tensors)
    lacking = {name: tensor for name, tensor in whole.items() if name != "blk.1.attn_k.bias"}
    object.__setattr__(model.source, "tensors", lacking)
    with pytest.raises(LoadError, match=r"blk\.1\.attn_k\.bias' is not there"):
        model.function(Form(1, 16, 16))
    object.__setattr__(model.source, "tensors", whole)
    model.function(Form(1, 16, 16))
    more = {**whole, "blk.0.attn_sinks.weight": whole["blk.0.attn_k.bias"]}
    object.__setattr__(model.source, "tensors", more)
    with pytest.raises(LoadError, match="no place in qwen2"):
        model.function(Form(1, 16, 16))
