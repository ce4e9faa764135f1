"""Made-up runs, shown: tables, documents for other programs, and the page.

Covers tlkit/cli/views/bench/formats.py, tlkit/cli/views/bench/report.py, tlkit/cli/views/bench/sections.py,
tlkit/cli/views/bench/table.py, tlkit/cli/views/svg.py.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from tests.cli.commands import Shell
from tests.core.rows import row, run
from tlkit.cli.sink import figures as _figures
from tlkit.cli.sink.console import PlainConsole
from tlkit.cli.views import svg as _svg
from tlkit.cli.views.bench import formats as bench_formats
from tlkit.cli.views.bench.report import page
from tlkit.cli.views.bench.table import render
from tlkit.core.bench.bench import BenchResult
from tlkit.core.bench.gate import Check
from tlkit.core.bench.rows import OpCost, Placement, Row
from tlkit.core.bench.trust import judge
from tlkit.host.power import Energy

PLAN = Placement(
    "MLComputePlan",
    {"ane": 3, "cpu": 40},
    {"ane": 0.2, "cpu": 0.8},
    (OpCost("<b>y</b>", "conv", "cpu", 0.8), OpCost("z", "pool", "ane", 0.2)),
)
ENERGY = {"cpu": Energy(2, 100, {"cpu": 30.0}, {"cpu": 10.0}, 50.0, 20.0)}
CPU = row("cpu", 4e6, energy=ENERGY["cpu"])
ANE = row("ane", 1e6, seed=1, placement=PLAN, energy=Energy(2, 100, {"cpu": 12.0}, {"cpu": 10.0}, 5.0, 200.0))
GONE = Row("gpu", "failed", "killed by SIGKILL")
RUN = run(CPU, ANE, GONE, power_channels=("cpu",))


def text(result: BenchResult, others: Sequence[BenchResult] = (), checks: Sequence[Check] = ()) -> str:
    stream = io.StringIO()
    PlainConsole(stream).print(render(result, others, checks))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def test_the_table_says_all() -> None:
    shown = text(RUN, checks=[Check("cpu", "latency", False, "median 4 ms, over 3 ms")])
    assert re.search(r"ane over cpu: (3\.9|4\.0)\dx \(95% interval 3\.9\d to 4\.0\d\), faster", shown)
    assert "warning: ane: only 20 % of the cost is planned for the Neural Engine, most for the cpu" in shown
    assert re.search(r"^ane +12\.0 +10\.0 +5\.00 +200 +10x$", shown, re.MULTILINE)
    assert re.search(r"^gpu +n/a +n/a +n/a +n/a +n/a$", shown, re.MULTILINE)
    assert "gpu failed: killed by SIGKILL" in shown
    assert "FAIL latency of cpu: median 4 ms, over 3 ms" in shown


def test_no_time_is_shown_as_nothing() -> None:
    """A median of seconds beside a minimum of microseconds: the column's unit follows the median."""
    assert _figures.number(250.0, 1e6) == "0.000250"
    assert (_figures.number(0.0), _figures.number(None)) == ("0", "-")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.5, "1.50 ns"), (999.0, "999 ns"), (15_320.0, "15.3 µs"), (2e9, "2.00 s"), (98765e6, "98.8 s")],
)
def test_times_have_three_figures(value: float, shown: str) -> None:
    assert _figures.time(value) == shown


def test_saved_runs_are_compared_row_by_row() -> None:
    shown = text(run(CPU), [run(row("cpu", 2e6, seed=4))])
    assert re.search(r"Against the first run\ncpu over cpu: (1\.9|2\.0)\dx .*, faster", shown)


def test_the_document_has_the_gain_that_the_table_shows() -> None:
    assert bench_formats.document(RUN, [], ())["efficiency_over_cpu"] == {"cpu": 1.0, "ane": 10.0}


def test_csv_has_every_row_and_leaves_gaps_empty() -> None:
    rows = list(csv.DictReader(io.StringIO(bench_formats.csv(RUN, [], []))))
    assert [found["row"] for found in rows] == ["cpu", "ane", "gpu"]
    assert rows[1]["efficiency_over_cpu"] == "10.0"
    assert rows[2]["median_ns"] == rows[2]["watts_cpu"] == "" and rows[2]["status"] == "failed"


