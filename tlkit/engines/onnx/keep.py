"""Compiled graphs kept in the user's cache folder, for one model: the key names all that a compiled graph depends on.

That is the model's files, the function, tlkit's version and its lowering, the processor and its number of threads; the
engine adds the runtime, the precision and the shapes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path

from tlkit import __version__
from tlkit.engines.engine import HowToRun, Loadable
from tlkit.engines.onnx.store import Store
from tlkit.engines.told import remark
from tlkit.errors import reason
from tlkit.host.machine import describe_machine, expected_threads

LARGE = 512 << 20
"""Bytes of a model's files from which on memory comes first: nothing compiled is kept, or compiled twice."""
_PIECE = 1 << 20


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
        if self._key is None:
            return
        try:
            contents = blob()
            if contents is not None:
                self._store.store(f"{self._key} {what}", contents)
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
    """Return the bytes of a model's files."""
    return sum(path.stat().st_size for path in _files(model.path))


def _files(path: Path) -> tuple[Path, ...]:
    return tuple(sorted(item for item in path.rglob("*") if item.is_file())) if path.is_dir() else (path,)


def _model_key(model: Loadable, settings: HowToRun) -> str:
    files = _files(model.path)
    known = tuple((status.st_size, status.st_mtime_ns, status.st_ino) for status in map(os.stat, files))
    machine = describe_machine()
    contents = _contents(model.path, files, known)
    facts = [contents, model.function, settings.strict_mil, __version__, _lowering(), version("torch")]
    return json.dumps([*facts, machine.cpu, _features(), expected_threads()])


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
def _lowering() -> str:
    """Return a hash of the modules that make graphs: another tlkit makes other ones."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
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
