"""A measurement as a document, and for other programs: CSV, Markdown and JUnit's XML."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from tlkit.cli.sink import figures
from tlkit.cli.sink.formats import JUnitCase, csv_text, junit_text, markdown, markdown_table
from tlkit.cli.sink.stream import escaped
from tlkit.cli.views.bench.matrix import matrix, matrix_figures, plain, several_machines
from tlkit.core.bench.bench import BenchResult
from tlkit.core.bench.gate import Check
from tlkit.core.bench.rows import Row
from tlkit.core.bench.saved import SCHEMA_VERSION
from tlkit.core.bench.versus import compare_rows, over_cpu
from tlkit.words import byte_text, jsonable

COLUMNS = (
    *("run", "row", "model", "unit", "batch", "status", "device", "threads", "samples", "median_ns", "mean_ns"),
    *("std_ns", "min_ns", "max_ns", "inferences_per_second", "device_median_ns", "load_first_ns"),
    *("load_warm_ns", "first_inference_ns", "convert_ns", "timer_ns", "peak_bytes", "millijoules"),
    *(
        "inferences_per_joule",
        "efficiency_over_cpu",
        "concurrency",
        "concurrent_per_second",
        "trust",
        "reason",
        "machine",
    ),
)
"""The columns of every table; after them ``pNN_ns`` for each percentile and ``watts_NAME`` for each counter."""


def document(result: BenchResult, others: Sequence[BenchResult], checks: Sequence[Check]) -> dict[str, Any]:
    """Return the JSON document: the run itself, then what was checked and which other runs it is compared with."""
    made: dict[str, Any] = {"run_version": SCHEMA_VERSION}
    made |= {field.name: getattr(result, field.name) for field in fields(result)}
    made["efficiency_over_cpu"] = {row.name: over_cpu(row, result.rows) for row in result.rows if row.energy}
    made["checks"] = list(checks)
    made["compared"] = [
        {
            "started": other.started,
            "machine": other.machine,
            "rows": other.rows,
            "over_first": over_first(other, result),
        }
        for other in others
    ]
    return made


def over_first(other: BenchResult, first: BenchResult) -> list[Any]:
    """Compare the rows of a saved run with the rows of the same names in the first."""
    base = {row.name: row for row in first.rows if row.summary}
    return [compare_rows(row, base[row.name], paired=False) for row in other.rows if row.summary and row.name in base]


def records(result: BenchResult, others: Sequence[BenchResult] = ()) -> list[dict[str, Any]]:
    """Return one flat record for each row of each run."""
    return [_record(index, row, run) for index, run in enumerate([result, *others]) for row in run.rows]


def _record(index: int, row: Row, run: BenchResult) -> dict[str, Any]:
    summary, energy = row.summary, row.energy
    values: dict[str, Any] = {
        "run": index,
        "row": row.name,
        "model": row.model,
        "unit": row.unit,
        "batch": row.batch,
        "status": row.status,
        "device": row.device,
        "threads": row.threads,
        "load_first_ns": row.load_first_ns,
        "load_warm_ns": row.load_warm_ns,
        "first_inference_ns": row.first_inference_ns,
        "convert_ns": row.convert_ns,
        "timer_ns": row.timer_ns,
        "peak_bytes": row.peak_bytes,
        "reason": row.reason,
        "machine": run.machine.cpu,
    }
    if summary:
        values |= {
            "samples": summary.count,
            "median_ns": summary.median_ns,
            "mean_ns": summary.mean_ns,
            "std_ns": summary.std_ns,
            "min_ns": summary.min_ns,
            "max_ns": summary.max_ns,
            "inferences_per_second": summary.throughput,
        }
        values |= {f"{name}_ns": value for name, value in summary.percentiles_ns.items()}
    if energy:
        values |= {
            **{f"watts_{channel}": value for channel, value in energy.watts.items()},
            "millijoules": energy.millijoules,
            "inferences_per_joule": energy.per_joule,
            "efficiency_over_cpu": over_cpu(row, run.rows),
        }
    if row.device_summary:
        values["device_median_ns"] = row.device_summary.median_ns
    if row.load:
        values |= {"concurrency": row.load.callers, "concurrent_per_second": row.load.throughput}
    if row.trust:
        values["trust"] = row.trust.level
    return values


def csv(result: BenchResult, others: Sequence[BenchResult], checks: Sequence[Check]) -> str:
    """Return a line for each row, one figure a cell, times in nanoseconds; empty where there is no figure."""
    rows = records(result, others)
    more = dict.fromkeys(key for record in rows for key in record if key not in COLUMNS)
    return csv_text([*COLUMNS, *more], rows)


def jsonl(result: BenchResult, others: Sequence[BenchResult], checks: Sequence[Check]) -> str:
    """Return the same records as JSON, one a line."""
    lines = (json.dumps(jsonable(record), allow_nan=False) for record in records(result, others))
    return "".join(f"{escaped(line)}\n" for line in lines)


def md(result: BenchResult, others: Sequence[BenchResult], checks: Sequence[Check]) -> str:
    """Return a Markdown table, for a pull request's comment."""
    lines = [
        "| row | median | p95 | per s | first load | peak memory | mJ | per J | trust |",
        "|---|" + "--:|" * 7 + "---|",
    ]
    for run in [result, *others]:
        for row in run.rows:
            cells = [row.name, *_cells(row), row.trust.level if row.trust else row.reason or "-"]
            lines.append(_line(cells))
    if several_machines([result, *others]):
        found, _ = matrix(matrix_figures([result, *others]))
        lines += ["", *markdown_table(found.heads, [list(map(plain, line)) for line in found.rows])]
    machine = result.machine
    lines += ["", markdown(f"{machine.cpu}, {machine.cores} cores, {machine.os}; {result.started}")]
    if checks:
        lines += ["", "| check | row | verdict | |", "|---|---|---|---|"]
        lines += [_line([c.limit, c.row, _VERDICTS[c.passed], c.detail]) for c in checks]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    # Verdicts are Markdown already.
    verdicts = _VERDICTS.values()
    return "| " + " | ".join(cell if cell in verdicts else markdown(cell) for cell in cells) + " |"


_VERDICTS = {True: "pass", False: "**fail**", None: "not checked"}


def _cells(row: Row) -> list[str]:
    summary = row.summary
    p95 = summary.percentiles_ns.get("p95") if summary else None
    energy = row.energy
    joules = [figures.number(energy.millijoules), figures.rate(energy.per_joule)] if energy else ["n/a", "n/a"]
    return [
        figures.time(summary.median_ns if summary else None),
        figures.time(p95),
        figures.rate(summary.throughput if summary else None),
        figures.time(row.load_first_ns),
        byte_text(row.peak_bytes),
        *("n/a" if cell == "-" else cell for cell in joules),
    ]


def junit(result: BenchResult, others: Sequence[BenchResult], checks: Sequence[Check]) -> str:
    """Return JUnit XML: a test case for each row (its median in seconds), and one for each limit that was checked."""
    cases = [_row_case(row) for row in result.rows]
    verdicts = {True: "", False: "failure", None: "skipped"}
    cases += [
        JUnitCase(f"tlkit.bench.{check.limit}", check.row, "0", verdicts[check.passed], check.detail)
        for check in checks
    ]
    return junit_text("tlkit bench", cases, timestamp=result.started)


def _row_case(row: Row) -> JUnitCase:
    median = f"{row.summary.median_ns / 1e9:.9f}" if row.summary else "0"
    what = "error" if row.status == "failed" else "" if row.summary else "skipped"
    return JUnitCase("tlkit.bench", row.name, median, what, row.reason)
