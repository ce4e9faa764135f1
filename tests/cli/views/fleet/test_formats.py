"""How a fleet ended, read back by other programs' own readers: csv, XML, HTML, a Markdown table's lines.

Covers tlkit/cli/views/fleet/page.py, tlkit/cli/sink/formats.py.
"""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

from tests.core.rows import row, run
from tlkit.cli.language_bench import document
from tlkit.cli.views.fleet import formats
from tlkit.cli.views.fleet.page import page
from tlkit.cli.views.fleet.table import told
from tlkit.core.bench.language.measure import LanguageBench, LanguageMethod, LanguageRow
from tlkit.fleet.job import FleetJob, JobOutcome
from tlkit.fleet.run import FleetResult, FleetTally
from tlkit.words import jsonable

EVIL = '</td><script>x</script>|"=1+1\x1b[0m'


def bench(machine: str, *rows: tuple[str, int, str, list[str]]) -> dict[str, object]:
    """What `tlkit bench --json` says of rows: a unit, a median in ns, how far it is trusted, and why not further."""
    told = [
        {"label": "", "unit": unit, "summary": {"median_ns": ns}, "trust": {"level": trust, "reasons": why}}
        for unit, ns, trust, why in rows
    ]
    absent = {"label": "", "unit": "gpu", "summary": None, "trust": None, "reason": "not here"}
    return {"machine": {"cpu": machine}, "rows": [*told, absent]}


def fleet() -> FleetResult:
    jobs = [
        FleetJob("k0", "inspect", ("a",), settings={"model": "a"}),
        FleetJob("k1", "compare", ("a", "b"), settings={"model": "a", "metric": "psnr"}),
        FleetJob("k2", "convert", (), settings={"model": EVIL}),
        FleetJob("k3", "run", (), settings={"model": "a"}),
        FleetJob("k4", "run", (), settings={"model": "b"}),
        FleetJob("k5", "bench", (), settings={"model": "a", "units": "cpu,ane"}),
        FleetJob("k6", "bench", (), settings={"model": "a", "units": "all"}),
    ]
    outcomes = {
        "k0": JobOutcome(0, 0.25, {"format": "coreml"}),
        "k1": JobOutcome(1, 1.5, None, "they differ"),
        "k2": JobOutcome(4, 2.0, None, f"no such op: {EVIL}"),
        "k5": JobOutcome(0, 3.0, bench("M4", ("cpu", 2_000_000, "good", []), ("ane", 500_000, "poor", ["it drifts"]))),
        "k6": JobOutcome(0, 4.0, bench("M1", ("all", 1_000_000, "fair", ["few samples"]))),
    }
    return FleetResult(jobs, outcomes, {"k3": "ended by SIGKILL, 3 times"}, FleetTally(len(jobs)))


def test_junit_has_a_case_per_job_with_its_message() -> None:
    suite = ElementTree.fromstring(formats.junit(fleet()))
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time")}
    assert counts == {"tests": "7", "failures": "2", "errors": "1", "skipped": "1", "time": "10.7500"}
    cases = list(suite)
    assert [case.get("classname", "").removeprefix("tlkit.") for case in cases] == [job.verb for job in fleet().jobs]
    ended = [[(child.tag, child.get("message")) for child in case] for case in cases]
    assert ended[0] == ended[5] == ended[6] == []
    assert ended[1] == [("failure", "they differ")]
    assert ended[2][0][0] == "failure" and str(ended[2][0][1]).startswith("no such op: </td><script>x</script>|")
    assert ended[3] == [("error", "ended by SIGKILL, 3 times")]
    assert ended[4] == [("skipped", "not run")]
    assert [case.get("time") for case in cases] == ["0.2500", "1.5000", "2.0000", "0", "0", "3.0000", "4.0000"]
    assert cases[1].get("name") == "a, metric=psnr"


