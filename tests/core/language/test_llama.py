"""llama.cpp as an engine, where llama-cpp-python is installed; what is said where it is not, or cannot serve.

Covers tlkit/core/language/by_llama.py.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.formats.gguf.model.folders import build
from tlkit import convert_weights
from tlkit.core.language.answer import answer
from tlkit.core.language.model import open_language
from tlkit.errors import LoadError, UnavailableError, UsageError

IDS = [1, 5, 9, 33, 200, 7, 60, *range(20, 50)]


def test_a_folder_is_not_for_it(tmp_path: Path) -> None:
    model = open_language(build(tmp_path / "folder", "qwen2"))
    with pytest.raises(UsageError, match="it runs GGUF files"):
        model.runner(64, "llama.cpp")


@pytest.mark.skipif(find_spec("llama_cpp") is not None, reason="it is installed")
def test_the_error_names_what_to_install(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    convert_weights(build(tmp_path / "folder", "qwen2"), file)
    with pytest.raises(UnavailableError, match="llama-cpp-python not installed"):
        open_language(file).runner(64, "llama.cpp")


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_logits_are_near_to_the_exact_ones(tmp_path: Path) -> None:
    """Weights are f32, so that llama.cpp rounds only keys and values."""
    file = tmp_path / "model.gguf"
    convert_weights(build(tmp_path / "folder", "qwen2"), file)
    exact, found = (open_language(file).runner(64, engine) for engine in ("torch", "llama.cpp"))
    wanted = exact.scores(IDS)
    assert np.abs(found.scores(IDS) - wanted).max() < 0.05
    found.rewind(9)
    assert np.abs(found.feed(IDS[9:]) - wanted[-1]).max() < 0.05
    assert found.position == len(IDS) and not found.exact


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_an_answer_counts_its_near_ties(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    convert_weights(build(tmp_path / "folder", "qwen2"), file)
    found = answer(file, "The quick", most=8, engine="llama.cpp")
    assert found.engine.startswith("llama.cpp") and found.near_ties is not None
    file.write_bytes(file.read_bytes()[:-4096])
    with pytest.raises(LoadError):
        answer(file, "The quick", most=8, engine="llama.cpp")
