"""Outputs that are complete or not there: written beside their goal, then renamed.

An interrupt, a full disk or a crash of the code in between leaves what was there before, or nothing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tlkit.errors import TlkitError, UsageError, reason
from tlkit.host.interrupt import check, interruptible


class WriteError(TlkitError):
    """An output could not be written: the folder is read-only, the disk is full."""

    exit_code = 4


def check_goal(goal: Path, *, force: bool = False) -> None:
    """Raise :class:`UsageError` or :class:`WriteError` if ``goal`` cannot be written, before any work is done."""
    folder = goal.parent
    if not folder.is_dir():
        raise UsageError(f"{goal}: there is no folder {folder}", f"make it first: mkdir -p {folder}")
    if os.path.lexists(goal) and not force:
        raise UsageError(f"{goal} exists already", "choose another name, or replace it with --force")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(f"{goal}: the folder {folder} is not writable", "choose a folder that you may write to")


@contextmanager
def staged(goal: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a path to write (a file or a folder) that becomes ``goal`` when the body ends well.

    The path has ``goal``'s name and lies in a hidden folder beside it, so that the rename never crosses file systems.
    What ``goal`` held before stays until the new is complete. SIGTERM, where nobody handles it, ends the body as
    Ctrl-C does and leaves exit code 143.
    """
    check_goal(goal, force=force)
    with interruptible(), _write_errors(goal):
        folder = Path(tempfile.mkdtemp(prefix=f".{goal.name}.", dir=goal.parent))
        try:
            new = folder / goal.name
            yield new
            check()
            _put(new, goal, folder / "replaced", force)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _put(new: Path, goal: Path, old: Path, force: bool) -> None:
    check_goal(goal, force=force)  # somebody may have written it meanwhile
    try:
        if os.path.lexists(goal):
            goal.rename(old)
        new.rename(goal)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(goal):
            old.rename(goal)
        raise


@contextmanager
def _write_errors(goal: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{goal}: cannot write: {reason(error)}", "nothing was written; free some space or choose another folder"
        ) from error
