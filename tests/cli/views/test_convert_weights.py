"""``tlkit convert`` to files of weights: what it says in both modes, its flags and exit codes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.cli.commands import Shell
from tlkit.core.convert.door import WEIGHTS
from tlkit.core.weights.plan import FORMATS


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tensors = {"w": np.full((4, 32), 1e5, np.float32), "b": np.zeros(3, np.float32)}
    save_file(tensors, tmp_path / "a.safetensors", {"k": "v"})
    return tmp_path / "a.safetensors"


def test_the_endings_are_those_that_can_be_written() -> None:
    assert tuple(FORMATS) == WEIGHTS


def test_it_says_what_it_made_and_what_was_lost(tlkit: Shell, source: Path, tmp_path: Path) -> None:
    outcome = tlkit("convert", source, "-o", tmp_path / "b.pth", "--dtype", "f16")
    assert outcome.code == 0
    assert "warning: 1 metadata entries are left out" in outcome.err
    for words in (
        "PyTorch: 2 tensors (2 F16), 131 parameters",
        "2 from F32 to F16",
        "128 values finite and now infinite",
    ):
        assert words in outcome.out


def test_json_holds_the_same(tlkit: Shell, source: Path, tmp_path: Path) -> None:
    words = ("--quantize", "q8_0", "--metadata", "k=", "--metadata", "general.name=net", "--names", "keep")
    document = tlkit("convert", source, "-o", tmp_path / "b.gguf", *words, "--json").json()
    assert document["types"] == {"Q8_0": 1, "F32": 1}
    assert document["changed"] == [{"from": "F32", "to": "Q8_0", "tensors": 1}]
    assert (document["format"], document["lost"], document["parameters"]) == ("GGUF", {}, 131)
    shown = tlkit("inspect", tmp_path / "b.gguf", "--json").json()
    assert shown["weights"] == {"Q8_0": 128, "F32": 3}


def test_shards(tlkit: Shell, source: Path, tmp_path: Path) -> None:
    outcome = tlkit("convert", source, "-o", tmp_path / "b.safetensors", "--max-shard-size", "512")
    assert outcome.code == 0 and "in 3 files" in outcome.out
    shards = [load_file(tmp_path / f"b-0000{index}-of-00002.safetensors").keys() for index in (1, 2)]
    assert sorted(map(list, shards)) == [["b"], ["w"]]


def test_errors_have_their_codes_and_leave_nothing(tlkit: Shell, source: Path, tmp_path: Path) -> None:
    assert tlkit("convert", source, "-o", source).code == 2
    assert tlkit("convert", source, "-o", tmp_path / "b.pth", "--quantize", "q8_0").code == 2
    assert tlkit("convert", source, "-o", tmp_path / "b.mlpackage", "--dtype", "f16").code == 2
    assert tlkit("convert", tmp_path / "nothing.gguf", "-o", tmp_path / "b.pth").code == 3
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_quiet_is_quiet(tlkit: Shell, source: Path, tmp_path: Path) -> None:
    assert tlkit("convert", source, "-o", tmp_path / "b.safetensors", "-q").err == ""
