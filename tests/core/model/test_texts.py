"""Texts as inputs: the ids are what transformers makes of the same ``tokenizer.json``, masks and lengths with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlkit.core.model.known import Known
from tlkit.core.model.texts import Text, tokenizer_of, with_texts
from tlkit.core.model.values import collect
from tlkit.errors import LoadError, UnavailableError, UsageError
from tlkit.types import TensorSpec

WORDS = {word: index for index, word in enumerate(("[PAD]", "[CLS]", "[SEP]", "[UNK]", "the", "cat", "=", "sits"))}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    made.enable_padding(pad_id=0, length=4)
    made.enable_truncation(3)
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    return path


def ports(*shape: int, ranges: Sequence[tuple[int, int | None]] = ()) -> tuple[TensorSpec, ...]:
    names = ("input_ids", "attention_mask", "token_type_ids", "scale")
    sizes = (shape, shape, shape, (1,))
    spans = (tuple(ranges),) * 3 + ((),)
    return tuple(
        TensorSpec(name, "int32", size, ranges=span) for name, size, span in zip(names, sizes, spans, strict=True)
    )


def given(tokenizer: Path | None, specs: tuple[TensorSpec, ...], *texts: str) -> dict[str, Any]:
    return collect(specs, texts, (), 0, lambda _: None, 1 << 20, Known(tokenizer=tokenizer))


def test_ids_masks_and_kinds_are_transformers_own(tokenizer: Path) -> None:
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), pad_token="[PAD]")
    for text in ("the cat sits", "the = dog", "cat " * 5):
        wanted = fast(text, padding="max_length", max_length=9)
        found = given(tokenizer, ports(1, 9), f"input_ids=text:{text}", "scale=1")
        for name in ("input_ids", "attention_mask"):
            assert found[name].tolist() == [wanted[name]]
        assert found["token_type_ids"].tolist() == [[0] * 9] and found["scale"] == 1


def test_a_port_of_any_length_gets_the_text_and_no_more(tokenizer: Path) -> None:
    found = given(tokenizer, ports(1, 16, ranges=((1, 1), (1, 32))), "input_ids=text:the cat", "scale=1")
    assert found["input_ids"].tolist() == [[1, 4, 5, 2]] and found["attention_mask"].tolist() == [[1] * 4]
    short = given(tokenizer, ports(1, 16, ranges=((1, 1), (8, None))), "input_ids=text:the cat", "scale=1")
    assert short["attention_mask"].tolist() == [[1] * 4 + [0] * 4]  # at least eight


def test_what_is_given_is_kept(tokenizer: Path) -> None:
    found = given(tokenizer, ports(1, 6), "input_ids=text:the cat", "attention_mask=[[1,1,0,0,0,0]]", "scale=1")
    assert np.asarray(found["attention_mask"]).tolist() == [[1, 1, 0, 0, 0, 0]]
    alone = (TensorSpec("ids", "int32", (5,)),)
    assert given(tokenizer, alone, "text:the = cat")["ids"].tolist() == [1, 4, 6, 5, 2]


def test_what_cannot_be_is_said(tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="7 tokens, which do not fit"):
        given(tokenizer, ports(1, 6), "input_ids=text:cat cat cat cat cat")
    with pytest.raises(UsageError, match="takes no ids"):
        given(tokenizer, (TensorSpec("x", "float32", (1, 3, 4)),), "x=text:cat")
    with pytest.raises(UnavailableError, match="carries no tokenizer"):
        given(None, ports(1, 6), "input_ids=text:cat")
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    with pytest.raises(LoadError, match="not a tokenizer"):
        with_texts(ports(1, 6), {"input_ids": Text("cat")}, broken)


def test_a_tokenizer_lies_in_the_package_or_beside_it(tokenizer: Path, tmp_path: Path) -> None:
    package = tmp_path / "net.mlpackage"
    inside = package / "Data" / "com.apple.CoreML" / "tokenizer.json"
    inside.parent.mkdir(parents=True)
    assert tokenizer_of(package) == tokenizer
    inside.write_text("{}")
    assert tokenizer_of(package) == inside
    assert tokenizer_of(tmp_path / "other" / "net.mlpackage") is None