def test_csv_has_one_figure_a_cell_and_jsonl_one_row_a_line() -> None:
    rows = list(csv.DictReader(io.StringIO(bench_formats.csv(RUN, [], []))))
    told = [json.loads(line) for line in bench_formats.jsonl(RUN, [], []).splitlines()]
    assert [record["row"] for record in told] == [found["row"] for found in rows]
    for record, found in zip(told, rows, strict=True):
        for key, value in record.items():
            if isinstance(value, float):
                assert float(found[key]) == value
    assert float(rows[1]["watts_cpu"]) == 12.0
    summary = RUN.rows[0].summary
    assert summary is not None and float(rows[0]["p95_ns"]) == summary.percentiles_ns["p95"]


def test_junit_tells_failures_from_errors() -> None:
    checks = [Check("cpu", "latency", False, "over"), Check("ane", "regression", None, "no such row")]
    suite = ElementTree.fromstring(bench_formats.junit(RUN, [], checks))
    assert [suite.attrib[key] for key in ("tests", "errors", "failures", "skipped")] == ["5", "1", "1", "1"]
    assert suite.find("testcase[@classname='tlkit.bench.latency']/failure").attrib["message"] == "over"


def test_markdown_is_a_table() -> None:
    lines = bench_formats.md(RUN, [], [Check("cpu", "memory", True, "within")]).splitlines()
    widths = {line.count("|") for line in lines[:5]}
    assert len(widths) == 1
    assert "| memory | cpu | pass | within |" in lines


EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "[a](javascript:alert(1))",
    "![a](http://x.example/a.png)",
    "`a` *b* _c_ ~d~ | e \\",
    "@everyone see http://x.example and www.x.example",
    '=HYPERLINK("http://x.example")',
    "+1",
    "-2+3",
    "@SUM(1)",
    " =1+1",
    "\t=1",
    "a\nb",
    "\x1b]0;title\x07",
    "\x9b31m",
    "a\u202eb\u2066c\u2069",
    "\ufffe\uffff",
    "\udc80",
    "]]>&amp;<!--",
)
"""Names that do something to a terminal, a browser, a spreadsheet or a pull request."""


def evil() -> BenchResult:
    """A run with each name in a row, as a reason, as a model and as a device."""
    rows = [replace(row(name, 1e6), model=name, device=name) for name in EVIL]
    failed = [Row(f"failed {at}", "failed", name) for at, name in enumerate(EVIL)]
    return run(*rows, *failed)


CHECKS = [Check(name, "latency", False, name) for name in EVIL]


def test_markdown_shows_names_and_obeys_none() -> None:
    made = bench_formats.md(evil(), [evil()], CHECKS)
    table = [line for line in made.splitlines() if line.startswith("| ") and not line.startswith("| check")]
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table[: 2 * len(EVIL)]}) == 1
    plain = re.sub(r"\\.", "", made)  # without what a backslash makes literal
    for mark in ("<", ">", "`", "[", "]", "~", "@", "://", "www."):
        assert mark not in plain.replace("**fail**", "").replace("|---|", ""), mark
    assert "\\*b\\*" in made and "&lt;script&gt;" in made


def test_junit_and_the_page_are_sound_whatever_the_names() -> None:
    suite = ElementTree.fromstring(bench_formats.junit(evil(), [], CHECKS))
    assert len(suite) == 3 * len(EVIL)
    html = page(evil())
    parser = Balanced()
    parser.feed(html)
    assert not parser.open
    assert "<script" not in html and "<img" not in html
    for text in (html, bench_formats.junit(evil(), [], CHECKS)):
        text.encode("utf-8")
        assert not set(text) & set("\x1b\x07\x9b\u202e\u2066\u2069\ufffe\uffff")


def test_csv_has_no_formula() -> None:
    for found in csv.DictReader(io.StringIO(bench_formats.csv(evil(), [], []))):
        for key in ("row", "model", "device", "reason"):
            assert not found[key].strip().startswith(("=", "+", "-", "@")), found[key]
        assert float(found["median_ns"] or 1) > 0


