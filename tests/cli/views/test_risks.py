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


def test_an_input_shows_what_values_do_with_their_ranges(tlkit: Shell, tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    done = tlkit("inspect", path, "--risks", "--input", "x=[[1e4,1e4,1e4,1e4]]")
    told = " ".join(done.out.split())
    assert done.code == 0 and "measured: result of z from 7500 to 4.749e+04" in told, done.out
    assert "way out: tlkit edit net.mlpackage --mend-risks: scaled by 2^-" in told
    refused = tlkit("inspect", path, "--input", "x=zeros")
    assert refused.code == 2 and "--input goes with --risks" in refused.err