def test_csv_and_jsonl_have_a_row_per_job_and_per_measured_row() -> None:
    rows = list(csv.DictReader(io.StringIO(formats.csv(fleet()))))
    assert [row["job"] for row in rows] == ["k0", "k1", "k2", "k3", "k4", "k5", "k5", "k6"]
    assert [row["status"] for row in rows[:5]] == ["done", "no", "failed", "aside", "left"]
    assert [(row["machine"], row["unit"], row["median_ns"], row["trust"]) for row in rows[5:]] == [
        ("M4", "cpu", "2000000", "good"),
        ("M4", "ane", "500000", "poor"),
        ("M1", "all", "1000000", "fair"),
    ]
    assert [row["settings.units"] for row in rows[4:]] == ["", "cpu,ane", "cpu,ane", "all"]
    assert rows[1]["exit_code"] == "1" and rows[4]["seconds"] == "" and "\x1b" not in formats.csv(fleet())
    lines = [json.loads(line) for line in formats.jsonl(fleet()).splitlines()]
    assert [str(line.get("median_ns", "")) for line in lines] == [row["median_ns"] for row in rows]


def test_markdown_is_one_table_with_what_failed_first() -> None:
    lines = formats.md(fleet()).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 7 and len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert [re.split(r"(?<!\\)\|", line)[5].strip() for line in table[2:6]] == ["aside", "failed", "no", "left"]
    assert lines[-1] == "7 jobs: 3 done, 1 no, 1 failed, 1 aside, 1 left"
    assert "<script>" not in formats.md(fleet())


class _Tables(HTMLParser):
    """The tables of a page: rows of cells' texts; and whatever tags there are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: set[str] = set()
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.tables[-1][-1][-1] += data


def test_the_page_has_what_failed_the_matrix_and_every_job() -> None:
    text = page("zoo.toml", fleet(), Path("zoo.toml.journal"))
    found = _Tables(text)
    assert "script" not in found.tags and "it drifts" in text and "few samples" in text
    wrong, matrix, verbs, every = found.tables
    assert [row[-3] for row in wrong[1:]] == ["no", "failed", "aside", "left"]
    assert matrix[0] == ["model", "M4, cpu", "M4, ane", "M1, all"]
    assert [cell.split()[:3] for cell in matrix[1][1:]] == [
        ["2.00", "ms", "good"],
        ["500", "µs", "poor"],
        ["1.00", "ms", "fair"],
    ]
    counted = [["inspect", "1"], ["compare", "1"], ["convert", "1"], ["run", "2"], ["bench", "2"]]
    assert [row[:2] for row in verbs[1:]] == counted and len(every) == 1 + 7


def test_a_language_model_s_figures_stand_under_what_was_measured() -> None:
    """As the document of `tlkit bench model.gguf` has them: a test and its tokens in the place of a unit."""
    job = FleetJob("k", "bench", (), settings={"model": "lm"})
    method = LanguageMethod((8,), 4)
    rows = (
        LanguageRow("lm", "prompt", 8, 0, 9.0, row("cpu", 2e6)),
        LanguageRow("lm", "generate", 4, 8, 9.0, row("", 3e6)),
    )
    made = document(LanguageBench(rows, (), run(row("cpu", 1e6)).conditions, run(row("cpu", 1e6)).machine), method)
    result = FleetResult([job], {"k": JobOutcome(0, 1.0, jsonable(made))}, {}, FleetTally(1))
    found = list(csv.DictReader(io.StringIO(formats.csv(result))))
    assert [(line["row"], line["unit"]) for line in found] == [("prompt 8", "prompt 8"), ("generate 4", "generate 4")]
    assert "prompt 8 2.0" in told("bench", jsonable(made)) and "prompt 8" in page("p", result, Path("j"))


def test_what_a_job_found_is_one_figure() -> None:
    def stray(snr: float | None) -> dict[str, object]:
        return {"elements": 10, "snr_db": snr}

    check = {"passed": True, "outputs": {"a": stray(70.43), "b": stray(29.02), "same": stray(None)}}
    assert told("convert", {"verification": check, "size": 197_903}) == "SNR 29.0 dB, 198 kB"
    assert told("convert", {"outputs": ["a.safetensors"], "verification": None}) == ""
    assert told("edit", {"before": 197_903, "after": 57_997, "check": check}) == "SNR 29.0 dB, 58 kB"
    assert told("compare", {"outputs": [{"difference": stray(31.5)}, {"difference": stray(28.67)}]}) == "SNR 28.7 dB"
    outputs = [{"name": "y", "shape": [1, 10], "mean": -0.0139823, "label": None}, {"name": "kind", "label": "cat"}]
    assert told("run", {"outputs": outputs}) == "y 1x10 mean -0.01398, kind cat"
    assert told("run", None) == ""
