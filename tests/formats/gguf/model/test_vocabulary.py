"""Tokenizers of folders as GGUF's vocabularies, against ``tokenizers`` and files that llama.cpp's converter wrote.

Covers tlkit/formats/gguf/model/vocabulary.py, tlkit/formats/gguf/model/tokenizer_files.py,
tlkit/formats/gguf/model/specials.py, tlkit/formats/gguf/model/sentencepiece.py,
tlkit/formats/gguf/model/pretokenizers.py.
"""

from __future__ import annotations

import json
import re
import struct
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.formats.gguf.model.folders import PROMPTS, trained
from tests.real_models import MODELS, needs_models
from tlkit.errors import LoadError, TlkitError
from tlkit.formats.gguf.model.sentencepiece import read_pieces
from tlkit.formats.gguf.model.specials import specials
from tlkit.formats.gguf.model.tokenizer_files import TokenizerFiles
from tlkit.formats.gguf.model.vocabulary import Vocabulary, read_vocabulary
from tlkit.formats.gguf.read import GGUFFile


def saved(folder: Path, kind: str) -> TokenizerFiles:
    trained(kind).save_pretrained(folder)
    return TokenizerFiles(folder)


def vocabulary(files: TokenizerFiles) -> Vocabulary:
    found = read_vocabulary(files)
    assert found is not None
    return found


def theirs(folder: Path, text: str) -> list[int]:
    """The ids that ``tokenizers`` gives."""
    ids: list[int] = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    return ids


