"""Runs of several machines as one table, in each form that `tlkit bench --show` tells it."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.commands import Shell
from tests.core.rows import row, run
from tlkit.cli.views.bench.formats import document
from tlkit.cli.views.bench.matrix import MatrixFigure, matrix, narrow_matrix, plain
from tlkit.core.bench.saved import append
from tlkit.words import jsonable


def test_machines_stay_together_and_what_was_not_measured_is_a_dash() -> None:
    rows = [
        MatrixFigure("a", "M4", "cpu", 2e6, "good"),
        MatrixFigure("a", "M1", "cpu", 4e6, "fair", ("few samples",)),
        MatrixFigure("b", "M4", "ane", 5e5, "poor", ("it drifts",)),
        MatrixFigure("b", "M4", "ane", 6e5, "good"),
    ]
    table, notes = matrix(rows)
    assert list(table.heads) == ["model", "M4, cpu", "M4, ane", "M1, cpu"]
    assert [list(map(plain, row)) for row in table.rows] == [
        ["a", "2.00 ms good", "-", "4.00 ms fair"],
        ["b", "-", "500 µs poor, 600 µs good", "-"],
    ]
    assert getattr(table.rows[1][2], "kind", "") == "poor"
    assert notes == ["a on M1, cpu: fair: few samples", "b on M4, ane: poor: it drifts"]
    table, _ = narrow_matrix(rows)
    assert [list(map(plain, row))[:3] for row in [table.heads, *table.rows]] == [
        ["model", "machine", "cpu"],
        ["a", "M4", "2.00 ms good"],
        ["a", "M1", "4.00 ms fair"],
        ["b", "M4", "-"],
    ]


@pytest.fixture
def macs(tmp_path: Path) -> list[Path]:
    """The files of runs of two chips, of which the second measured twice."""
    made = []
    for name, medians in (("m4", [4e6]), ("m1", [9e6, 8e6])):
        made.append(tmp_path / f"{name}.db")
        for median in medians:
            found = run(row("cpu", median), row("ane", median / 4, seed=1))
            found = replace(found, machine=replace(found.machine, cpu=f"Apple {name}"))
            append(made[-1], found, json.dumps({"schema_version": 1} | jsonable(document(found, [], ()))))
    return made


def test_files_of_two_machines_are_one_report(tlkit: Shell, macs: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "macs.html"
    shown = tlkit("bench", "--show", *macs, "--report", page)
    assert shown.code == 0 and "Medians by model, machine and unit" in shown.out
    last = [line.split() for line in shown.out.splitlines() if re.search(r"^net\s+Apple m\d\s", line)]
    assert [(line[2], round(float(line[3]), 1), round(float(line[6]), 1)) for line in last] == [
        ("m4", 4.0, 1.0),
        ("m1", 8.0, 2.0),
    ]
    assert "Apple m1, ane" in page.read_text()
    table = [line for line in tlkit("bench", "--show", *macs, "--format", "md").out.splitlines() if "m1, ane" in line]
    assert table == ["| model | Apple m4, cpu | Apple m4, ane | Apple m1, cpu | Apple m1, ane |"]
    rows = list(csv.DictReader(io.StringIO(tlkit("bench", "--show", *macs, "--format", "csv").out)))
    assert [line["machine"] for line in rows] == ["Apple m4"] * 2 + ["Apple m1"] * 4
    alone = tlkit("bench", "--show", macs[1], "--report", page, "--force")
    assert alone.code == 0 and "Medians by model" not in alone.out + page.read_text()
