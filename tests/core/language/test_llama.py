"""llama.cpp as an engine, where llama-cpp-python is installed; what is said where it is not, or cannot serve.

Covers tlkit/core/language/by_llama.py.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.gguf.model.folders import build
from tlkit import convert_weights
from tlkit.core.language.answer import answer
from tlkit.core.language.model import open_language
from tlkit.errors import LoadError, UnavailableError, UsageError

PIECES = [
    *("The capital of", "  ", " \t\r\n", "\n\n", "12345", "don't I'LL", "\u00fcber", "e\u0301\u0323", "\u5317\u4eac"),
    *("\u05e9\u05dc\u05d5\u05dd", "\u0663\u0664", "\U0001f469\u200d\U0001f469", "\u3000\u00a0\u2028", "\u2581"),
    *(" <mine>x", "a</s>", "\x00\x7f", "!!??", "\u01c5\ufb01\u2167\u00bd"),
]
"""What texts are made of; a text that begins with BOS gets no second one here, and does there."""
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


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
@pytest.mark.parametrize("kind", ["gpt2", "llama3", "qwen2", "scored", "gemma"])
def test_tokens_are_llama_cpp_s(tmp_path: Path, kind: str) -> None:
    import llama_cpp

    file = tmp_path / "model.gguf"
    convert_weights(build(tmp_path / "folder", "qwen2", kind), file)
    wanted = llama_cpp.llama_model_default_params()
    wanted.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), wanted)
    vocabulary, ours = llama_cpp.llama_model_get_vocab(model), open_language(file).tokenizer

    @settings(deadline=None, max_examples=300)
    @given(st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=8).map("".join))
    def alike(text: str) -> None:
        raw = text.encode()
        ids = (llama_cpp.llama_token * (len(raw) + 16))()
        count = llama_cpp.llama_tokenize(vocabulary, raw, len(raw), ids, len(ids), True, True)
        assert ours.encode(text) == list(ids[:count])

    alike()
    llama_cpp.llama_model_free(model)


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_an_answer_counts_its_near_ties(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    convert_weights(build(tmp_path / "folder", "qwen2"), file)
    found = answer(file, "The quick", most=8, engine="llama.cpp")
    assert found.engine.startswith("llama.cpp") and found.near_ties is not None
    file.write_bytes(file.read_bytes()[:-4096])
    with pytest.raises(LoadError):
        answer(file, "The quick", most=8, engine="llama.cpp")
