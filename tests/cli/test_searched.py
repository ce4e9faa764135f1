"""``tlkit edit --compress auto``: the answer in text and JSON, the page, and exit 1 where the target is missed.

Covers tlkit/cli/options/compress.py, tlkit/cli/sink/page.py, tlkit/cli/views/judge/parts.py,
tlkit/cli/views/judge/searched.py.
"""

from __future__ import annotations

from pathlib import Path

import tlkit as toolkit
from tests.cli.commands import Shell
from tests.core.compress.test_auto import Uneven


def test_the_frontier_is_told_and_drawn(tlkit: Shell, tmp_path: Path) -> None:
    source, goal, page = tmp_path / "net.mlpackage", tmp_path / "small.mlpackage", tmp_path / "page.html"
    toolkit.convert(Uneven(), source, inputs=["x=4x64"], verify=False)
    words = ("edit", source, "--compress", "auto", "--min-snr", 30)
    outcome = tlkit(*words, "--report", page, "--json", "-o", goal)
    document = outcome.json()
    assert outcome.code == 0 and document["ok"] and document["best"]["unseen_db"] >= 30 and goal.is_dir()
    assert {point["uniform"] for point in document["frontier"]} >= {"", "int8", "palette4"}
    text = page.read_text()
    assert "<polyline" in text and text.count("<circle") == len(document["frontier"]) and "chosen" in text
    assert all(row["weight"] in text for row in document["sensitivity"])
    outcome = tlkit("edit", source, "--compress", "auto", "--max-size", "1kB", "-o", tmp_path / "none.mlpackage")
    assert outcome.code == 1 and "nothing is written" in outcome.out and "MISSED" in outcome.out
    for more in (("--report", page), ("--compress", "all"), ("--compress", "auto", "--no-verify"), ("--jobs", 2)):
        outcome = tlkit("edit", source, *more, "-o", tmp_path / "none.mlpackage")
        assert outcome.code == 2 and len(outcome.err.strip().splitlines()) == 2, outcome.err
    assert not (tmp_path / "none.mlpackage").exists()


def test_convert_tells_what_was_done_to_its_package(tlkit: Shell, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from tests.core.compress.test_auto import Uneven\n")
    words = ("convert", f"{tmp_path}/net.py:Uneven", "--input", "x=4x64", "-o", tmp_path / "a.mlpackage")
    outcome = tlkit(*words, "--quantize", "int8", "--skip", "*one*")
    assert outcome.code == 0 and "agrees with its source" in outcome.out and "within the limits" in outcome.out
    outcome = tlkit(*words, "--force", "--prune", 0.9, "--min-snr", 90, "--json")
    document = outcome.json()
    assert outcome.code == 1 and document["verification"]["passed"] and not document["ok"]
    assert document["parts"][0]["check"]["passed"] is False and document["parts"][0]["limits"] == "SNR 90"
