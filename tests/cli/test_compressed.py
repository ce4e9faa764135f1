"""Compression by ``tlkit edit``: sizes, limits as exit codes, mistakes in two lines.

Covers tlkit/cli/views/judge/compressed.py, tlkit/core/compress/door.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tlkit as toolkit
from tests.cli.commands import Shell
from tests.core.compress.test_compress import Small


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.mlpackage"
    toolkit.convert(Small(), path, inputs=["x=1x3x12x12"], verify=False)
    return path


def test_a_limit_that_is_missed_is_exit_1_and_sizes_are_told(tlkit: Shell, package: Path, tmp_path: Path) -> None:
    goal = tmp_path / "one.mlpackage"
    outcome = tlkit("edit", package, "--palettize", 1, "--min-snr", 40, "-o", goal)
    assert outcome.code == 1 and "OUTSIDE the limits" in outcome.out and goal.is_dir()
    outcome = tlkit("edit", package, "--quantize", "int8", "--json", "-o", tmp_path / "int8.mlpackage")
    document = json.loads(outcome.out)
    assert outcome.code == 0 and document["after"] < 0.7 * document["before"]
    assert sum(item["before"] for item in document["weights"]) == 2 * (64 * 27 + 64 * 128 + 128 * 128)
    for words in (("--quantize", "int5"), ("--palettize", "5"), ("--prune", "1.5"), ("--rule", "x"), ("--skip", "x")):
        outcome = tlkit("edit", package, *words, "-o", tmp_path / "x.mlpackage")
        assert outcome.code == 2 and len(outcome.err.strip().splitlines()) == 2, outcome.err
    outcome = tlkit("edit", package, "--quantize", "int8", "--rename", "x=y", "-o", tmp_path / "x.mlpackage")
    assert outcome.code == 2 and "two edits" in outcome.err
