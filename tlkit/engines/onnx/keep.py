"""Compiled graphs kept in the user's cache folder, for one model: the key names all that a compiled graph depends on.

That is the model's files, the function, tlkit's version and its lowering, the processor and its number of threads; the
engine adds the runtime, the precision and the shapes.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path

from tlkit import __version__
from tlkit.engines.engine import HowToRun, Loadable
from tlkit.engines.onnx.store import MappedEntry, Store
from tlkit.engines.told import remark
from tlkit.errors import reason
from tlkit.host.machine import describe_machine, expected_threads

LARGE = 512 << 20
"""Bytes of a model's files from which on memory comes first: nothing compiled is kept, or compiled twice."""
_PIECE = 1 << 20
_WRITTEN = 1 << 16
"""Bytes written at a time to what will be mapped. Linux caches a file in pieces as large as it was written in, and maps
the whole piece where one byte of it is looked at: by megabytes, a few scattered constants took 45 MB."""


class Keep:
    """What was compiled of one model; a remark says, once, why nothing can be kept. With no key it keeps nothing."""

    def __init__(self, key: str | None, store: Store | None = None) -> None:
        self._key, self._store = key, store or Store()

    def has(self, what: str) -> bool:
        """Whether there is a compiled graph for ``what``."""
        return self._key is not None and self._store.has(f"{self._key} {what}")

    def load(self, what: str) -> bytes | None:
        """Return the compiled graph for ``what``, or None."""
        return None if self._key is None else self._store.load(f"{self._key} {what}")

    def mapped(self, what: str) -> MappedEntry | None:
        """Return the compiled graph for ``what`` as mapped memory, or None."""
        return None if self._key is None else self._store.mapped(f"{self._key} {what}")

    @contextmanager
    def beside(self) -> Iterator[Path | None]:
        """Give a folder for the time being, on the disk of what is kept; None where nothing is kept."""
        found = None
        if self._key is not None:
            with suppress(OSError):
                self._store.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                found = tempfile.TemporaryDirectory(dir=self._store.folder.parent, prefix=".compiling-")
        if found is None:
            yield None
            return
        with found as name:
            yield Path(name)

    def store_file(self, what: str, file: Path, start: int) -> None:
        """Keep what a file has from ``start`` on (nothing where that is negative); as :meth:`store`."""
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size - start
            opened.seek(max(start, 0))
            self._stored(what, size if start >= 0 else 0, iter(lambda: opened.read(_WRITTEN), b""))

    @property
    def keeps(self) -> bool:
        """Whether it would keep anything."""
        return self._key is not None

    def drop(self, what: str) -> None:
        """Forget the compiled graph for ``what``: its runtime refused it."""
        if self._key is not None:
            self._store.drop(f"{self._key} {what}")

    def store(self, what: str, blob: Callable[[], bytes | None]) -> None:
        """Keep a compiled graph, unless its runtime has no form for that; a full or unwritable folder is a note."""
        contents = blob() if self._key is not None else None
        if contents is not None:
            self._stored(what, len(contents), [contents])

    def _stored(self, what: str, size: int, pieces: Iterable[bytes]) -> None:
        if self._key is None or not size:
            return
        try:
            self._store.store(f"{self._key} {what}", pieces, size)
        except OSError as error:
            self._key = None
            remark(f"compiled models are not kept: {self._store.folder}: {reason(error)}")


def keep_for(model: Loadable, settings: HowToRun) -> Keep:
    """Return what is kept of ``model``; nothing for a stage of a pipeline, or where the settings say so."""
    if settings.part or not settings.cache or os.environ.get("TLKIT_NO_CACHE"):
        return Keep(None)
    try:
        return Keep(_model_key(model, settings))
    except OSError:
        return Keep(None)


def size_of(model: Loadable) -> int:
    """Return the bytes of a model's files; a temporary one may be gone by now."""
    total = 0
    for path in _files(model.path):
        with suppress(OSError):
            total += path.stat().st_size
    return total


def _files(path: Path) -> tuple[Path, ...]:
    return tuple(sorted(item for item in path.rglob("*") if item.is_file())) if path.is_dir() else (path,)


def _model_key(model: Loadable, settings: HowToRun) -> str:
    files = _files(model.path)
    known = tuple((status.st_size, status.st_mtime_ns, status.st_ino) for status in map(os.stat, files))
    contents = _contents(model.path, files, known)
    facts = [contents, model.function, settings.strict_mil, lowering(Path(__file__).parent), version("torch")]
    return json.dumps([*facts, *this_machine(), expected_threads()])


def this_machine() -> list[str]:
    """Return what compiled graphs depend on beside the model: tlkit's version, and the processor."""
    return [__version__, describe_machine().cpu, _features()]


def keep_of_files(paths: Sequence[Path], *facts: object) -> Keep:
    """Return what is kept of models that lie in ``paths``, which are known by size and time, since reading gigabytes
    would take as long as what it is to spare; ``facts`` are what else a compiled graph depends on."""
    if os.environ.get("TLKIT_NO_CACHE"):
        return Keep(None)
    try:
        known = [(str(p.resolve()), s.st_size, s.st_mtime_ns, s.st_ino) for p in paths if (s := p.stat())]
    except OSError:
        return Keep(None)
    return Keep(json.dumps([known, *this_machine(), *facts]))


@lru_cache(8)
def _contents(root: Path, files: tuple[Path, ...], known: tuple[tuple[int, int, int], ...]) -> str:
    """Return a hash of the files of a model; each is read once in a process, unless it changes."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(str(path.relative_to(root)).encode() + b"\0")
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    return digest.hexdigest()


@cache
def lowering(*folders: Path) -> str:
    """Return a hash of the modules in ``folders``, which make graphs: another tlkit makes other ones."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _features() -> str:
    """Return a hash of the processor's features, as far as the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(flags.encode()).hexdigest()[:16]
