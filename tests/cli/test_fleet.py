"""`tlkit fleet` as it is typed: plans of real commands on real models.

Covers tlkit/cli/job.py, tlkit/cli/many/check.py, tlkit/cli/views/fleet/table.py.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.commands import Shell
from tests.formats import packages
from tlkit.fleet.journal import of_kind, read
from tlkit.fleet.schema import PLAN

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")

ZOO = """
[[model]]
path = "zoo/*.mlpackage"
[[job]]
verb = "inspect"
[[job]]
verb = "run"
matrix = { seed = [0, 1] }
"""


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    (tmp_path / "zoo").mkdir()
    for name in ("one", "two"):
        packages.linear(tmp_path / "zoo" / f"{name}.mlpackage")
    (tmp_path / "zoo" / "damaged.mlpackage").mkdir()
    (tmp_path / "zoo.toml").write_text(ZOO)
    return tmp_path / "zoo.toml"


def test_a_plan_is_run_shown_and_gone_on_with(tlkit: Shell, zoo: Path) -> None:
    dry = tlkit("fleet", zoo, "--dry-run")
    assert dry.code == 0 and "9 jobs" in dry.out and not (zoo.parent / "zoo.toml.journal").exists()
    goal = zoo.parent / "zoo.html"
    first = tlkit("fleet", zoo, "--jobs", "2", "--report", goal, "--quiet")
    assert (first.code, first.err) == (4, "")
    assert "9 jobs: 6 done, 3 failed; journal:" in first.out and "damaged.mlpackage" in first.out
    again = tlkit("fleet", zoo)
    assert again.code == 2 and "exists already" in again.err and "--resume" in again.err
    resumed = tlkit("fleet", zoo, "--resume", "--json")
    document = resumed.json()
    assert (resumed.code, document["from_before"], document["counts"]["done"]) == (4, 9, 6)
    jobs = {(job["verb"], *job["settings"].values()): job for job in document["jobs"]}
    whole = tlkit("inspect", zoo.parent / "zoo" / "one.mlpackage", "--json").json()
    assert jobs["inspect", "one"]["answer"] == whole
    assert jobs["run", "one", "0"]["answer"] != jobs["run", "one", "1"]["answer"]
    assert jobs["inspect", "damaged"]["exit_code"] == 3 and "damaged" in jobs["inspect", "damaged"]["error"]
    _formats_tell_the_same(tlkit, zoo, [job["status"] for job in document["jobs"]])
    assert "damaged.mlpackage" in goal.read_text() and "6 done, 3 failed" in goal.read_text()
    refused = tlkit("fleet", zoo, "--resume", "--report", goal)
    assert refused.code == 2 and "exists already" in refused.err
    assert len(list(of_kind(zoo.parent / "zoo.toml.journal", "done"))) == 9


def _formats_tell_the_same(tlkit: Shell, zoo: Path, statuses: list[str]) -> None:
    """Whether the fleet that has ended is told as other programs read it."""
    cases = list(ElementTree.fromstring(tlkit("fleet", zoo, "--resume", "--format", "junit").out))
    assert [bool(len(case)) for case in cases] == [status == "failed" for status in statuses]
    assert all("damaged" in case[0].get("message", "") for case in cases if len(case))
    rows = csv.DictReader(io.StringIO(tlkit("fleet", zoo, "--resume", "--format", "csv").out))
    assert [row["status"] for row in rows] == statuses
    assert tlkit("fleet", zoo, "--resume", "--format", "md").out.count("| failed |") == 3
    assert tlkit("fleet", zoo, "--resume", "--format", "xml").code == 2


def test_mistakes_are_one_line_before_anything_starts(tlkit: Shell, zoo: Path) -> None:
    for words, said in (
        ((), "name a plan"),
        ((zoo.parent / "no.toml",), "no.toml"),
        ((zoo, "--resume"), "there is no such journal"),
        ((zoo, "--cluster", "127.0.0.1:1"), "Ray"),
        ((zoo, "--journal", zoo.parent), "already"),
    ):
        outcome = tlkit("fleet", *words)
        assert outcome.code in (2, 3) and said in outcome.err
        assert [line[:2] == "  " for line in outcome.err.splitlines()] == [False, True]
        assert not (zoo.parent / "zoo.toml.journal").exists()


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"verb": "run", "options": {"sed": 1}}, "run has no option --sed; --seed is one"),
        ({"verb": "run", "matrix": {"seed": [1, "two"]}}, "run --seed: 'two' is not"),
        ({"verb": "bench", "options": {"iterations": 0}}, "bench --iterations: 0 is not in the range"),
        ({"verb": "inspect", "arguments": ["{model}", "--tensor"]}, "inspect has no option --tensor; --tensors is one"),
        ({"verb": "inspect", "arguments": ["{model}", "--depth"]}, "inspect --depth: "),  # --json is not a depth
        (
            {"verb": "bench", "matrix": {"units": ["cpu", "nep"]}},
            "bench --units: unknown unit 'nep'; units are all, cpu",
        ),
        ({"verb": "run", "options": {"engine": "opnvino"}}, "run --engine: 'opnvino' is not one of auto, eager"),
        ({"verb": "edit", "options": {"target": "iOS99"}}, "edit --target: unknown target 'iOS99'; targets are"),
        ({"verb": "inspect", "options": {"chip": "m99"}}, "inspect --chip: unknown chip 'm99'; chips are"),
        ({"verb": "compare", "options": {"precision": "f16,f23"}}, "compare --precision: 'f23' is not one of f16, f32"),
        ({"verb": "inspect", "option": {}}, "there is no such key; 'options' is one"),
    ],
)
def test_a_command_s_typo_is_told_before_any_job_starts(
    tlkit: Shell, zoo: Path, job: dict[str, object], said: str
) -> None:
    plan = zoo.with_suffix(".json")
    plan.write_text(json.dumps({"model": [{"path": "zoo/one.mlpackage"}], "job": [{"verb": "inspect"}, job]}))
    outcome = tlkit("fleet", plan, "--jobs", "1")
    assert outcome.code == 2 and said in outcome.err and len(outcome.err.splitlines()) == 2
    assert not plan.with_name("zoo.json.journal").exists()


def test_options_that_commands_take_pass(tlkit: Shell, zoo: Path) -> None:
    jobs = [
        {
            "verb": "bench",
            "options": {
                "n": 3,
                "units": "all,cpu_and_ne",
                "per_op": True,
                "no-cache": True,
                "input": ["x=zeros", "x=random"],
            },
        },
        {
            "verb": "run",
            "options": {"seed": 0, "precision": "f32", "chip": "M4 Pro"},
            "arguments": ["{model}", "--input=x=zeros", "-vv"],
        },
        {
            "verb": "compare",
            "arguments": ["{model}", "zoo/two.mlpackage"],
            "options": {"min-cosine": 0.9, "precision": "f16,f32"},
        },
    ]
    plan = zoo.with_suffix(".json")
    plan.write_text(json.dumps({"model": [{"path": "zoo/one.mlpackage"}], "job": jobs}))
    outcome = tlkit("fleet", plan, "--dry-run", "--json")
    assert outcome.code == 0 and len(outcome.json()["jobs"]) == 3, outcome.err


def test_the_plan_that_the_page_shows_is_one(tlkit: Shell, root: Path, tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (root / "docs" / "fleet.md").read_text(), re.DOTALL)
    for folder in ("out", "zoo/resnet18.mlpackage", "zoo/vit.mlpackage"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "net.py").write_text("")
    (tmp_path / "zoo.toml").write_text(text)
    jobs = tlkit("fleet", tmp_path / "zoo.toml", "--dry-run", "--json").json()["jobs"]
    assert [job["command"][1] for job in jobs] == ["bench"] * 4 + ["convert"] * 2


def test_the_schema_is_what_plans_are_checked_with(tlkit: Shell) -> None:
    assert json.loads(tlkit("fleet", "--schema").out) == PLAN


@pytest.mark.slow
def test_an_interrupt_leaves_a_journal_to_go_on_with(zoo: Path) -> None:
    zoo.write_text(ZOO.replace("[0, 1]", str(list(range(40)))))
    command = [sys.executable, "-m", "tlkit", "fleet", str(zoo), "--jobs", "2"]
    head = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    place = zoo.parent / "zoo.toml.journal"
    while not place.exists() or len(list(of_kind(place, "done"))) < 5:
        assert head.poll() is None
        time.sleep(0.02)
    head.send_signal(signal.SIGINT)
    _, said = head.communicate(timeout=60)
    assert head.returncode == 130 and "--resume" in said
    before = set(read(place).done)
    assert subprocess.run([*command, "--resume"], check=False, capture_output=True).returncode == 4
    past = read(place)
    assert before < set(past.done) and past.twice == 0 and len(past.done) == 123


@pytest.mark.slow
def test_what_a_plan_measures_is_in_its_page_and_its_table(tlkit: Shell, tmp_path: Path) -> None:
    packages.linear(tmp_path / "net.mlpackage")
    plan = {
        "model": [{"path": "net.mlpackage"}],
        "job": [
            {
                "verb": "bench",
                "options": {"iterations": 5, "warmup": 0, "processes": 1, "engine": "eager"},
                "matrix": {"units": ["cpu"], "precision": ["f16", "f32"]},
            }
        ],
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    page = tmp_path / "page.html"
    assert tlkit("fleet", tmp_path / "plan.json", "--report", page, "--quiet").code == 0
    assert "net, precision=f32" in page.read_text()
    document = tlkit("fleet", tmp_path / "plan.json", "--resume", "--json").json()
    medians = [str(job["answer"]["rows"][0]["summary"]["median_ns"]) for job in document["jobs"]]
    rows = list(csv.DictReader(io.StringIO(tlkit("fleet", tmp_path / "plan.json", "--resume", "--format", "csv").out)))
    assert [(row["row"], row["unit"], row["median_ns"]) for row in rows] == [("cpu", "cpu", found) for found in medians]
    assert {row["trust"] for row in rows} <= {"good", "fair", "poor"} and rows[0]["machine"]
