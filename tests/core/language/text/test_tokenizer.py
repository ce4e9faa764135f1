"""Tokens against transformers and the ``tokenizers`` library: every kind of vocabulary, through GGUF's metadata.

Covers tlkit/core/language/text/vocabularies.py, tlkit/core/language/text/pieces.py.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from tests.formats.gguf.model.folders import PROMPTS, build
from tests.real_models import MODELS, needs_models
from tlkit.core.language.text.tokenizer import GrowingText, TextTokenizer, from_metadata
from tlkit.errors import LoadError
from tlkit.formats.gguf.model.vocabulary import TOKENIZER
from tlkit.formats.gguf.read import GGUFFile
from tlkit.frontends.gguf.kit.source import folder_source

RARE = ["<s>x</s> <mine>y", "a  b\n\n\nc", "e\u0301\u200d𝔘\x00\x7f", "", " ", "'ll 'LL don't 1234567 ١٢٣"]


def described(folder: Path) -> dict[str, Any]:
    """The folder's metadata in GGUF's words."""
    from tlkit.formats.safetensors.read import SafeTensorsFile

    return dict(folder_source(SafeTensorsFile(folder)).metadata)


@pytest.mark.parametrize("kind", ["gpt2", "llama3", "qwen2", "scored", "gemma", "words", "unigram"])
def test_tokens_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    from transformers import PreTrainedTokenizerFast

    case = "bert" if kind == "words" else "qwen2"
    folder = build(tmp_path / "folder", case, kind)
    reference = PreTrainedTokenizerFast.from_pretrained(folder)
    found = from_metadata(described(folder), "x")
    for text in [*PROMPTS, *RARE]:
        wanted = reference(text, add_special_tokens=False)["input_ids"]
        assert found.encode(text, whole=False) == wanted, text
        grown = GrowingText(found)
        pieces = [grown.add(token) for token in wanted]
        if kind != "words":  # whose blanks depend on what follows
            assert "".join(pieces) + grown.rest() == found.decode(wanted)


def test_what_llama_cpp_does_not_say_of_a_tokenizer_is_kept_in_gguf_s_words(tmp_path: Path) -> None:
    """Words in capitals, and a way to split text that llama.cpp has no name for."""
    from tokenizers import Regex, normalizers, pre_tokenizers
    from transformers import BertTokenizer, PreTrainedTokenizerFast

    folders = [build(tmp_path / name, "bert", kind) for name, kind in (("a", "words"), ("b", "qwen2"))]
    inner = [Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in folders]
    inner[0].normalizer = normalizers.BertNormalizer(lowercase=False)
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner[1].pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex("[a-e]+"), "isolated"), bytewise])
    for folder, tokenizer in zip(folders, inner, strict=True):
        tokenizer.save(str(folder / "tokenizer.json"))
        reference, found = PreTrainedTokenizerFast.from_pretrained(folder), from_metadata(described(folder), "x")
        for text in [*PROMPTS, *RARE]:
            assert found.encode(text, whole=False) == reference(text, add_special_tokens=False)["input_ids"]
    # Before there was tokenizer.json.
    words = inner[0].get_vocab()
    (folders[0] / "vocab.txt").write_text("\n".join(sorted(words, key=words.__getitem__)) + "\n")
    (folders[0] / "tokenizer.json").unlink()
    (folders[0] / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    old, found = BertTokenizer.from_pretrained(folders[0]), from_metadata(described(folders[0]), "x")
    for text in PROMPTS:
        assert found.encode(text, whole=False) == old(text, add_special_tokens=False)["input_ids"]


@needs_models
def test_scores_give_the_tokens_that_the_library_makes_of_the_merges() -> None:
    found = from_metadata(GGUFFile(MODELS / "gguf/ggml-vocab-llama-spm.gguf").metadata, "x")
    library = Tokenizer.from_str(found.inner.json())
    draw = random.Random(5)
    texts = [*PROMPTS, "".join(draw.choice("abc  \n\tdéß北😀TheiIng<>'") for _ in range(2000))]
    for text in texts:
        ids = library.encode(text, add_special_tokens=False).ids
        assert found.encode(text, whole=False) == ids
        assert found.decode(ids) == library.decode(ids)
    for ids in ([29871, 245, 154, 155, 300], [243, 162, 155, 131], [243, 162, 90, 450], [13, 200, 201]):
        assert found.decode(ids) == library.decode(ids)  # bytes that are UTF-8, and such that are not
    assert found.encode("Hello world") == [1, 15043, 3186]  # as Llama 2 has always had it


@needs_models
def test_words_of_bert() -> None:
    found = from_metadata(GGUFFile(MODELS / "gguf/ggml-vocab-bert-bge.gguf").metadata, "x")
    assert found.encode("Hello, wörld!") == [101, 7592, 1010, 2088, 999, 102]


BASE: dict[str, Any] = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["a", "b", "ab"],
    "tokenizer.ggml.merges": ["a b"],
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokenizer.ggml.merges": ["a c"]}, "contradicts itself"),
        ({"tokenizer.ggml.merges": ["ab"]}, "not a merge"),
        ({"tokenizer.ggml.merges": None}, "have no merges"),
        ({"tokenizer.ggml.tokens": []}, "no vocabulary"),
        ({"tokenizer.ggml.tokens": ["a"] * 9}, "most tokens"),
        ({"tokenizer.ggml.token_type": [1, 1]}, "3 tokens"),
        ({"tokenizer.ggml.model": "rwkv"}, "'rwkv'"),
        ({"tokenizer.ggml.model": "llama"}, "no scores"),
        ({"tokenizer.ggml.model": "t5"}, "no scores"),
        ({"tokenizer.ggml.tokens": 7}, "not a list"),
    ],
)
def test_what_contradicts_itself_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(LoadError, match=said):
        from_metadata({**BASE, **changes}, "x")


def test_what_the_library_cannot_read_or_encode_is_told_in_one_line(tmp_path: Path) -> None:
    """Its Rust code panics at a damaged table of characters, which is no Exception in Python."""
    words = Tokenizer(WordPiece({"a": 0}, unk_token="[UNK]")).to_str()
    damaged = json.loads(words) | {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}
    for text, said in ((json.dumps(damaged), "not a tokenizer"), ("{", "not a tokenizer")):
        with pytest.raises(LoadError, match=said):
            from_metadata({**BASE, TOKENIZER: text}, "x")
    with pytest.raises(LoadError, match=r"fails on this text .*UNK"):
        from_metadata({**BASE, TOKENIZER: words}, "x").encode("b")
    unigram = {"tokenizer.ggml.model": "t5", "tokenizer.ggml.scores": [0.0] * 3}
    with pytest.raises(LoadError, match="contradicts itself"):
        from_metadata({**BASE, **unigram, "tokenizer.ggml.precompiled_charsmap": [1, 2, 3, 4, 5]}, "x")


def test_bytes_that_are_not_text_are_replaced() -> None:
    tokens = ["?", "a", "b"]
    found = from_metadata({**BASE, "tokenizer.ggml.tokens": [*tokens, "ï", "¿", "½"], "tokenizer.ggml.merges": []}, "x")
    assert found.encode("a\udcffb") == [1, 3, 4, 5, 2] == found.encode("a\N{REPLACEMENT CHARACTER}b")


def test_a_text_gets_its_first_token_once() -> None:
    class Letters:
        def encode(self, text: str) -> list[int]:
            return [ord(letter) for letter in text]

        def decode(self, ids: Any) -> str:
            return "".join(map(chr, ids))

        def json(self) -> str:
            return ""

    found = TextTokenizer(Letters(), [97], [122], [])
    assert found.encode("bc") == [97, 98, 99, 122]
    assert found.encode("abc") == [97, 98, 99, 122]
    assert found.encode("bc", whole=False) == [98, 99]
