"""Encoders against transformers (BERT); Nomic's and Jina's against the formulas, written out in torch.

Covers tlkit/frontends/gguf/families/bert.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.formats.gguf.model.folders import build
from tlkit.core.language.model import open_language


def test_bert_is_that_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = build(tmp_path / "folder", "bert")
    ids = [2, 5, 9, 33, 100, 7, 60, 3]
    with torch.no_grad():
        wanted = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()(torch.tensor([ids])).last_hidden_state
    found = open_language(folder).encode(ids)
    assert np.abs(found - wanted[0].numpy()).max() < 1e-4
