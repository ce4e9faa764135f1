"""A fleet's memory: one file, appended to as things happen, a checked line each, that outlives whoever writes it.

Its lines are those of :mod:`tlkit.core.journal.records`. The first says which plan the journal is of; then ``start``
(a job was given to a worker), ``lost`` (its worker or node went away, or was killed by it), ``done`` (its whole
outcome) and ``aside`` (it killed its worker too often). A job with a ``done`` is never run again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tlkit.core.journal.records import RecordFile, parse_record, read_records
from tlkit.errors import LoadError
from tlkit.fleet.job import JobOutcome

VERSION = 1
_FIRST = "fleet"
_HINT = "name another file with --journal"


@dataclass
class Past:
    """What a journal says has happened."""

    head: dict[str, Any] = field(default_factory=dict)
    done: dict[str, JobOutcome] = field(default_factory=dict)
    aside: dict[str, str] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)
    twice: int = 0
    """Jobs of which a second ``done`` was found: none, or something is wrong."""
    damaged: int = 0
    """Lines that could not be read."""


class Journal(RecordFile):
    """The journal at ``path``, open for appending by this process only.

    A new one begins with ``head`` (what tells the plan); what an existing one says is :attr:`past`, and it is
    continued. Raises LoadError for a file that is not a journal, UsageError where another process writes to it.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self.past = Past()
        super().__init__(path, _HINT, partial(_take, self.past), _begins)
        try:
            self.past.damaged = self.damaged
            _check_version(path, self.past)
            if not self.past.head:
                self.past.head = {"version": VERSION, **head}
                self.write(_FIRST, **self.past.head)
                self.flush()
        except BaseException:
            self.close()
            raise

    def write(self, kind: str, **facts: Any) -> None:
        """Append a line; the operating system has it when this returns, so that it outlives this process."""
        self.append({"kind": kind, "at": round(time.time(), 3), **facts})


def read(path: Path) -> Past:
    """Return what the journal at ``path`` says; LoadError where it is none."""
    past = Past()
    past.damaged, _ = read_records(path, "name a journal that can be read", partial(_take, past), _begins)
    _check_version(path, past)
    if not past.head:
        raise LoadError(f"{path}: this is not a journal of tlkit", "name the file that --journal wrote")
    return past


def outcome_facts(outcome: JobOutcome) -> dict[str, Any]:
    """Return an outcome as a ``done`` line holds it."""
    return {"code": outcome.code, "seconds": outcome.seconds, "answer": outcome.answer, "error": outcome.error}


def _begins(record: Mapping[str, Any]) -> bool:
    return record.get("kind") == _FIRST


def _check_version(path: Path, past: Past) -> None:
    version = past.head.get("version", VERSION)
    if version != VERSION:
        raise LoadError(f"{path}: a journal of version {version}", "go on with the tlkit that wrote it")


def _take(past: Past, record: dict[str, Any]) -> None:
    kind, key = record.pop("kind", ""), record.get("job", "")
    if kind == _FIRST:
        past.head = past.head or record
    elif kind == "start":
        past.started.add(key)
    elif kind == "lost":
        past.deaths[key] = past.deaths.get(key, 0) + bool(record.get("blamed"))
    elif kind == "aside":
        past.aside[key] = str(record.get("why", ""))
    elif kind == "done" and isinstance(record.get("code"), int):
        past.twice += key in past.done
        seconds = float(record.get("seconds") or 0)
        past.done[key] = JobOutcome(record["code"], seconds, record.get("answer"), str(record.get("error", "")))


def of_kind(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the sound lines of one kind, in order: what proves that no job was done twice."""
    with open(path, "rb") as file:
        records: Iterable[dict[str, Any] | None] = map(parse_record, file)
        yield from (record for record in records if record and record.get("kind") == kind)
