"""``tlkit edit`` on the command line: what it says in both modes, and its exit codes."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commands import Shell
from tests.formats import packages


def test_it_says_what_it_changed_and_that_it_checked(tlkit: Shell, tmp_path: Path) -> None:
    net, new = packages.linear(tmp_path / "net.mlpackage"), tmp_path / "new.mlpackage"
    outcome = tlkit("edit", net, "--rename", "x=features", "--output-dtype", "y=f16", "--metadata", "k=v", "-o", new)
    assert (outcome.code, outcome.err) == (0, "")
    for line in ("input x → features", "output y: float32 1x3 → float16 1x3", "metadata k: v", "bit for bit"):
        assert line in outcome.out
    assert new.is_dir()


def test_json_holds_the_same(tlkit: Shell, tmp_path: Path) -> None:
    net = packages.linear(tmp_path / "net.mlpackage")
    outcome = tlkit("edit", net, "--rename", "x=a", "--spec-version", "9", "-o", tmp_path / "new.mlpackage", "--json")
    document = outcome.json()
    assert document["ok"] is True and document["check"] == {"passed": True, "max_abs": 0.0, "reasons": []}
    assert document["changes"] == ["input x → a", "specification version 8 → 9"]
    assert document["info"]["spec_version"] == 9


def test_errors_have_their_codes(tlkit: Shell, tmp_path: Path) -> None:
    net, new = packages.linear(tmp_path / "net.mlpackage"), tmp_path / "new.mlpackage"
    assert tlkit("edit", net, "-o", new).code == 2
    assert tlkit("edit", net, "--rename", "q=r", "-o", new).code == 2
    assert tlkit("edit", tmp_path / "nothing.mlpackage", "--author", "A", "-o", new).code == 3
    assert not new.exists()
