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
from functools import partial
from itertools import chain, islice
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from tlkit.core.model.inputs import port_named, to_port
from tlkit.core.model.load import Model
from tlkit.core.run.data.outputs import output_writer, outputs_goal
from tlkit.core.run.data.sample import Sample, SampleSet
from tlkit.core.run.data.samples import part_range
from tlkit.core.run.run import OutputSummary, ran_by, summarize
from tlkit.errors import TlkitError, UsageError
from tlkit.host.staging import prepare, staged_set

_AHEAD = max(8, 2 * (os.cpu_count() or 1))
"""Files that are read before they are needed."""
_GROUPS = max(2, min(4, os.cpu_count() or 1))
"""Groups of files that are read before they are needed, where files are handled in groups."""
_MOST, _BYTES = 16, 16 << 20
"""Files of a group, at most, and the bytes that their values may have."""
_SHORT, _LONG = 0.2, 0.5
"""Seconds of a group: shorter ones become larger, longer ones smaller, so that progress is seen."""
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
        rows = _in_order(model, data.samples(start, stop), others, data.place, stop - start >= _MANY)
        for done, (name, outputs) in enumerate(rows, 1):
            if writer is not None:
                writer.add(name, outputs)
            each(FolderRow(name, tuple(summarize(specs[key], value) for key, value in outputs.items())))
            progress(done, stop - start)
        if writer is not None:
            writer.close()
    return FolderResult(str(model.path), str(data.place), stop - start, perf_counter() - begun, ran_by(model))


def engine_for(model: Model, data: SampleSet, others: Mapping[str, Any]) -> str | None:
    """Return what ``--engine auto`` runs these samples by, so that parts of them can all be run by the same one.

    A trial for each part would cost as much as hundreds of inferences, and engines round differently.

    Compiles as :func:`run_samples` does. None where nothing is chosen once: of few samples, and where their shapes
    differ, of which an engine may refuse some.
    """
    if data.count < _MANY or model.info.states or any(spec.flexible for spec in model.inputs):
        return None
    engine: Any = model.engine
    if not hasattr(engine, "chosen"):
        return None
    (sample,) = data.samples(0, 1)
    with _naming(data.place, sample.name):
        model.streams({**others, **sample.values})
    return str(engine.chosen)


def _in_order(
    model: Model, samples: Iterator[Sample], others: Mapping[str, Any], place: Path, many: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each sample's name with its outputs, in order; the next inferences run while these are summarized and
    written, and the samples after them are read."""
    first = next(samples, None)
    if first is None:
        return  # a part of fewer samples than there are parts
    fixed = {
        name: to_port(port_named(model.inputs, name, str(model.path)), value, None, model.stored)
        for name, value in others.items()
    }

    def read(sample: Sample) -> dict[str, Any]:
        return model.arrays({**fixed, **sample.values})

    with _naming(place, first.name):
        arrays = read(first)
        streams = model.streams(arrays) if many else 1
    sizes = _Sizes(arrays, max(_MOST, 2 * streams))
    # One more waits in the engine, which begins with it before a thread here has woken up.
    with ThreadPoolExecutor(streams + (streams > 1)) as pool:
        running: deque[tuple[list[Sample], list[Future[list[dict[str, Any] | TlkitError]]]]] = deque()
        try:
            for group, found in read_ahead(sizes.groups(chain([first], samples)), partial(_each, read), ahead=_GROUPS):
                part = max(1, len(group) // (2 * streams))
                parts = [found[start : start + part] for start in range(0, len(found), part)]
                running.append((group, [pool.submit(_run, model, part) for part in parts]))
                if len(running) > 1:
                    yield from _outputs(place, *running.popleft(), sizes)
            while running:
                yield from _outputs(place, *running.popleft(), sizes)
        finally:  # after an error or an interrupt what has not begun does not run
            for _, waiting in running:
                for each in waiting:
                    each.cancel()


class _Sizes:
    """How many samples are handled in a row, by the time that they take.

    What reads a sample or writes its outputs takes twice as long right after an inference, which has filled the
    processor's caches, as after the like of it.
    """

    def __init__(self, arrays: Mapping[str, Any], most: int) -> None:
        """``arrays`` are a sample's values, ``most`` is how many samples a group has at most."""
        size = max(1, sum(getattr(item, "nbytes", 0) for item in arrays.values()))
        self._most = max(1, min(most, _BYTES // size))
        self._now, self._last = 1, perf_counter()

    def groups(self, samples: Iterator[Sample]) -> Iterator[list[Sample]]:
        """Yield the samples in groups of the size that is right by then."""
        while group := list(islice(samples, self._now)):
            yield group

    def done(self) -> None:
        """Hear that a group is done."""
        now = perf_counter()
        taken, self._last = now - self._last, now
        if taken < _SHORT:
            self._now = min(2 * self._now, self._most)
        elif taken > _LONG:
            self._now = max(1, self._now // 2)


def _each(read: Callable[[Item], Value], group: list[Item]) -> list[Value | TlkitError]:
    """Read a group; an error takes the place of its sample, so that those before it have their turn."""
    found: list[Value | TlkitError] = []
    for item in group:
        try:
            found.append(read(item))
        except TlkitError as error:
            found.append(error)
            break
    return found


def _run(model: Model, read: list[dict[str, Any] | TlkitError]) -> list[dict[str, Any] | TlkitError]:
    """Return the outputs for each of what was read, up to the first error."""
    rows = [item for item in read if not isinstance(item, TlkitError)]
    found: list[dict[str, Any] | TlkitError] = []
    try:
        found.extend(model.run_rows(rows))
    except TlkitError:  # of which one?
        found.extend(_each(lambda row: model.run_rows([row])[0], rows))
    return [*found, *(item for item in read if isinstance(item, TlkitError))]


def _outputs(
    place: Path, group: list[Sample], parts: list[Future[list[dict[str, Any] | TlkitError]]], sizes: _Sizes
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Wait for a group's outputs, and yield them; raise an error when its sample's turn comes."""
    found = [outputs for part in parts for outputs in part.result()]
    sizes.done()
    for sample, outputs in zip(group, found, strict=False):  # after an error there is nothing more
        if isinstance(outputs, TlkitError):
            with _naming(place, sample.name):
                raise outputs
        yield sample.name, outputs


@contextmanager
def _naming(place: Path, name: str) -> Iterator[None]:
    """Name the file in an error of the body, unless it does so itself."""
    try:
        yield
    except TlkitError as error:
        if error.message.startswith(str(place / name)):
            raise
        raise type(error)(f"{place / name}: {error.message}", error.hint) from error


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Value], ahead: int = _AHEAD
) -> Iterator[tuple[Item, Value]]:
    """Yield each of ``items`` with what ``read`` makes of it; ``ahead`` are read before their turn, by threads."""
    left = iter(items)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        waiting: deque[tuple[Item, Future[Value]]] = deque()

        def more() -> None:
            for item in islice(left, 1):
                waiting.append((item, pool.submit(read, item)))

        for _ in range(ahead):
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