class Balanced(HTMLParser):
    """Holds a page to closing what it opens."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """``<rect/>`` closes itself."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_nothing_in_it_is_code() -> None:
    evil = row("cpu", model="<script>", label="<script>alert(1)</script>\x1b[0m")
    judged = run(
        *(found if found.summary is None else _judged(found) for found in (evil, ANE, GONE)), power_channels=("cpu",)
    )
    made = page(judged)
    parser = Balanced()
    parser.feed(made.partition("\n")[2])
    assert parser.open == []
    assert "<script>" not in made and "<b>" not in made and "\x1b" not in made
    assert not re.search(r"(src|href)=|@import|url\(", made)
    assert "killed by SIGKILL" in made and "planned by Core ML" in made


def _judged(found: Row) -> Row:
    return replace(found, trust=judge(found))


@pytest.mark.parametrize("width", [80, 100])
def test_no_figure_is_cut_on_a_narrow_terminal(width: int) -> None:
    """A name may be folded; every figure of the wide view is in the narrow one."""
    named = [replace(row("cpu", 4e6, seed=seed), label=f"a-rather-long-name-{seed}/cpu/batch=1") for seed in range(2)]
    found = run(*[replace(r, load_warm_ns=7_654_321, first_inference_ns=12_345_678, convert_ns=20_000) for r in named])
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=True, color_system=None).print(render(found))
    narrow = stream.getvalue()
    assert "…" not in narrow and max(map(len, narrow.splitlines())) <= width
    figures = re.findall(r"(?<= )\d+\.\d+(?= |$)", text(found), re.MULTILINE)
    assert len(figures) > 20 and all(f" {figure}" in narrow for figure in figures)


def test_where_costs_are_unknown_the_operations_are_counted() -> None:
    """A neuralNetwork's layers have a place and no cost: all of them on the Neural Engine is nothing to warn of."""
    inside = text(run(row("ane", placement=Placement("MLComputePlan", {"ane": 9, "cpu": 1}, {}))))
    assert "warning" not in inside
    outside = text(run(row("ane", placement=Placement("MLComputePlan", {"ane": 1, "cpu": 9}, {}))))
    assert "only 10 % of the operations are planned for the Neural Engine, most for the cpu" in outside


def test_a_histogram_counts_every_sample() -> None:
    samples = [1e6] * 990 + [2e6] * 8 + [9e6] * 2
    made = _svg.histogram(samples, {"median": 1e6})
    assert "2 beyond" in made and made.count('class="bar"') == 2


def test_a_hiccup_does_not_flatten_the_charts() -> None:
    """60 samples between 100 and 159 us, two of them hit by 9 ms: the bars fill the width, the hiccups are named."""
    samples = [1e3 * (100 + index) for index in range(60)]
    samples[20] = samples[40] = 9e6
    made = _svg.histogram(samples, {"median": 1.3e5, "p95": 1.31e5})
    assert made.count('class="bar"') > 30 and "2 beyond, up to 9.00 ms" in made
    assert 'y="11" class="small">median' in made and 'y="22" class="small">p95' in made  # side by side they would meet
    line = _svg.timeline(samples)
    assert (line.count('class="dot"'), line.count('class="far"')) == (58, 2)
    assert "159 µs" in line and "2 beyond, up to 9.00 ms" in line


def test_a_thinned_timeline_keeps_its_extremes() -> None:
    samples = [1.0] * 100_000
    samples[54_321] = 77.0
    points = dict(_svg._thinned(samples))
    assert len(points) <= 700 and points[54_321] == 77.0


def test_the_page_on_ci_uses_flags_that_exist(root: Path, tlkit: Shell) -> None:
    """Every flag of every `tlkit bench` in docs/ci.md, its workflow among them, is in the command's own help."""
    page_ = re.sub(r"\\\n\s*", " ", (root / "docs/ci.md").read_text())
    known = tlkit("bench", "--help").out
    flags = {flag for line in re.findall(r"tlkit bench [^\n`]*", page_) for flag in re.findall(r"\s(--[a-z-]+)", line)}
    assert {"--baseline", "--max-regression", "--show", "--save", "--format"} <= flags
    assert [flag for flag in flags if not re.search(rf"{flag}(?![\w-])", known)] == []
