"""The sensitivity sweep: each weight at each choice, here or in several processes, kept in a journal as it goes.

What runs the tasks is a :class:`SweepRunner`: anything that takes tasks and yields each with its result, in any order.

Importing this module imports torch.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch

from tlkit.core.compress.sensitivity import Apart, Swappable, Truth
from tlkit.core.compress.variants import Variant, WeightPlace
from tlkit.core.journal.records import RecordFile
from tlkit.errors import UsageError

Key = tuple[str, str]
"""A weight's name, and a choice's text."""
Arrays = Mapping[str, Any]
_VERSION = 1


class SweepRunner(Protocol):
    """What runs tasks: the process that asks, several processes, or machines."""

    def run(self, tasks: Sequence[Key]) -> Iterator[tuple[Key, Apart]]:
        """Yield each task with how far it moves the outputs, in any order."""


@dataclass(frozen=True)
class Here:
    """Runs tasks in this process."""

    model: Swappable
    most: int

    def run(self, tasks: Sequence[Key]) -> Iterator[tuple[Key, Apart]]:
        """See :class:`SweepRunner`."""
        for weight, choice in tasks:
            yield (weight, choice), self.model.whole({weight: choice}, slice(0, self.most))


@dataclass(frozen=True)
class SweepSetting:
    """All that a process needs to make the same model: picklable."""

    base: Path
    variants: Mapping[str, Path]
    at: Mapping[str, WeightPlace]
    inputs: tuple[Arrays, ...]
    threads: int
    truth: Truth | None = None

    def model(self) -> Swappable:
        """Load it."""
        found = {text: Variant(path) for text, path in self.variants.items()}
        return Swappable(Variant(self.base), found, self.at, self.inputs, self.truth)


class Processes:
    """Runs tasks in ``jobs`` processes, which share the cores."""

    def __init__(self, setting: SweepSetting, jobs: int) -> None:
        self.setting, self.jobs = setting, jobs

    def run(self, tasks: Sequence[Key]) -> Iterator[tuple[Key, Apart]]:
        """See :class:`SweepRunner`; the tasks of one weight stay together."""
        groups: dict[str, list[Key]] = {}
        for task in tasks:
            groups.setdefault(task[0], []).append(task)
        # Not forked: PyTorch's threads would be missing there.
        pool = ProcessPoolExecutor(self.jobs, get_context("spawn"), _begin, (self.setting,))
        try:
            for done in as_completed([pool.submit(_group, group) for group in groups.values()]):
                yield from done.result()
        finally:
            pool.shutdown(cancel_futures=True)


_model: Swappable | None = None


def _begin(setting: SweepSetting) -> None:
    global _model
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks ends these
    torch.set_num_threads(setting.threads)
    _model = setting.model()


def _group(tasks: Sequence[Key]) -> list[tuple[Key, Apart]]:
    assert _model is not None
    return [((weight, choice), _model.whole({weight: choice})) for weight, choice in tasks]


def threads_for(jobs: int) -> int:
    """Return the threads of each of ``jobs`` processes."""
    return max(1, (os.cpu_count() or 1) // jobs)


class SweepJournal:
    """Results on disk, a checked line each, so that an interrupted sweep goes on where it was.

    Raises UsageError where the file is of another model, other samples or other choices.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        records: list[dict[str, Any]] = []
        self._file = RecordFile(path, "name another file with --resume", records.append)
        wanted = {"kind": "sweep", "version": _VERSION, **head}
        self.known: dict[Key, Apart] = {}
        if not records:
            self._file.append(wanted)
            return
        different = [key for key, value in wanted.items() if records[0].get(key) != value]
        if different:
            self.close()
            what = {"kind": "not a sweep"}.get(different[0], f"a sweep of another {different[0]}")
            raise UsageError(f"{path}: {what}", "name another file with --resume, or remove it")
        for record in records[1:]:
            if record.get("kind") == "measured":
                found = Apart(float(record["error"]), float(record["snr"]), record["top1"])
                self.known[record["weight"], record["choice"]] = found

    def add(self, key: Key, found: Apart) -> None:
        """Keep one result."""
        facts = {name: str(value) if isinstance(value, float) else value for name, value in asdict(found).items()}
        facts["top1"] = found.top1
        self._file.append({"kind": "measured", "weight": key[0], "choice": key[1], **facts})
        self.known[key] = found

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def fingerprint(package: Path, inputs: Sequence[Arrays], truth: Truth | None = None) -> dict[str, str]:
    """Return what tells one sweep from another: a hash of the package's files, and one of the samples."""
    files, arrays = hashlib.sha256(), hashlib.sha256()
    for file in sorted(item for item in package.rglob("*") if item.is_file() and item.name != "Manifest.json"):
        files.update(str(file.relative_to(package)).encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                files.update(block)
    for sample in inputs:
        for name in sorted(sample):
            array = np.asarray(sample[name])
            arrays.update(f"{name} {array.dtype} {array.shape}".encode())
            arrays.update(array.tobytes())
    arrays.update(str(truth.classes).encode() if truth is not None else b"")
    return {"model": files.hexdigest(), "samples": arrays.hexdigest()}


def sweep(
    runner: SweepRunner, tasks: Sequence[Key], journal: SweepJournal | None, report: Callable[[str, float], None]
) -> dict[Key, Apart]:
    """Run the tasks that the journal does not know yet; return the results of all."""
    found = {key: journal.known[key] for key in tasks if key in journal.known} if journal is not None else {}
    left = [key for key in tasks if key not in found]
    start = perf_counter()
    for place, (key, apart) in enumerate(runner.run(left) if left else (), 1):
        found[key] = apart
        if journal is not None:
            journal.add(key, apart)
        # What is left takes as long a run as what has been: nothing else is known.
        rest = (perf_counter() - start) / place * (len(left) - place)
        report(f"sensitivity: {len(found)} of {len(tasks)}, about {_time(rest)} left", len(found) / len(tasks))
    return found


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
