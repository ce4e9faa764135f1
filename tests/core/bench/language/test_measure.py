"""What ``tlkit bench`` measures of language models: counts, rates and errors of its processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.formats.gguf.model.folders import build
from tlkit.core.bench.language.measure import LanguageMethod, measure_language
from tlkit.errors import TlkitError, UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("model") / "folder", "qwen2")


def test_prompts_and_tokens_are_counted(folder: Path) -> None:
    method = LanguageMethod(prompts=(3, 6), generated=4, processes=1, times=2)
    found = measure_language([folder], method)
    assert [(row.test, row.tokens, row.after) for row in found.rows] == [
        ("prompt", 3, 0),
        ("generate", 4, 3),
        ("prompt", 6, 0),
        ("generate", 4, 6),
    ]
    for row in found.rows:
        samples = row.row.samples_ns
        assert len(samples) == (2 if row.test == "prompt" else 3)
        each = row.tokens if row.test == "prompt" else 1
        assert row.rate == pytest.approx(each * len(samples) / (sum(samples) / 1e9))
    (start,) = found.starts
    assert 0 < start.load_ns < start.first_token_ns
    assert start.peak_bytes > 10 << 20
    assert start.file_bytes == sum(file.stat().st_size for file in folder.rglob("*"))


def test_what_a_process_refuses_is_told(folder: Path) -> None:
    with pytest.raises(TlkitError, match="its context has 128") as caught:
        measure_language([folder], LanguageMethod(prompts=(100,), generated=40, processes=1))
    assert caught.value.exit_code == UsageError.exit_code
