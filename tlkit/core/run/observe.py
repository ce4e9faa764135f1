"""Observe a run: stop after one operation (``run --until``), save operations' values (``run --dump``)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.errors import UsageError
from tlkit.host.goals import Kind
from tlkit.mil.program import Function, Operation
from tlkit.mil.survey import names

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
    """Is shown each operation of a run: saves the values of those named in ``kept`` (None: all) in ``folder``, stops
    after the one named ``until``."""

    until: str | None = None
    folder: Path | None = None
    kept: frozenset[str] | None = None
    found: dict[str, Any] = field(default_factory=dict)
    dumped: list[Dumped] = field(default_factory=list)

    def __call__(self, operation: Operation, values: Callable[[], Mapping[str, Any]]) -> bool:
        """Save the values if wanted; return True to stop the run."""
        if self.folder is not None and (self.kept is None or operation.name in self.kept):
            for name, array in values().items():
                self.dumped.append(self._keep(operation, name, array))
        if self.until is None or self.until != operation.name:
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

    UsageError where nothing of ``function`` is meant by ``until`` (:func:`stop_at`) or matches a pattern.
    """
    patterns = tuple(patterns)
    kept = _chosen(function, patterns) if patterns else None
    stop = None if until is None else stop_at(function, until)[0]
    if folder is not None:
        folder.mkdir()
    observer = Observer(stop, folder, kept)
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


def stop_at(function: Function, until: str) -> tuple[str, tuple[str, ...]]:
    """Return the name of the operation at which a run until ``until`` stops, and those of others that it could mean.

    Of a type it is the first operation, of a module the last one, which has the module's result. UsageError where
    nothing has such a name; it lists the nearest.
    """
    found = names.find(function, until)
    if not found:
        raise UsageError(*_missing(function, until))
    exact = len(found) == 1
    stop = found[0] if exact or found[0].type == until else found[-1]
    return stop.name, () if exact else tuple(op.name for op in found if op is not stop)


def _missing(function: Function, until: str) -> tuple[str, str]:
    known = names.everywhere(function).get(until)
    if known is not None:
        why = "is a constant" if names.is_constant(known) else "is inside a block of another operation"
        return f"--until {until}: it {why}", "name an operation of the function itself"
    return f"--until {until}: no operation, value, type or module has that name", _hint(function, until)


def _hint(function: Function, name: str) -> str:
    near = names.nearest(function, name)
    return f"nearest: {', '.join(near)}; tlkit inspect --ops lists all" if near else "tlkit inspect --ops lists them"


def _chosen(function: Function, patterns: Iterable[str]) -> frozenset[str]:
    """Return the names of the operations that ``patterns`` choose; UsageError where one chooses none."""
    chosen: set[str] = set()
    for pattern in patterns:
        found = names.matching(function, pattern)
        if not found:
            message = f"--ops {pattern}: no operation has such a name, type or module"
            raise UsageError(message, _hint(function, pattern))
        chosen |= {op.name for op in found}
    return frozenset(chosen)
