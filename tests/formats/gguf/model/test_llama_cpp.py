"""Folders as GGUF models in llama.cpp itself, by node-llama-cpp: the probabilities and vectors of transformers.

``npm install --ignore-scripts node-llama-cpp @node-llama-cpp/linux-x64`` in a folder, and NODE_MODULES=THAT_FOLDER.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.formats.gguf.model.folders import CONFIGS, build
from tlkit import convert_weights

MODULES = os.environ.get("NODE_MODULES", "")
IDS = [[5, 9, 33, 200, 7, 60], [11], [*range(20, 60)]]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("node") and Path(MODULES, "node_modules/node-llama-cpp").is_dir()),
        reason="llama.cpp is not here: see this module's docstring",
    ),
]


def computed(model: Path, jobs: list[dict[str, Any]]) -> list[Any]:
    """What llama.cpp answers to each job: a vector, or pairs of a token and its probability among the likeliest."""
    script = Path(__file__).with_name("llama.mjs")
    done = subprocess.run(
        ["node", script, model, json.dumps(jobs)], check=True, capture_output=True, text=True, timeout=300
    )
    (answer,) = [line.removeprefix("RESULT") for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return list(json.loads(answer))


@pytest.mark.parametrize("case", [case for case in CONFIGS if case != "bert"])
def test_probabilities_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = build(tmp_path / "model", case)
    convert_weights(folder, tmp_path / "a.gguf")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    # llama.cpp takes longrope's factors by the length of the context, which it pads, transformers by the text's.
    texts = [[*range(5, 80)]] if case == "phi3_long" else IDS
    for ids, pairs in zip(texts, computed(tmp_path / "a.gguf", [{"ids": ids} for ids in texts]), strict=True):
        with torch.no_grad():
            wanted = model(torch.tensor([ids])).logits[0, -1].softmax(-1).numpy()
        likeliest = [token for token, _ in pairs]
        assert len(likeliest) > 4
        assert wanted[likeliest].min() > np.delete(wanted, likeliest).max() - 1e-4  # ties may go either way
        ours = wanted[likeliest] / wanted[likeliest].sum()  # the sampler leaves the others out
        # f16 caches, and in gemma a table of GELU's values at f16's numbers
        np.testing.assert_allclose([value for _, value in pairs], ours, atol=2e-3)


def test_vectors_of_bert_are_those_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = build(tmp_path / "model", "bert")
    convert_weights(folder, tmp_path / "a.gguf")
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    texts = [tokenizer(text)["input_ids"] for text in ("The quick brown fox", "a", "Water boils, don't it?")]
    jobs = [{"ids": ids, "embed": True} for ids in texts]
    for ids, vector in zip(texts, computed(tmp_path / "a.gguf", jobs), strict=True):
        with torch.no_grad():
            wanted = model(torch.tensor([ids])).last_hidden_state[0, -1]  # a folder that names no pooling has the last
        cosine = torch.nn.functional.cosine_similarity(torch.tensor(vector), wanted, dim=0)
        assert cosine > 1 - 1e-6  # llama.cpp's GELU is the tanh form, by a table
