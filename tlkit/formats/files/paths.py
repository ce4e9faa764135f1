"""Check paths named in untrusted files: they must lead to regular files below the folder being read."""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath

from tlkit.errors import LoadError, reason

_DISTRUST = "do not trust this file"


def inside(root: Path, base: Path, name: str) -> Path:
    """Return ``base/name`` if it lies in ``root`` after links are followed; LoadError otherwise.

    One kind of link out is allowed: Hugging Face's cache keeps ``snapshots/REVISION/...`` as links into ``blobs/``.
    """
    target = base / PurePosixPath(name.replace("\0", ""))
    try:
        real, home = target.resolve(), root.resolve()
        target.is_file()  # which raises for a name that is too long for a file system
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name that no file system takes
        raise LoadError(f"{root}: the path '{name[:100]}' leads nowhere: {reason(error)}", _DISTRUST) from None
    cache = next((p.parent.parent for p in (home, *home.parents) if p.parent.name == "snapshots"), None)
    linked = cache is not None and ".." not in target.parts and real.parent == cache / "blobs"
    if name and (real.is_relative_to(home) or linked):
        return target
    if name and not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts:
        what = f"'{name[:100]}' is a link to {str(real)[:200]}"
        raise LoadError(
            f"{root}: {what}, outside the package", f"{_DISTRUST}; if the link is yours, copy its target there"
        )
    raise LoadError(f"{root}: it names the path '{name[:100]}', outside the package", _DISTRUST)


def regular_size(path: Path) -> int:
    """Return the size of the regular file ``path``; LoadError for anything else: devices have no end, and opening a
    pipe without a writer would block.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise LoadError(f"{path}: {reason(error)}", "check the path") from None
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise LoadError(f"{path}: {what}, not a file", "name a model file or package")
    return found.st_size
