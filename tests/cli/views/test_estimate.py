"""``tlkit bench --estimate`` as people and programs see it. Covers tlkit/core/bench/estimate.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.commands import Shell
from tests.cli.views.test_placement import TEXT


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.mil"
    path.write_text(TEXT)
    return path


def test_without_a_model_it_is_resnet_50_on_three_units(tlkit: Shell) -> None:
    done = tlkit("bench", "--estimate", "--chip", "m4")
    assert done.code == 0
    told = " ".join(done.out.split())
    assert "resnet50, 4.09 GMACs" in told and "for M4: nothing here is measured" in told
    assert set(re.findall(r"est\. (latency|power|energy)", done.out)) == {"latency", "power", "energy"}
    assert "Neural Engine 122/122" in told and "CPU 122/122" in told and "n/a" in told


def test_json_has_its_own_key_and_no_measured_one(tlkit: Shell, model: Path) -> None:
    document = tlkit("bench", model, "--estimate", "--units", "ane,cpu", "--chip", "a16", "--json").json()
    assert set(document) - {"schema_version", "command", "tlkit"} == {"estimates"}
    found = document["estimates"]
    assert (found["kind"], found["chip"], [row["setting"] for row in found["rows"]]) == (
        "estimate",
        "A16",
        ["ane", "cpu"],
    )
    mixed, cpu = found["rows"]
    assert mixed["counts"] == {"ane": 1, "gpu": 0, "cpu": 1} and mixed["millijoules"] is None
    assert cpu["latency"]["low"] < cpu["latency"]["milliseconds"] < cpu["latency"]["high"]
    assert cpu["latency"]["milliseconds"] > mixed["latency"]["milliseconds"]


def test_energy_is_power_for_the_time(tlkit: Shell) -> None:
    (row,) = tlkit("bench", "--estimate", "--units", "ane", "--json").json()["estimates"]["rows"]
    assert row["millijoules"] == pytest.approx(row["power"]["watts"] * row["latency"]["milliseconds"])
    assert row["per_joule"] == pytest.approx(1e3 / row["millijoules"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--estimate", "--chip", "m99"), "unknown chip 'm99'"),
        (("--estimate", "--units", "tpu"), "unknown unit 'tpu'"),
        (("--estimate", "--chip", "a10"), "the A10 has no Neural Engine for apps"),
        (("--chip", "m4"), "--chip goes with --estimate"),
        (("no-such-model", "--estimate"), "--estimate reads MIL programs"),
        (("a", "b", "--estimate"), "--estimate takes one model"),
    ],
)
def test_wrong_words_are_told(tlkit: Shell, words: tuple[str, ...], message: str) -> None:
    done = tlkit("bench", *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
