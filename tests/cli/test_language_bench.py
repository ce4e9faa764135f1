"""``tlkit bench`` on language models: the document, the table, and the options that have no effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import Shell
from tests.formats.gguf.model.folders import build


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--gen", 1), "at least 2 tokens"),
        (("--prompt-tokens", "8", "--units", "cpu,gpu"), "on one at a time"),
        (("--prompt-tokens", "8", "--engine", "compile"), "not for language models"),
        (("--prompt-tokens", "0"), "from 1 on"),
    ],
)
def test_what_makes_no_sense_is_refused(tlkit: Shell, words: tuple[str | int, ...], said: str) -> None:
    outcome = tlkit("bench", "model.gguf", *words)
    assert (outcome.code, said in outcome.err) == (2, True)


@pytest.mark.slow
def test_the_table_and_the_document(tlkit: Shell, tmp_path: Path) -> None:
    model = build(tmp_path / "folder", "qwen2")
    words = ("bench", model, "--prompt-tokens", "4", "--gen", 3, "--processes", 2, "-n", 2)
    found = tlkit(*words, "--json").json()
    assert [(row["test"], row["tokens"], len(row["samples_ns"])) for row in found["rows"]] == [
        ("prompt", 4, 2),
        ("generate", 3, 4),
    ]
    assert found["rows"][0]["trust"]["level"] in ("good", "fair", "poor")
    shown = tlkit(*words).out
    assert "generate 3 after 4" in shown
    assert "trust in folder prompt 4" in shown
