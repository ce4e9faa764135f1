"""The hidden folder beside an output in which it is made: locked while its process lives, cleared by the next one.

A stage holds ``new/`` (what is being written), ``old/`` (what it replaces) and a journal. The journal says whose stage
it is and, once outputs get their names, which files those are: if a process is killed between two renames, the next one
that writes to the same name undoes them.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tlkit.errors import WriteError

_JOURNAL = "tlkit-stage.json"
_LONGEST = 80  # bytes of the output's name that go into its stage's name: names end at 255
_PATIENCE = 30.0  # seconds to wait for another process that renames its outputs


class Staging:
    """A hidden folder in ``parent`` for the output ``name`` (and others with it); :meth:`close` removes it."""

    def __init__(self, parent: Path, name: str) -> None:
        self.parent = parent
        self.folder, self._lock = _make(parent, name)
        self._about = {"tlkit": "stage", "host": os.uname().nodename, "name": name}
        self.note(())
        for part in ("new", "old"):
            (self.folder / part).mkdir()

    def new(self, name: str) -> Path:
        """Return the path at which to write the output ``name``."""
        return self.folder / "new" / name

    def old(self, name: str) -> Path:
        """Return the path that keeps the previous ``name`` until everything is done."""
        return self.folder / "old" / name

    def note(self, names: Sequence[str]) -> None:
        """Record in the journal that the outputs ``names``, all complete, are about to be renamed into place."""
        items = {name: _mark(self.new(name)) for name in names}
        # A rename, so that whoever reads the journal after a crash finds all of it or the one before.
        draft = self.folder / f"{_JOURNAL}.new"
        draft.write_text(json.dumps({**self._about, "items": items}))
        draft.replace(self.folder / _JOURNAL)

    def close(self) -> None:
        """Remove the folder and its contents; a second call does nothing."""
        if self._lock is not None or self.folder.exists():
            _clear(self.folder)
            lock, self._lock = self._lock, None
            if lock is not None:
                os.close(lock)


def clear_leftovers(parent: Path, name: str) -> None:
    """Undo and remove what killed processes left when writing ``name``; stages of live processes stay."""
    prefix = _prefix(name)
    try:
        found = [Path(item.path) for item in os.scandir(parent) if item.name.startswith(prefix)]
    except OSError:
        return
    for folder in found:
        lock = _locked(folder)
        if lock is None:
            continue
        try:
            with suppress(OSError), taking_turns([parent]):
                if _is_ours(folder, name) and _taken_back(folder):
                    _clear(folder)
        finally:
            os.close(lock)


@contextmanager
def taking_turns(parents: Sequence[Path]) -> Iterator[None]:
    """Let one process at a time rename things in the folders ``parents``, where their file system has locks."""
    locks: list[int] = []
    try:
        # Sorted, so that two processes with the same folders cannot wait for each other.
        for parent in sorted(set(parents)):
            with suppress(PermissionError):  # a folder that may be written to and not be listed
                locks.append(os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                _wait_for(locks[-1], parent)
        yield
    finally:
        for descriptor in locks:
            os.close(descriptor)


def _wait_for(descriptor: int, parent: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return  # a file system without locks, so there is nobody to wait for
            if time.monotonic() > end:
                raise WriteError(f"{parent}: another process keeps it locked", "wait until it has ended") from None
            time.sleep(0.01)


def _prefix(name: str) -> str:
    # The cut may split a character, whose remaining bytes are dropped.
    short = os.fsencode(name)[:_LONGEST].decode("utf-8", "ignore")
    return f".{short}.tlkit-"


def _make(parent: Path, name: str) -> tuple[Path, int | None]:
    """Make the folder and lock it; try again if another process took it for a leftover before it was locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(name), dir=parent))
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                continue
            return folder, None  # without locks nobody clears it, either
        if folder.exists():
            return folder, lock
        os.close(lock)


def _locked(folder: Path) -> int | None:
    """Return a lock on a stage whose process is gone; None where the lock is taken or cannot be had."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _journal(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / _JOURNAL).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_ours(folder: Path, name: str) -> bool:
    """Whether ``folder`` is a stage for ``name`` made on this machine, or one without a journal yet.

    On a shared file system other machines' locks may not be visible.
    """
    about = _journal(folder)
    if not about:
        return not {item.name for item in os.scandir(folder)} - {f"{_JOURNAL}.new"}
    return (about.get("tlkit"), about.get("host"), about.get("name")) == ("stage", os.uname().nodename, name)


def _taken_back(folder: Path) -> bool:
    """Undo interrupted renames; False where a replaced output cannot go back, so that it stays in the stage."""
    items = _journal(folder).get("items") or {}
    goals = {name: folder.parent / name for name in items}
    placed = {name for name, mark in items.items() if _mark(goals[name]) == mark}
    if len(placed) == len(items):
        return True  # all have their names (or none was to get one): only the stage is left
    for name in placed:
        goals[name].rename(folder / "new" / name)
    kept = [name for name in items if os.path.lexists(folder / "old" / name)]
    for name in kept:
        if not os.path.lexists(goals[name]):
            (folder / "old" / name).rename(goals[name])
    return not any(os.path.lexists(folder / "old" / name) for name in kept)


def _mark(path: Path) -> list[int] | None:
    """Return what tells this file from another of the same name: device, inode and, for a file, size and time."""
    try:
        found = path.lstat()
    except OSError:
        return None
    still = stat.S_ISREG(found.st_mode)
    return [found.st_dev, found.st_ino, found.st_size if still else 0, found.st_mtime_ns if still else 0]


def _clear(folder: Path) -> None:
    """Remove a stage, its journal last: killed on the way, it is still known as a stage by the next process."""
    for part in ("new", "old"):
        _remove(folder / part)
    _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a tree, including folders without write permission (a copied read-only package)."""
    for place, _, _ in os.walk(folder):
        with suppress(OSError):
            os.chmod(place, 0o700)
    shutil.rmtree(folder, ignore_errors=True)
