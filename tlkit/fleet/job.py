"""What a fleet is made of: jobs, what each needs of a node, and how each ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OUTPUT_LIMIT = 16 << 20
"""Bytes of a job's answer that are kept; a longer one (of `inspect --stats` on a huge model) is dropped and said."""

TIMED_OUT = 124
"""The code of a job that ran past its timeout, as ``timeout`` of the coreutils exits."""


@dataclass(frozen=True)
class Needs:
    """What a node must have for a job: a compute ``unit`` (``ane``, ``gpu``; empty: any), and ``memory`` in bytes.

    An ``alone`` job is a measurement: nothing else of the fleet runs on its node meanwhile.
    """

    unit: str = ""
    memory: int = 0
    alone: bool = False


@dataclass(frozen=True)
class FleetJob:
    """A subcommand with its arguments, ``tlkit VERB WORDS``, run in ``folder``.

    ``key`` is the same in each run of the same plan on the same files, and is what a journal knows a job by.
    ``settings`` are the model's name and the plan's settings, as a report's columns show them. ``timeout`` is in
    seconds, 0 for none.
    """

    key: str
    verb: str
    words: tuple[str, ...]
    folder: str = "."
    settings: Mapping[str, str] = field(default_factory=dict)
    needs: Needs = Needs()
    timeout: float = 0.0
    output: str = ""


@dataclass(frozen=True)
class JobOutcome:
    """How a job ended: its exit ``code``, its wall time, the JSON document (or text) that it printed, and what it said
    beside.

    ``error`` is the line that says what went wrong, empty where nothing did.
    """

    code: int
    seconds: float
    answer: Any = None
    error: str = ""

    @property
    def status(self) -> str:
        """One word: ``done``, ``no`` (a valid negative answer, exit code 1) or ``failed``."""
        return {0: "done", 1: "no"}.get(self.code, "failed")


def job_key(verb: str, words: Iterable[str], inputs: Iterable[Path], folder: str) -> str:
    """Return what a journal knows a job by: its command, its folder, and sizes and times of the files that it reads.

    A model that was replaced since is another job. Times are enough here: a file that a journal's machine copied to a
    node is compared by its hash there.
    """
    marks = [[str(path), *mark(path)] for path in inputs]
    text = json.dumps([verb, list(words), folder, marks], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def mark(path: Path) -> tuple[int, int]:
    """Return the bytes of a file, or of a folder's files, and the newest time among them in ns; zeros where it is not
    there."""
    try:
        files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
        found = [item.stat() for item in files]
    except OSError:
        return 0, 0
    return sum(item.st_size for item in found), max((item.st_mtime_ns for item in found), default=0)
