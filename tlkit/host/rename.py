"""The two renames that Python lacks: one that never replaces anything, and one that exchanges two names.

Linux has both since 3.15 (renameat2), macOS since 10.12 (renamex_np); a file system may have neither.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

_AT_FDCWD = -100
_NEW, _EXCHANGE = (4, 2) if sys.platform == "darwin" else (1, 2)
"""Linux: RENAME_NOREPLACE, RENAME_EXCHANGE; macOS: RENAME_EXCL, RENAME_SWAP."""
# the kernel does not have it, or the file system does not
_ABSENT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


def rename_new(source: Path, goal: Path) -> None:
    """Rename ``source`` to ``goal``; raise FileExistsError, changing nothing, if ``goal`` exists."""
    if _rename(source, goal, _NEW):
        return
    if source.is_dir():  # without the call: a rename replaces no folder that has anything in it, and no file
        if os.path.lexists(goal):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(goal))
        source.rename(goal)
        return
    try:
        # A hard link is the one other call that fails, in one step, where the name is taken.
        os.link(source, goal, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # a file system without links either
        if os.path.lexists(goal):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(goal)) from None
        source.rename(goal)
    else:
        source.unlink()


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two paths in one step; return False, changing nothing, where the system cannot.

    Raises OSError where the system can and refuses.
    """
    return _rename(one, other, _EXCHANGE)


def _rename(source: Path, goal: Path, flags: int) -> bool:
    call = _call()
    if call is None:
        return False
    if call(os.fsencode(source), os.fsencode(goal), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in _ABSENT:
        return False
    raise OSError(code, os.strerror(code), str(goal))


@cache
def _call() -> Callable[[bytes, bytes, int], int] | None:
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        renamex: Callable[[bytes, bytes, int], int] | None = getattr(library, "renamex_np", None)
        return renamex
    renameat = getattr(library, "renameat2", None)
    if renameat is None:
        return None
    return lambda source, goal, flags: int(renameat(_AT_FDCWD, source, _AT_FDCWD, goal, flags))
