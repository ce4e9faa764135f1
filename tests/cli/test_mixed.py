"""``tlkit edit --precision auto``: the answer in text and JSON, and exit 1 where the target is missed.

Covers tlkit/cli/views/judge/mixed.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import tlkit as toolkit
from tests.cli.commands import Shell
from tests.core.precision.test_mixed import Far


def test_the_kept_operations_and_their_reasons_are_told(tlkit: Shell, tmp_path: Path) -> None:
    source, goal = tmp_path / "far.mlpackage", tmp_path / "mixed.mlpackage"
    toolkit.convert(Far(), source, inputs=["x=2x16"], precision="f32", verify=False)
    outcome = tlkit("edit", source, "--precision", "auto", "--min-snr", 45, "-o", goal)
    assert outcome.code == 0 and "2 of 6 operations" in outcome.out and "over f16's largest" in outcome.out
    outcome = tlkit("edit", source, "--keep-f32", "mul", "--min-snr", 400, "--json", "-o", tmp_path / "b.mlpackage")
    document = json.loads(outcome.out)
    assert outcome.code == 1 and not document["ok"] and 40 < document["unseen_db"] < 120
    assert {item["type"] for item in document["kept"]} == {"mul"}
    for words in (("--precision", "f64"), ("--keep-f32", "conv"), ("--samples", "x")):
        outcome = tlkit("edit", source, *words, "-o", tmp_path / "c.mlpackage")
        assert outcome.code == 2 and len(outcome.err.strip().splitlines()) == 2, outcome.err