def by_scores(found: Vocabulary, text: str) -> list[int]:
    """llama.cpp's way for SentencePiece: merge the two neighbours that make the best token, until none do."""
    ids = {token: index for index, token in enumerate(found.tokens)}
    parts = list(("▁" if found.habits["tokenizer.ggml.add_space_prefix"].value else "") + text.replace(" ", "▁"))
    while True:
        pairs = [(found.scores[ids[a + b]], -i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ids]
        if not pairs:
            break
        place = -max(pairs)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return [id for part in parts for id in ([ids[part]] if part in ids else [3 + 1 + b for b in part.encode()])]


def by_pieces(found: Vocabulary, text: str) -> list[int]:
    """llama.cpp's way for WordPiece: words between blanks and around marks, the longest piece first."""
    ids = {token: index for index, token in enumerate(found.tokens)}
    answer = []
    for word in re.findall(r"[\u4e00-\u9fff]|\w+|[^\w\s]", text.lower().replace("ü", "u").replace("ä", "a")):
        rest, pieces = "▁" + word, []
        while rest:
            size = next((n for n in range(len(rest), 0, -1) if rest[:n] in ids), 0)
            if not size:
                pieces = [ids["[UNK]"]]
                break
            pieces, rest = [*pieces, ids[rest[:size]]], rest[size:]
        answer += pieces
    return answer


@pytest.mark.parametrize("kind", ["scored", "gemma", "phi"])
def test_scores_make_the_tokens_that_merges_make(kind: str, tmp_path: Path) -> None:
    found = vocabulary(saved(tmp_path, kind))
    assert (found.model, found.doubts) == ("llama", [])
    for text in PROMPTS:
        assert by_scores(found, text) == theirs(tmp_path, text)


def test_pieces_of_words(tmp_path: Path) -> None:
    found = vocabulary(saved(tmp_path, "words"))
    assert (found.model, found.doubts) == ("bert", [])
    for text in PROMPTS:
        assert by_pieces(found, text) == theirs(tmp_path, text)


@pytest.mark.parametrize(("kind", "pre"), [("gpt2", "gpt-2"), ("qwen2", "qwen2"), ("llama3", "llama-bpe")])
def test_merges_and_the_name_of_the_split(kind: str, pre: str, tmp_path: Path) -> None:
    files = saved(tmp_path, kind)
    found, inner = vocabulary(files), json.loads((tmp_path / "tokenizer.json").read_text())
    assert (found.model, found.pre, found.doubts) == ("gpt2", pre, [])
    assert [merge.split(" ") for merge in found.merges] == inner["model"]["merges"]
    assert all(found.tokens[index] == token for token, index in inner["model"]["vocab"].items())
    assert found.tokens[-1] == "<mine>" and len(found.tokens) == len(inner["model"]["vocab"]) + 1
    kinds = dict(zip(found.tokens, found.types, strict=True))
    assert (kinds["<s>"], kinds["<mine>"], kinds["a"]) == (3, 4, 1)
    ends = specials(files, found, {})
    assert ends["tokenizer.ggml.add_bos_token"].value == (kind == "llama3")
    assert ends["tokenizer.ggml.eos_token_id"].value == 2
    assert ends["tokenizer.chat_template"].value.startswith("{% for")


def test_a_split_that_llama_cpp_has_no_name_for_is_a_doubt(tmp_path: Path) -> None:
    files = saved(tmp_path, "qwen2")
    inner = json.loads(files.path.read_text())
    inner["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": r"\w+|\W+"}
    files.path.write_text(json.dumps(inner))
    found = vocabulary(TokenizerFiles(tmp_path))
    assert found.pre == "default" and "no name for how its tokenizer splits text" in found.doubts[0]


def test_merges_that_scores_cannot_say_are_a_doubt(tmp_path: Path) -> None:
    files = saved(tmp_path, "scored")
    inner = json.loads(files.path.read_text())
    merges = inner["model"]["merges"]
    several = next(i for i in range(len(merges) - 1) if "".join(merges[i]) == "".join(merges[i + 1]))
    del merges[several]
    files.path.write_text(json.dumps(inner))
    assert "not those of a SentencePiece vocabulary" in vocabulary(TokenizerFiles(tmp_path)).doubts[0]


def test_unigram_keeps_its_scores(tmp_path: Path) -> None:
    files = saved(tmp_path, "unigram")
    found, inner = vocabulary(files), json.loads(files.path.read_text())["model"]
    assert found.model == "t5" and found.types[inner["unk_id"]] == 2
    assert found.scores[10:] == [score for _, score in inner["vocab"]][10:]
    said = specials(files, found, {})
    assert (said["tokenizer.ggml.add_bos_token"].value, said["tokenizer.ggml.add_eos_token"].value) == (False, True)


def test_a_vocabulary_gets_as_many_tokens_as_the_embedding_has_rows(tmp_path: Path) -> None:
    found = vocabulary(saved(tmp_path, "gpt2"))
    count = len(found.tokens)
    found.fit(count + 2)
    assert found.tokens[-1] == f"[PAD{count + 1}]" and found.types[-2:] == [5, 5]
    found.fit(count - 1)  # without the token that was added
    assert len(found.tokens) == len(found.types) == count - 1 and not found.doubts
    found.fit(count - 3)
    assert "2 of its tokens have no row" in found.doubts[0]


def test_older_files_of_a_tokenizer(tmp_path: Path) -> None:
    whole = vocabulary(saved(tmp_path, "gpt2"))
    inner = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    old = tmp_path / "old"
    old.mkdir()
    (old / "vocab.json").write_text(json.dumps(inner["vocab"]))
    (old / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(merge) for merge in inner["merges"]) + "\n")
    (old / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    (old / "added_tokens.json").write_text(json.dumps({"<mine>": whole.tokens.index("<mine>")}))
    found = vocabulary(TokenizerFiles(old))
    assert (found.tokens, found.merges, found.pre) == (whole.tokens, whole.merges, "gpt-2")


def test_templates_by_name_and_the_end_of_a_turn(tmp_path: Path) -> None:
    files = saved(tmp_path, "gpt2")
    said = json.loads((tmp_path / "tokenizer_config.json").read_text())
    said["chat_template"] = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7, 9]}))
    files = TokenizerFiles(tmp_path)
    found = {key: typed.value for key, typed in specials(files, vocabulary(files), {}).items()}
    assert found["tokenizer.chat_template"] == "a" and found["tokenizer.chat_template.tool_use"] == "b"
    assert found["tokenizer.chat_templates"] == ["tool_use"] and found["tokenizer.ggml.eot_token_id"] == 7
    assert found["tokenizer.ggml.eom_token_id"] == 9


