"""A fleet's memory: one file, appended to as things happen, a checked line each, that outlives whoever writes it.

A line is eight hexadecimal digits, the CRC-32 of the rest, a space, and a JSON object. The first says which plan the
journal is of; then ``start`` (a job was given to a worker), ``lost`` (its worker or node went away, or was killed by
it), ``done`` (its whole outcome) and ``aside`` (it killed its worker too often). A job with a ``done`` is never run
again.

A line that was cut short when its writer died, and one that does not match its checksum, count as if they had never
been written: what cannot be read is done again, never trusted.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError, UsageError, WriteError, reason
from tlkit.fleet.job import JobOutcome

VERSION = 1
_FIRST = "fleet"


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


class Journal:
    """The journal at ``path``, open for appending by this process only.

    A new one begins with ``head`` (what tells the plan); an existing one is read first (:attr:`past`) and continued.
    Raises LoadError for a file that is no journal, UsageError where another process writes to it.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise WriteError(f"{path}: {reason(error)}", "name another file with --journal") from error
        try:
            self._begin(head)
        except BaseException:
            os.close(self._file)
            raise

    def _begin(self, head: Mapping[str, Any]) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{self.path}: another tlkit writes to this journal", "wait until it has ended") from None
        except OSError:
            pass  # a file system without locks
        self.past, whole = _read(self.path)
        if not self.past.head and os.fstat(self._file).st_size > whole:
            raise LoadError(f"{self.path}: this is not a journal of tlkit", "name another file with --journal")
        if os.fstat(self._file).st_size > whole:
            os.ftruncate(self._file, whole)  # a line that was cut short
        if not self.past.head:
            self.past.head = {"version": VERSION, **head}
            self.write(_FIRST, **self.past.head)
            self.flush()

    def write(self, kind: str, **facts: Any) -> None:
        """Append a line; the operating system has it when this returns, so that it outlives this process."""
        line = _line({"kind": kind, "at": round(time.time(), 3), **facts})
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            raise WriteError(f"{self.path}: {reason(error)}", "make room, then go on with --resume") from error

    def flush(self) -> None:
        """Wait until what was written has reached the disk, so that it outlives this machine."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file, and let others write to it."""
        os.close(self._file)


def read(path: Path) -> Past:
    """Return what the journal at ``path`` says; LoadError where it is none."""
    past, _ = _read(path)
    if not past.head:
        raise LoadError(f"{path}: this is not a journal of tlkit", "name the file that --journal wrote")
    return past


def outcome_facts(outcome: JobOutcome) -> dict[str, Any]:
    """Return an outcome as a ``done`` line holds it."""
    return {"code": outcome.code, "seconds": outcome.seconds, "answer": outcome.answer, "error": outcome.error}


def _read(path: Path) -> tuple[Past, int]:
    """Return the past and how many bytes of the file are whole lines."""
    past, whole = Past(), 0
    try:
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                record = _record(line)
                if record is None:
                    past.damaged += 1
                elif not past.head and record.get("kind") != _FIRST:
                    break
                else:
                    _take(past, record)
    except OSError as error:
        raise LoadError(f"{path}: {reason(error)}", "name a journal that can be read") from error
    if not past.head:
        return past, 0
    if past.head.get("version") != VERSION:
        version = past.head.get("version")
        raise LoadError(f"{path}: a journal of version {version}", "go on with the tlkit that wrote it")
    return past, whole


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


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _record(line: bytes) -> dict[str, Any] | None:
    check, _, text = line.rstrip(b"\n").partition(b" ")
    try:
        if len(check) != 8 or int(check, 16) != zlib.crc32(text):
            return None
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def of_kind(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the sound lines of one kind, in order: what proves that no job was done twice."""
    with open(path, "rb") as file:
        records: Iterable[dict[str, Any] | None] = map(_record, file)
        yield from (record for record in records if record and record.get("kind") == kind)
