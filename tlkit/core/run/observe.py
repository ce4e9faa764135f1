"""Observe a run: stop after one operation (``run --until``), save operations' values (``run --dump``)."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.errors import UsageError
from tlkit.host.goals import Kind
from tlkit.mil.program import Function, Operation, walk

INDEX = "index.json"
"""In a folder of dumped values: what is in which file."""


@dataclass(frozen=True, slots=True)
class Dumped:
    """One saved value: the operation (its name and type), the value's name, its file, and its statistics.

    ``minimum`` and ``maximum`` are over the finite elements (None where there are none); ``nan`` and ``inf`` count the
    others.
    """

    operation: str
    type: str
    value: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    minimum: float | None
    maximum: float | None
    nan: int
    inf: int


@dataclass
class Observer:
    """Is shown each operation of a run: saves the values of those that match ``patterns`` in ``folder``, stops after
    ``until``."""

    until: str | None = None
    folder: Path | None = None
    patterns: tuple[str, ...] = ()
    found: dict[str, Any] = field(default_factory=dict)
    dumped: list[Dumped] = field(default_factory=list)

    def __call__(self, operation: Operation, values: Callable[[], Mapping[str, Any]]) -> bool:
        """Save the values if wanted; return True to stop the run."""
        if self.folder is not None and (not self.patterns or any(_matches(operation, p) for p in self.patterns)):
            for name, array in values().items():
                self.dumped.append(self._keep(operation, name, array))
        if self.until is None or self.until not in names_of(operation):
            return False
        self.found = dict(values())
        return True

    def _keep(self, operation: Operation, name: str, array: np.ndarray[Any, Any]) -> Dumped:
        assert self.folder is not None
        # Numbered: two names may become one where marks are replaced.
        file = f"{len(self.dumped):05d}-{re.sub(r'[^A-Za-z0-9_.-]', '_', name)[:100]}.npy"
        np.save(self.folder / file, array)
        finite = array[np.isfinite(array)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (None, None)
        strays = (int(np.isnan(array).sum()), int(np.isinf(array).sum()))
        return Dumped(operation.name, operation.type, name, file, str(array.dtype), array.shape, low, high, *strays)


@contextmanager
def observing(
    until: str | None, folder: Path | None, patterns: Iterable[str], function: Function
) -> Iterator[Observer]:
    """Yield an observer for one run; where values are dumped, ``folder`` is made and the index written at the end.

    UsageError where nothing of ``function`` has the name ``until`` or matches a pattern.
    """
    patterns = tuple(patterns)
    _check(until, patterns, function)
    if folder is not None:
        folder.mkdir()
    observer = Observer(until, folder, patterns)
    yield observer
    if folder is not None:
        (folder / INDEX).write_text(json.dumps([asdict(item) for item in observer.dumped], indent=1))


def read_dump(folder: Path) -> None:
    """Open every value of a folder of dumped values; ValueError or OSError where one is not as the index says."""
    for item in json.loads((folder / INDEX).read_text()):
        # An empty array cannot be mapped.
        array = np.load(folder / item["file"], mmap_mode="r" if 0 not in item["shape"] else None)
        if list(array.shape) != item["shape"]:
            raise ValueError(f"{item['file']} is not the value that was dumped")


def _foreign(folder: Path) -> Path | None:
    """Return a file in ``folder`` that is not part of a dump; None if there is none."""
    index = folder / INDEX
    try:
        listed = {INDEX, *(item["file"] for item in json.loads(index.read_text()))} if index.is_file() else set()
    except (OSError, ValueError, TypeError, KeyError):
        listed = set()
    return next((item for item in folder.iterdir() if item.name not in listed or not item.is_file()), None)


DUMP = Kind("a folder of dumped values", _foreign)
"""What ``--dump`` may replace."""


def names_of(operation: Operation) -> tuple[str, ...]:
    """Return the names by which an operation can be chosen: its own and those of its values."""
    return (operation.name, *(item.name for item in operation.outputs))


def _matches(operation: Operation, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (operation.type, *names_of(operation)))


def _check(until: str | None, patterns: Iterable[str], function: Function) -> None:
    inside = [op for op in function.block.operations if not op.type.startswith("const")]
    for pattern in patterns:
        if not any(_matches(op, pattern) for op in inside):
            raise UsageError(f"--ops {pattern}: no operation has such a name or type", "tlkit inspect --ops lists them")
    if until is None or any(until in names_of(op) for op in inside):
        return
    everywhere = {name: op for op in walk(function.block.operations) for name in names_of(op)}
    if until in everywhere:
        constant = everywhere[until].type.startswith("const")
        why = "is a constant" if constant else "is inside a block of another operation"
        raise UsageError(f"--until {until}: it {why}", "name an operation of the function itself")
    close = difflib.get_close_matches(until, [name for op in inside for name in names_of(op)], 1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise UsageError(f"--until {until}: no operation has that name", f"{hint}tlkit inspect --ops lists them")
