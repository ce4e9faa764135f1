"""Run a model on every sample of a data set: they are read ahead while the model computes, and nothing piles up.

Each sample is one inference and one row. Outputs are written as they come, so that memory does not grow with their
number.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from tlkit.core.model.inputs import to_port
from tlkit.core.model.load import Model
from tlkit.core.run.data.outputs import output_writer, outputs_goal
from tlkit.core.run.data.sample import Sample, SampleSet
from tlkit.core.run.data.samples import part_range
from tlkit.core.run.run import OutputSummary, ran_by, summarize
from tlkit.errors import TlkitError, UsageError
from tlkit.host.staging import prepare, staged_set

_AHEAD = max(8, 2 * (os.cpu_count() or 1))
"""Files that are read before they are needed."""
_MANY = 8
"""Files from which on several inferences run at once, where the model was loaded for that: it may have to compile."""
Progress = Callable[[int, int], None]
Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class FolderRow:
    """One sample's outputs; ``file`` is its name."""

    file: str
    outputs: tuple[OutputSummary, ...]


@dataclass(frozen=True, slots=True)
class FolderResult:
    """A set's run: how many samples, the seconds from the first to the last, and what ran the model."""

    model: str
    folder: str
    count: int
    seconds: float
    ran: str


def run_samples(
    model: Model,
    data: SampleSet,
    others: Mapping[str, Any],
    *,
    part: str | None = None,
    save_outputs: str | None = None,
    force: bool = False,
    each: Callable[[FolderRow], None] = lambda _: None,
    progress: Progress = lambda *_: None,
) -> FolderResult:
    """Run ``model`` on each sample of ``data``, in order; ``part`` is ``K/N``, only the K-th of N parts of them.

    ``others`` are values for the other inputs, the same for every sample. ``each`` hears of every sample's outputs.
    ``save_outputs`` names what :func:`tlkit.core.run.data.outputs.outputs_goal` tells. Raises what reading or running a
    sample raises, named; nothing is written then. A model loaded with ``streams=0`` runs as many inferences at once as
    its engine is the fastest with.
    """
    start, stop = part_range(part, data.count)
    wanted = [] if save_outputs is None else [outputs_goal(save_outputs)]
    if model.info.states:
        raise UsageError(f"{model.path}: a model with states, which files in a row would share", "run file by file")
    for item in wanted:
        prepare(item.path, force=force, kind=item.kind, inputs=(model.path, data.place))
    begun = perf_counter()
    specs = {spec.name: spec for spec in model.outputs}
    with ExitStack() as stack:
        paths = stack.enter_context(staged_set(wanted, force=force)) if wanted else []
        writer = output_writer(wanted[0], paths[0], stop - start) if paths else None
        read = _read_ahead(model, data.samples(start, stop), others, data.place)
        for place, (name, outputs) in enumerate(_in_order(model, data.place, read, stop - start >= _MANY)):
            if writer is not None:
                writer.add(name, outputs)
            each(FolderRow(name, tuple(summarize(specs[key], value) for key, value in outputs.items())))
            progress(place + 1, stop - start)
        if writer is not None:
            writer.close()
    return FolderResult(str(model.path), str(data.place), stop - start, perf_counter() - begun, ran_by(model))


def _in_order(
    model: Model, folder: Path, inputs: Iterator[tuple[str, dict[str, Any]]], many: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each file with its outputs, in order; the next inferences run while these are summarized and written."""
    first = next(inputs, None)
    if first is None:
        return  # a part of fewer samples than there are parts
    with _naming(folder / first[0]):
        streams = model.streams(first[1]) if many else 1
    with ThreadPoolExecutor(streams) as pool:
        running: deque[tuple[str, Future[dict[str, Any]]]] = deque()
        for file, arrays in chain([first], inputs):
            running.append((file, pool.submit(model.predict, arrays)))
            if len(running) > streams:
                yield _outputs(folder, *running.popleft())
        while running:
            yield _outputs(folder, *running.popleft())


def _outputs(folder: Path, file: str, running: Future[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Wait for a file's outputs."""
    with _naming(folder / file):
        return file, running.result()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in an error of the body."""
    try:
        yield
    except TlkitError as error:
        raise type(error)(f"{path}: {error.message}", error.hint) from error


def _read_ahead(
    model: Model, samples: Iterable[Sample], others: Mapping[str, Any], place: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each sample's name with all inputs; a few are read before their turn."""
    ports = {spec.name: spec for spec in model.inputs}

    def read(sample: Sample) -> dict[str, Any]:
        with _naming(place / sample.name):
            given = {name: to_port(ports[name], value, None, model.stored) for name, value in sample.values.items()}
            return {**others, **given}

    for sample, arrays in read_ahead(samples, read):
        yield sample.name, arrays


def read_ahead(items: Iterable[Item], read: Callable[[Item], Value]) -> Iterator[tuple[Item, Value]]:
    """Yield each of ``items`` with what ``read`` makes of it; a few are read before their turn, by threads."""
    left = iter(items)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        waiting: deque[tuple[Item, Future[Value]]] = deque()

        def more() -> None:
            for item in islice(left, 1):
                waiting.append((item, pool.submit(read, item)))

        for _ in range(_AHEAD):
            more()
        try:
            while waiting:
                item, reading = waiting.popleft()
                value = reading.result()
                more()
                yield item, value
        finally:
            for _, reading in waiting:
                reading.cancel()
