"""A measurement as a document, and for other programs: CSV, Markdown and JUnit's XML."""

from __future__ import annotations

import csv as csv_
import io
import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any
from xml.etree import ElementTree

from tlkit.cli.sink import figures
from tlkit.cli.sink.stream import clean, escaped
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
    *("inferences_per_joule", "efficiency_over_cpu", "concurrency", "concurrent_per_second", "trust", "reason"),
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
    made, rows = io.StringIO(), records(result, others)
    more = dict.fromkeys(key for record in rows for key in record if key not in COLUMNS)
    writer = csv_.DictWriter(made, [*COLUMNS, *more], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: _cell(value) if isinstance(value, str) else value for key, value in record.items()} for record in rows
    )
    return made.getvalue()


def jsonl(result: BenchResult, others: Sequence[BenchResult], checks: Sequence[Check]) -> str:
    """Return the same records as JSON, one a line."""
    lines = (json.dumps(jsonable(record), allow_nan=False) for record in records(result, others))
    return "".join(f"{escaped(line)}\n" for line in lines)


def _cell(text: str) -> str:
    """Return text that a spreadsheet does not interpret as a formula."""
    text = clean(text)
    return f"'{text}" if text.lstrip()[:1] in tuple("=+-@") or text[:1] in ("\t", "\n") else text


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
    machine = result.machine
    lines += ["", _marked(f"{machine.cpu}, {machine.cores} cores, {machine.os}; {result.started}")]
    if checks:
        lines += ["", "| check | row | verdict | |", "|---|---|---|---|"]
        lines += [_line([c.limit, c.row, _VERDICTS[c.passed], c.detail]) for c in checks]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    # Verdicts are Markdown already.
    verdicts = _VERDICTS.values()
    return "| " + " | ".join(cell if cell in verdicts else _marked(cell) for cell in cells) + " |"


def _marked(text: str) -> str:
    """Return ``text`` escaped for Markdown, so that it makes no tags, links, images, mentions or table cells."""
    return " ".join(clean(text).split()).translate(_MARKDOWN).replace("://", "&#58;//").replace("www.", "www&#46;")


_MARKDOWN = str.maketrans(
    {mark: f"\\{mark}" for mark in "\\`*_[]|~"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "&#64;"}
)
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
    cases = []
    for row in result.rows:
        median = f"{row.summary.median_ns / 1e9:.9f}" if row.summary else "0"
        case = ElementTree.Element("testcase", classname="tlkit.bench", name=row.name, time=median)
        if row.status == "failed":
            ElementTree.SubElement(case, "error", message=row.reason)
        elif row.summary is None:
            ElementTree.SubElement(case, "skipped", message=row.reason)
        cases.append(case)
    for check in checks:
        case = ElementTree.Element("testcase", classname=f"tlkit.bench.{check.limit}", name=check.row, time="0")
        if check.passed is False:
            ElementTree.SubElement(case, "failure", message=check.detail)
        elif check.passed is None:
            ElementTree.SubElement(case, "skipped", message=check.detail)
        cases.append(case)
    counts = {kind: sum(case.find(kind) is not None for case in cases) for kind in ("error", "failure", "skipped")}
    attributes = {
        "name": "tlkit bench",
        "tests": str(len(cases)),
        "errors": str(counts["error"]),
        "failures": str(counts["failure"]),
        "skipped": str(counts["skipped"]),
        "timestamp": result.started,
    }
    suite = ElementTree.Element("testsuite", attributes)
    suite.extend(cases)
    for element in suite.iter():
        # XML has no way to write control characters.
        element.attrib = {key: clean(value) for key, value in element.attrib.items()}
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"
