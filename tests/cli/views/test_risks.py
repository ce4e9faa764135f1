"""Risks on the screen and in JSON."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commands import Shell
from tests.formats import packages


def test_a_summary_tells_grave_risks_and_the_flag_lists_all_with_a_way_out(tlkit: Shell, tmp_path: Path) -> None:
    path = packages.relu(tmp_path / "open.mlpackage", (1, None), (1, 4))
    summary = tlkit("inspect", path)
    assert (summary.code, summary.err) == (0, "")
    assert "open dimensions" in summary.out and "--risks lists them" in summary.out
    listed = tlkit("inspect", path, "--risks")
    assert "C17" in listed.out and "way out: fix the shape" in listed.out
    (found,) = tlkit("inspect", path, "--json").json()["risks"]
    assert (found["row"], found["level"], found["places"]) == ("C17", "refused", ["x"])


def test_where_nothing_is_known_that_is_said(tlkit: Shell, tmp_path: Path) -> None:
    path = packages.relu(tmp_path / "fixed.mlpackage", (1, 4), (1, 4))
    assert "risks" not in tlkit("inspect", path).out
    assert "no known problems" in tlkit("inspect", path, "--risks").out
