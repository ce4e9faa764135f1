"""What may be written where: a new path, or one that holds the same kind of output, but never an input.

This is checked before any work is done, by resolved paths and inodes: symbolic links, hard links and case-insensitive
file systems give one file several names.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlkit.errors import UsageError, WriteError

_ELSEWHERE = "write to a place outside it"


@dataclass(frozen=True)
class Kind:
    """A kind of output: its ``name`` in a sentence and, for a folder, how to find what does not belong in one.

    ``foreign`` returns the path of a file in the folder that is not part of such an output, or None.
    """

    name: str
    foreign: Callable[[Path], Path | None] | None = None


FILE = Kind("a file")


def files_named(*texts: object) -> Iterator[Path]:
    """Yield the existing files and folders that arguments name: ``net.py:Net``, ``x=scan.png``, ``a.npz:key``.

    Anything but text and paths (a module, an array, None) names no file; sequences and mappings are searched.
    """
    for text in texts:
        if isinstance(text, str | os.PathLike):
            whole = os.fspath(text)
            value = whole.partition("=")[2]
            # The whole text first: a file's name can contain = and :.
            for name in (whole, whole.rpartition(":")[0], value, value.rpartition(":")[0]):
                if name and _identity(Path(name)):
                    yield Path(name)
                    break
        elif isinstance(text, dict):
            yield from files_named(*text.values())
        elif isinstance(text, list | tuple):
            yield from files_named(*text)


def check_goal(goal: Path, *, force: bool = False, kind: Kind = FILE, inputs: Iterable[Path] = ()) -> None:
    """Raise :class:`UsageError` or :class:`WriteError` if ``goal`` cannot be written, before any work is done.

    ``force`` lets it replace an output of the same ``kind``. A goal that is one of ``inputs``, lies in one or contains
    one is always refused.
    """
    if goal.name in ("", ".."):
        raise UsageError(f"'{goal}' is not a name for {kind.name}", "name what is to be written: a new file or folder")
    folder = goal.parent
    for item in inputs:
        _check_apart(goal, item)
    if not folder.is_dir():
        raise UsageError(f"{goal}: there is no folder {folder}", f"create it first: mkdir -p {folder}")
    if os.path.lexists(goal):
        if not force:
            raise UsageError(f"{goal} exists already", "choose another name, or replace it with --force")
        _check_replaceable(goal, kind)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(f"{goal}: the folder {folder} is not writable", "choose a folder that you may write to")


def check_distinct(goals: Sequence[Path]) -> None:
    """Raise :class:`UsageError` where two outputs of one command are the same, or one lies inside the other."""
    for index, one in enumerate(goals):
        for other in goals[index + 1 :]:
            first, second = _folded(one), _folded(other)
            if first == second:
                raise UsageError(f"{one} and {other} are the same output", "give each its own name")
            if first in second.parents or second in first.parents:
                raise UsageError(f"one of {one} and {other} lies inside the other", "write them to separate places")


def _check_apart(goal: Path, item: Path) -> None:
    theirs, here = _identity(item), _identity(goal)
    if theirs is None:
        return
    if theirs == here:
        raise UsageError(f"{goal} is the input itself", "write to another name; inputs are never replaced")
    place = goal.parent.resolve()
    if item.is_dir() and theirs in map(_identity, (place, *place.parents)):
        raise UsageError(f"{goal} lies in the input folder {item}", _ELSEWHERE)
    # Both: replacing a folder that holds the link to an input loses the link.
    above = (*item.resolve().parents, *Path(os.path.abspath(item)).parents)
    if here is not None and here in map(_identity, above):
        raise UsageError(f"{goal} contains the input {item}", "write to another name: the input would be lost")


def _check_replaceable(goal: Path, kind: Kind) -> None:
    """Raise UsageError where replacing what is at ``goal`` would lose more than an output of the same kind."""
    if goal.is_symlink():
        leads = f"name its target ({os.readlink(goal)}), or another file"
        raise UsageError(f"{goal} is a link, which --force does not replace", leads)
    mode = goal.lstat().st_mode
    if kind.foreign is None:
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise UsageError(f"{goal} is {what}, which --force does not replace", "choose another name")
        return
    if not stat.S_ISDIR(mode):
        raise UsageError(f"{goal} is not {kind.name}: --force does not replace it", "choose another name")
    found = kind.foreign(goal)
    if found is not None:
        hint = "move it elsewhere if you need it, or choose another name"
        raise UsageError(f"{goal}: --force does not delete {found}, which is not part of {kind.name}", hint)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of what ``path`` resolves to, or None where nothing is there."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return found.st_dev, found.st_ino


def _folded(path: Path) -> Path:
    # The last part is not resolved: a link is itself an output's place. Case and Unicode form are folded as macOS does.
    whole = path.parent.resolve() / path.name
    return Path(unicodedata.normalize("NFC", str(whole)).casefold())
