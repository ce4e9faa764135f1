"""``tlkit run --labels``: the answer in text and JSON, the exit code, and what does not go with it.

Covers tlkit/cli/accuracy.py, tlkit/cli/options/accuracy.py, tlkit/cli/views/judge/accuracy.py.
"""

from __future__ import annotations

from pathlib import Path

from tests.cli.commands import Shell
from tests.core.accuracy.test_accuracy import pictures
from tests.formats import packages


def test_text_and_json_say_the_same(tlkit: Shell, tmp_path: Path) -> None:
    model = packages.classifier(tmp_path / "classifier.mlpackage")
    folder, _ = pictures(tmp_path / "samples")
    outcome = tlkit("run", model, "--labels", folder, "--calibration", "--top", 2)
    assert outcome.code == 0 and "66.67% (8 of 12" in outcome.out and "ECE" in outcome.out
    document = tlkit("run", model, "--labels", folder, "--calibration", "--json").json()
    assert (document["samples"], document["right"], document["ok"]) == (12, 8, True)
    assert f"ECE {document['calibration']['ece']:.4f}" in outcome.out
    assert all(item["sample"] in outcome.out for item in document["worst"][:2])
    assert document["worst"][2]["sample"] not in outcome.out
    outcome = tlkit("run", model, "--labels", folder, "--min-top1", 0.9)
    assert outcome.code == 1 and "under the 90.00% asked for" in outcome.out


def test_an_emulated_unit_is_named_with_what_it_rests_on(tlkit: Shell, tmp_path: Path) -> None:
    model = packages.classifier(tmp_path / "classifier.mlpackage")
    folder, _ = pictures(tmp_path / "samples", 3)
    (note,) = tlkit("run", model, "--labels", folder, "--emulate", "ane", "--json").json()["notes"]
    assert note.startswith("ane: ") and "emulat" in note and "the Neural Engine of an M4" in note
    assert tlkit("run", model, "--labels", folder, "--json").json()["notes"] == []


def test_what_does_not_go_together_is_refused(tlkit: Shell, tmp_path: Path) -> None:
    model = packages.classifier(tmp_path / "classifier.mlpackage")
    folder, _ = pictures(tmp_path / "samples", 3)
    for words in (
        ("--calibration",),
        ("--labels", folder, "--until", "mul"),
        ("--labels", tmp_path / "nothing"),
        ("--labels", folder, "--min-top1", 95),
    ):
        outcome = tlkit("run", model, *words)
        assert outcome.code in (2, 3) and len(outcome.err.strip().splitlines()) == 2, outcome.err
