"""Answers for other programs: CSV, Markdown and JUnit's XML, each safe whatever a model's or a file's name is."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from tlkit.cli.sink.stream import clean

_MARKDOWN = str.maketrans(
    {mark: f"\\{mark}" for mark in "\\`*_[]|~"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "&#64;"}
)


@dataclass(frozen=True)
class JUnitCase:
    """One test case: ``seconds`` it took, and as ``what`` it ended (``failure``, ``error``, ``skipped``; empty: it
    passed), with a ``message``."""

    group: str
    name: str
    seconds: str = "0"
    what: str = ""
    message: str = ""


def csv_text(columns: Iterable[str], records: Iterable[Mapping[str, Any]]) -> str:
    """Return a heading and a line for each record; a column that a record lacks is empty."""
    made = io.StringIO()
    writer = csv.DictWriter(made, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: _cell(value) if isinstance(value, str) else value for key, value in record.items()} for record in records
    )
    return made.getvalue()


def _cell(text: str) -> str:
    """Return text that a spreadsheet does not interpret as a formula."""
    text = clean(text)
    return f"'{text}" if text.lstrip()[:1] in tuple("=+-@") or text[:1] in ("\t", "\n") else text


def markdown(text: str) -> str:
    """Return ``text`` escaped for Markdown, so that it makes no tags, links, images, mentions or table cells."""
    return " ".join(clean(text).split()).translate(_MARKDOWN).replace("://", "&#58;//").replace("www.", "www&#46;")


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table; its texts are escaped."""
    return [_line(heads), "|" + "---|" * len(heads), *map(_line, rows)]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(markdown, cells)) + " |"


def junit_text(suite: str, cases: Sequence[JUnitCase], **attributes: str) -> str:
    """Return JUnit XML: one suite, with its cases counted by how they ended."""
    counts = {plural: str(sum(case.what == what for case in cases)) for what, plural in _PLURALS.items()}
    root = ElementTree.Element("testsuite", {"name": suite, "tests": str(len(cases)), **counts, **attributes})
    for case in cases:
        element = ElementTree.SubElement(root, "testcase", classname=case.group, name=case.name, time=case.seconds)
        if case.what:
            ElementTree.SubElement(element, case.what, message=case.message)
    for element in root.iter():
        # XML has no way to write control characters.
        element.attrib = {key: clean(value) for key, value in element.attrib.items()}
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


_PLURALS = {"error": "errors", "failure": "failures", "skipped": "skipped"}