def proto(number: int, data: bytes) -> bytes:
    size, head = len(data), b""
    while size > 127:
        head, size = head + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + head + bytes([size]) + data


def model_proto(tokens: list[str], scores: list[float], types: list[int], prefix: bool, kind: int = 2) -> bytes:
    """Return a SentencePiece model, by its protobuf's definition."""
    pieces = [
        proto(1, proto(1, token.encode()) + b"\x15" + struct.pack("<f", score) + bytes([3 << 3, type]))
        for token, score, type in zip(tokens, scores, types, strict=True)
    ]
    return b"".join(pieces) + proto(2, bytes([3 << 3, kind])) + proto(3, bytes([3 << 3, prefix]))


@needs_models
def test_llama_s_vocabulary_from_sentencepiece_s_file(tmp_path: Path) -> None:
    said = GGUFFile(MODELS / "gguf/ggml-vocab-llama-spm.gguf").metadata
    tokens, scores, types = (list(said[f"tokenizer.ggml.{key}"]) for key in ("tokens", "scores", "token_type"))
    (tmp_path / "tokenizer.model").write_bytes(model_proto(tokens, scores, types, prefix=True))
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "unk_token": "<unk>", "add_bos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "add_eos_token": False}))
    files = TokenizerFiles(tmp_path)
    found = vocabulary(files)
    made = {**found.metadata(), **specials(files, found, {})}
    known = {key: value for key, value in said.items() if key.startswith("tokenizer.")}
    assert {key: typed.value for key, typed in made.items() if key != "tokenizer.ggml.add_space_prefix"} == known


@needs_models
def test_bert_s_vocabulary_from_vocab_txt(tmp_path: Path) -> None:
    said = GGUFFile(MODELS / "gguf/ggml-vocab-bert-bge.gguf").metadata
    tokens = list(said["tokenizer.ggml.tokens"])
    words = [t if t.startswith("[") and t.endswith("]") else t[1:] if t[0] == "▁" else f"##{t}" for t in tokens]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    names = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({f"{key}_token": text for key, text in names.items()}))
    files = TokenizerFiles(tmp_path)
    found = vocabulary(files)
    assert (found.model, found.tokens) == ("bert", tokens)
    # llama.cpp's own file leaves out what it puts around a text: [CLS] and [SEP] by its rule for WordPiece.
    ends = {
        "bos_token_id": said["tokenizer.ggml.cls_token_id"],
        "eos_token_id": said["tokenizer.ggml.seperator_token_id"],
    }
    expected = said | {f"tokenizer.ggml.{key}": value for key, value in ends.items()}
    for key, typed in specials(files, found, {}).items():
        assert typed.value == expected[key]


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader_of_pieces(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("pieces") / "tokenizer.model"
    path.write_bytes(data)
    with suppress(LoadError):
        assert read_pieces(path).pieces


WORDS = st.sampled_from(
    ["a", "b", "a b", "ab", "type", "Sequence", "pretokenizers", "normalizers", "ByteLevel", "single"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 1 << 40) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@given(
    model=st.fixed_dictionaries({}, optional=dict.fromkeys(("vocab", "merges", "unk_id"), JSON))
    | st.fixed_dictionaries({"type": st.sampled_from(["BPE", "Unigram", "WordPiece"]), "vocab": JSON, "merges": JSON}),
    rest=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("pre_tokenizer", "decoder", "normalizer", "added_tokens", "post_processor"), JSON)
    ),
)
def test_no_tokenizer_json_is_more_than_an_error(
    tmp_path_factory: pytest.TempPathFactory, model: Any, rest: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("json")
    (folder / "tokenizer.json").write_text(json.dumps({"model": model, **rest}))
    with suppress(TlkitError):
        files = TokenizerFiles(folder)
        found = read_vocabulary(files)
        if found is not None:
            specials(files, found, {})
            assert len(found.tokens) == len(found.types)
