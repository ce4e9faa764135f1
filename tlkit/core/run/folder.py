"""Run a model on every file of a folder: files are read ahead while the model computes, and nothing piles up.

Each file is one inference and one row. Outputs are written as they come, so that memory does not grow with the number
of files.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from time import perf_counter
from typing import IO, Any, TypeVar

import numpy as np

from tlkit.core.model.inputs import to_port
from tlkit.core.model.load import Model
from tlkit.core.run.run import OutputSummary, ran_by, read_saved, summarize
from tlkit.errors import TlkitError, UsageError
from tlkit.host.staging import Goal, prepare, staged_set
from tlkit.types import TensorSpec

_AHEAD = max(8, 2 * (os.cpu_count() or 1))
"""Files that are read before they are needed."""
_MANY = 8
"""Files from which on several inferences run at once, where the model was loaded for that: it may have to compile."""
Progress = Callable[[int, int], None]
Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class FolderRow:
    """One file's outputs."""

    file: str
    outputs: tuple[OutputSummary, ...]


@dataclass(frozen=True, slots=True)
class FolderResult:
    """A folder's run: how many files, the seconds that it took from the first to the last, and what ran the model."""

    model: str
    folder: str
    count: int
    seconds: float
    ran: str


def folder_of(ports: Sequence[TensorSpec], texts: Iterable[str]) -> tuple[str, Path] | None:
    """Return the input that is given a folder, and the folder; None where none is. UsageError for two of them."""
    found = []
    for text in texts:
        name, equals, value = text.partition("=")
        named = equals and any(spec.name == name for spec in ports)
        path = Path(value if named else text)
        if path.is_dir():
            if not named and len(ports) != 1:
                names = ", ".join(spec.name for spec in ports)
                raise UsageError(
                    f"--input {text}: which input is it for?", f"write --input NAME={text}; names: {names}"
                )
            found.append((name if named else ports[0].name, path))
    if len(found) > 1:
        raise UsageError("two inputs are given folders", "give one, and one value to each of the others")
    return found[0] if found else None


def run_folder(
    model: Model,
    name: str,
    folder: Path,
    others: Mapping[str, Any],
    *,
    save_outputs: str | None = None,
    force: bool = False,
    each: Callable[[FolderRow], None] = lambda _: None,
    progress: Progress = lambda *_: None,
) -> FolderResult:
    """Run ``model`` on each file of ``folder`` as its input ``name``, in the order of their names.

    ``others`` are values for the other inputs, the same for every file. ``each`` hears of every file's outputs.
    ``save_outputs`` is a .npz to write: an array for each output with one more axis in front, and ``files``. Hidden
    files and folders are passed over. Raises UsageError where there is no file, and what reading or running one raises,
    named; nothing is written then. A model loaded with ``streams=0`` runs as many inferences at once as its engine is
    the fastest with.
    """
    files = sorted(item.name for item in os.scandir(folder) if item.is_file() and not item.name.startswith("."))
    if not files:
        raise UsageError(f"{folder}: no file in it to run on", "name a folder of images or arrays")
    if save_outputs is not None and Path(save_outputs).suffix != ".npz":
        raise UsageError(f"--save-outputs {save_outputs}: outputs of a folder go into a .npz", "name it .npz")
    if model.info.states:
        raise UsageError(f"{model.path}: a model with states, which files in a row would share", "run file by file")
    wanted = [] if save_outputs is None else [Goal(Path(save_outputs), read_saved)]
    for item in wanted:
        prepare(item.path, force=force, inputs=(model.path, folder))
    start = perf_counter()
    specs = {spec.name: spec for spec in model.outputs}
    with ExitStack() as stack:
        paths = stack.enter_context(staged_set(wanted, force=force)) if wanted else []
        columns = _Columns(paths[0], len(files)) if paths else None
        predicted = _in_order(model, folder, _read_ahead(model, name, folder, files, others), len(files) >= _MANY)
        for place, (file, outputs) in enumerate(predicted):
            if columns is not None:
                columns.add(outputs)
            each(FolderRow(file, tuple(summarize(specs[key], value) for key, value in outputs.items())))
            progress(place + 1, len(files))
        if columns is not None:
            columns.close(files)
    return FolderResult(str(model.path), str(folder), len(files), perf_counter() - start, ran_by(model))


def _in_order(
    model: Model, folder: Path, inputs: Iterator[tuple[str, dict[str, Any]]], many: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each file with its outputs, in order; the next inferences run while these are summarized and written."""
    first = next(inputs)
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
    model: Model, name: str, folder: Path, files: Sequence[str], others: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each file with all inputs; a few files are read before their turn."""
    port = next(spec for spec in model.inputs if spec.name == name)

    def read(file: str) -> dict[str, Any]:
        with _naming(folder / file):
            return {**others, name: to_port(port, folder / file, None, model.stored)}

    yield from read_ahead(files, read)


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


class _Columns:
    """Outputs of many inferences, written to files as they come and joined to one .npz in the end."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._count = path, count
        self._files: dict[str, IO[bytes]] = {}
        self._shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._texts: dict[str, list[str]] = {}
        self._labels: dict[str, list[str]] = {}

    def add(self, outputs: Mapping[str, Any]) -> None:
        """Append one inference's outputs; UsageError where their shape differs from the first one's."""
        for name, value in outputs.items():
            if isinstance(value, str | int):
                self._texts.setdefault(name, []).append(str(value))
                continue
            if isinstance(value, Mapping):
                self._labels.setdefault(f"{name}.labels", [str(key) for key in value])
                value = np.array(list(value.values()), np.float64)
            self._append(name, np.ascontiguousarray(value))

    def _append(self, name: str, array: np.ndarray[Any, Any]) -> None:
        kind = (array.dtype.str, array.shape)
        if name not in self._files:
            part = self._path.with_name(f"{self._path.name}.{len(self._files)}.npy")
            self._shapes[name], self._files[name] = kind, part.open("w+b")
            part.unlink()  # it goes with the process, however that ends
            header = {"descr": kind[0], "fortran_order": False, "shape": (self._count, *array.shape)}
            np.lib.format.write_array_header_1_0(self._files[name], header)  # type: ignore[no-untyped-call]
        if kind != self._shapes[name]:
            raise UsageError(
                f"output '{name}' is of shape {array.shape} for one file and {self._shapes[name][1]} for another",
                "run files of one size, or leave --save-outputs out",
            )
        self._files[name].write(array.tobytes())

    def close(self, files: Sequence[str]) -> None:
        """Write the archive."""
        texts = {**self._texts, **self._labels, "files": list(files)}
        with zipfile.ZipFile(self._path, "w", allowZip64=True) as archive:
            for name, part in self._files.items():
                part.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    shutil.copyfileobj(part, entry, 1 << 20)
                part.close()
            for name, values in texts.items():
                with archive.open(f"{name}.npy", "w") as entry:
                    np.lib.format.write_array(entry, np.array(values), allow_pickle=False)  # type: ignore[no-untyped-call]
