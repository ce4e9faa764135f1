"""Temporary folders that do not outlive their process: those of killed processes are removed by the next one."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCK = ".lock"
_FRESH = 60  # seconds in which a folder's maker may not have locked it yet


def scratch_folder(prefix: str, owner: object) -> Path:
    """Return a new temporary folder that is removed with ``owner``; its name starts with ``prefix``, the caller's own.

    Folders with that prefix that killed processes left behind are removed first.
    """
    _sweep(Path(tempfile.gettempdir()), prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)  # the system releases it however the process ends
    _lock(lock)
    weakref.finalize(owner, _remove, folder, lock)
    return folder


class _Owner:
    """Somebody to own a folder."""


@contextmanager
def temporary_files(prefix: str) -> Iterator[Path]:
    """Let temporary files that libraries make while the body runs lie in a scratch folder, which goes with the body.

    coremltools leaves its own behind where a signal ends the process.
    """
    owner, before = _Owner(), tempfile.tempdir
    folder = scratch_folder(prefix, owner)
    tempfile.tempdir = str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        del owner  # the folder goes with it


def _remove(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def _sweep(place: Path, prefix: str) -> None:
    for folder in place.glob(f"{prefix}*"):
        with suppress(OSError):
            found = folder.lstat()
            # Never another user's folder, a link, or one that its maker has not had time to lock.
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and time.time() - found.st_mtime > _FRESH:
                _remove_abandoned(folder)


def _remove_abandoned(folder: Path) -> None:
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        if _lock(lock):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _lock(file: int) -> bool:
    """Lock the open ``file`` until it is closed; False where another process holds the lock."""
    try:
        import fcntl  # not on Windows
    except ImportError:  # Windows: nothing is known of other processes, so nothing of theirs is removed
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
