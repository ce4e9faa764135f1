"""``tlkit convert net.mlpackage -o net.pt2``: what it says in both modes, and its exit codes."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commands import Shell
from tests.formats import packages


def test_it_says_what_it_made_and_that_it_checked(tlkit: Shell, tmp_path: Path) -> None:
    net, new = packages.classifier(tmp_path / "net.mlpackage"), tmp_path / "net.pt2"
    outcome = tlkit("convert", net, "-o", new)
    assert outcome.code == 0 and new.is_file()
    assert "torch.export, f32 arithmetic rounded to f16" in outcome.out and "gives what the model gives" in outcome.out
    assert "note: the label is the index" in outcome.err


def test_json_holds_the_same(tlkit: Shell, tmp_path: Path) -> None:
    net = packages.accumulator(tmp_path / "net.mlpackage")
    words = ("--function", "second", "--precision", "f32", "--json")
    document = tlkit("convert", net, "-o", tmp_path / "net.pt2", *words).json()
    assert document["ok"] is True and document["precision"] == "f32" and document["format"] == "torch.export"
    assert document["verification"]["outputs"]["y"]["max_abs"] == 0.0
    assert document["operations"]["aten.add.Tensor"] == 1


def test_options_of_packages_are_refused(tlkit: Shell, tmp_path: Path) -> None:
    net, new = packages.linear(tmp_path / "net.mlpackage"), tmp_path / "net.onnx"
    for words in (("--input", "x=1x4"), ("--target", "iOS17"), ("--dtype", "f16"), ("--function", "a=b")):
        outcome = tlkit("convert", net, "-o", new, *words)
        assert (outcome.code, outcome.out) == (2, "") and words[0] in outcome.err
    assert tlkit("convert", "net.py:Net", "-o", new).code == 3
    assert not new.exists()
