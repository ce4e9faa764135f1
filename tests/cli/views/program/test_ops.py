"""The table of operations: every figure of the JSON is in it, at every width."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import Shell
from tests.formats import packages
from tlkit.cli.views.program import ops as view


def test_each_operation_is_a_line_with_its_costs(tlkit: Shell, tmp_path: Path) -> None:
    path = packages.classifier(tmp_path / "net.mlpackage")
    outcome = tlkit("inspect", path, "--ops")
    assert (outcome.code, outcome.err) == (0, "")
    lines = {line.split()[0]: line.split() for line in outcome.out.splitlines() if line.strip()}
    assert lines["z"][1:] == ["linear", "1x4", "->", "1x3", "f16", "12", lines["z"][-2], "B"]
    assert "7 operations: 12 MACs" in outcome.out and "matrix" not in outcome.out
    document = tlkit("inspect", path, "--json").json()
    (linear,) = (op for op in document["costs"]["per_op"] if op["type"] == "linear")
    assert linear["macs"] == 12 and str(linear["alive_bytes"]) == lines["z"][-2]
    assert document["costs"]["activations"]["peak_bytes"] == max(
        op["alive_bytes"] for op in document["costs"]["per_op"]
    )


def test_patterns_and_modules_choose(tlkit: Shell, tmp_path: Path) -> None:
    path = packages.classifier(tmp_path / "net.mlpackage")
    outcome = tlkit("inspect", path, "--ops", "soft*", "linear_0")
    names = [line.split()[0] for line in outcome.out.splitlines() if " -> " in line and "operation" not in line]
    assert names == ["z", "p"] and "2 of 7 operations" in outcome.out
    missed = tlkit("inspect", path, "--ops", "sotfmax")
    assert missed.code == 2 and "nearest: softmax" in missed.err
    assert "no module recorded" in tlkit("inspect", path, "--ops", "--depth", 1).out


def test_the_program_s_text_is_there_as_mil(tlkit: Shell, tmp_path: Path) -> None:
    outcome = tlkit("inspect", packages.classifier(tmp_path / "net.mlpackage"), "--mil")
    assert outcome.code == 0 and outcome.out.startswith("program(")


def test_a_large_graph_says_what_it_shows(tlkit: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "SHOWN", 3)
    outcome = tlkit("inspect", packages.classifier(tmp_path / "net.mlpackage"), "--ops")
    assert "4 more of 7 operations" in outcome.out
