"""Saved runs: read back as they were written, and refused when they are something else."""

from __future__ import annotations

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.core.rows import row, run
from tlkit.cli.views.bench.formats import document
from tlkit.core.bench.bench import BenchResult
from tlkit.core.bench.rows import Load, OpCost, Placement, Row, Trust
from tlkit.core.bench.saved import append, check_history, load_history, load_run, save
from tlkit.core.bench.stats import summarize
from tlkit.errors import LoadError, UsageError, WriteError
from tlkit.host.power import Energy
from tlkit.words import jsonable

FULL = row(
    load=Load(4, 1.5, summarize([1, 2, 3]), 2.0),
    energy=Energy(2.0, 10, {"cpu": 5.5}, {"cpu": 1.0}, 900.0, 1.1),
    placement=Placement("measured", {"cpu": 1}, {"cpu": 1.0}, (OpCost("y", "conv", "cpu", None),)),
    trust=Trust("fair", 0.1, 0.1, -0.02, 0.01, ("why",), ("do",)),
    device_ns=(1, 2),
)


SUMMARY = jsonable(summarize([1, 2, 3]))


def written(result: BenchResult, path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps(jsonable(document(result, [], ())) | changes))
    return path


def test_what_is_saved_is_what_is_read(tmp_path: Path) -> None:
    result = run(FULL, row("gpu", seed=2), Row("ane", "absent", "not here"))
    assert load_run(written(result, tmp_path / "run.json")) == result


def test_an_unknown_spread_survives(tmp_path: Path) -> None:
    """Infinity has no JSON number, and comes back all the same."""
    result = run(row(turns=((100,),)), row("gpu", turns=((100,),)))
    assert load_run(written(result, tmp_path / "run.json")).comparisons[0].speedup.high == float("inf")


def test_a_file_that_exists_is_not_replaced(tmp_path: Path) -> None:
    text = json.dumps(jsonable(document(run(FULL), [], ())))
    save((tmp_path / "run.json", text), None)
    with pytest.raises(UsageError, match="exists already"):
        save((tmp_path / "run.json", text), None)


def test_a_run_and_its_page_are_written_both_or_not_at_all(tmp_path: Path) -> None:
    text = json.dumps(jsonable(document(run(FULL), [], ())))
    save((tmp_path / "a.json", text), (tmp_path / "a.html", "<p>"))
    assert (load_run(tmp_path / "a.json"), (tmp_path / "a.html").read_text()) == (run(FULL), "<p>")
    with pytest.raises(UsageError, match="exists already"):
        save((tmp_path / "b.json", text), (tmp_path / "a.html", "<p>"))
    with pytest.raises(WriteError, match="cannot be read"):
        save((tmp_path / "b.json", "{}"), (tmp_path / "b.html", "<p>"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.json"]


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"rows": 3}, "run.rows is not a list"),
        ({"rows": [{"unit": 5}]}, r"run.rows\[0\].unit is not of type str"),
        ({"rows": [{"unit": "cpu", "status": "fine"}]}, r"run.rows\[0\].status is not measured or"),
        ({"rows": [{"unit": "cpu", "samples_ns": [1.5]}]}, r"samples_ns\[0\] is not of type int"),
        ({"machine": {}}, "run.machine.cpu is not there"),
        ({"run_version": 99}, "run_version is 99"),
        ({"rows": [{"unit": "cpu", "samples_ns": [5, 0]}]}, r"samples_ns\[1\] is not above zero"),
        ({"rows": [{"unit": "cpu", "samples_ns": [5, 5], "turns": [[1], [2]]}]}, r"rows\[0\].turns is not its samples"),
        ({"rows": [{"unit": "cpu", "samples_ns": [1 << 64]}]}, r"samples_ns\[0\] is not a number of at most 64 bits"),
        ({"method": {"timeout": 10**400}}, "method.timeout is not a number of at most 64 bits"),
        ({"method": {"percentiles": [50, 101]}}, r"percentiles\[1\] is not between 0 and 100"),
        ({"method": {"percentiles": [50, 98]}}, r"rows\[0\].summary.percentiles_ns.p98 is not there"),
        ({"rows": [{"unit": "cpu", "summary": SUMMARY}]}, r"rows\[0\].samples_ns is not there"),
    ],
)
def test_a_run_that_is_none_is_refused_with_the_place(tmp_path: Path, changes: dict[str, Any], place: str) -> None:
    with pytest.raises(LoadError, match=place):
        load_run(written(run(FULL), tmp_path / "run.json", **changes))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "NaN", "null", "[" * 100_000])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(LoadError, match="not a saved run"):
        load_run(tmp_path / "run.json")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="No such file"):
        load_run(tmp_path / "run.json")


def text_of(result: BenchResult) -> str:
    return json.dumps(jsonable(document(result, [], ())))


def test_runs_are_appended_and_found_by_their_time(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    now = datetime.now(UTC)
    dates = ["2026-01-31T12:00:00+00:00", "2026-02-28T12:00:00+00:00", (now - timedelta(days=2)).isoformat()]
    runs = [replace(run(FULL), started=date) for date in dates]
    for result in (runs[1], runs[0], runs[2]):
        check_history(path)
        append(path, result, text_of(result))
    assert load_history(path) == runs  # oldest first
    assert load_history(path, "2026-02-01") == runs[1:] and load_history(path, "3d") == runs[2:]
    assert load_history(path, "2026-01-31T12:00") == runs and load_run(path) == runs[2]
    with pytest.raises(LoadError, match=r"no run since 1d in it \(3 in all\)"):
        load_history(path, "1d")
    with pytest.raises(UsageError, match="--since soon: not a time"):
        load_history(path, "soon")
    with closing(sqlite3.connect(path)) as file:
        found = file.execute("SELECT started, models, json_extract(document, '$.rows[0].unit') FROM runs").fetchall()
    assert found[0] == (dates[1], "\n".join(model.asked for model in runs[1].models), runs[1].rows[0].unit)


def test_processes_append_side_by_side(tmp_path: Path) -> None:
    path, result = tmp_path / "runs.db", run(FULL)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: append(path, result, text_of(result)), range(40)))
    assert load_history(path) == [result] * 40


def test_nothing_else_is_appended_to_or_read(tmp_path: Path) -> None:
    other, view, cut = tmp_path / "other.db", tmp_path / "view.db", tmp_path / "cut.db"
    other.write_text("mine")
    with pytest.raises(UsageError, match="not a file of runs"):
        check_history(other)
    with pytest.raises(WriteError, match="could not be added"):
        append(other, run(FULL), "{}")
    assert other.read_text() == "mine"
    with closing(sqlite3.connect(view)) as file, file:
        file.execute("CREATE VIEW runs AS SELECT 1 AS id, '2026' AS started, '{}' AS document")
    with pytest.raises(LoadError, match="no runs of tlkit in it"):
        load_run(view)
    append(cut, run(FULL), text_of(run(FULL)))
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LoadError, match=r"cut\.db: "):
        load_run(cut)
    with closing(sqlite3.connect(tmp_path / "odd.db")) as file, file:
        file.execute("CREATE TABLE runs (id, started, document)")
        file.execute("INSERT INTO runs VALUES (1, 'x', x'00'), (2, NULL, '[1]')")
    with pytest.raises(LoadError, match=r"odd\.db, run 2: not a saved run"):
        load_run(tmp_path / "odd.db")
    with pytest.raises(UsageError, match="there is no folder"):
        check_history(tmp_path / "none" / "runs.db")
