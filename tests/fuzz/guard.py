"""What an input may not do while it is read: write elsewhere, start programs, open connections, fill the memory.

Three nets: an audit hook sees what Python opens, moves and removes anywhere; a snapshot of the folders around the input
sees what C++ wrote there; and the process's own peak of memory is read from the kernel.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "pty.spawn")
_PATHS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
_PATHS += ("os.chown", "os.utime", "shutil.rmtree", "os.setxattr")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_KEPT = 16 << 20  # bytes of memory an input may leave behind before they are handed back to the system


class Guard:
    """Watches one worker. ``root`` is its own folder: inputs live in ``root``/…/case, outputs in ``root``/…/out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.around = root / "around/a/b"
        self.case, self.out, self.tmp, self.home = (self.around / name for name in ("case", "out", "tmp", "home"))
        torch = root / "torch"  # where torch makes its cache when it first has an error to tell
        cache = root / "cache"  # where tlkit keeps what was compiled
        for folder in (self.case, self.out, self.tmp, self.home, torch, cache):
            folder.mkdir(parents=True)
        self.canary = root / "canary"
        self.canary.mkdir()
        (self.canary / "bird").write_bytes(b"sings")
        self._free = tuple(os.fspath(folder) for folder in (self.case, self.out, self.tmp, torch, cache))
        self._on = False
        self._events: list[str] = []
        os.environ |= {"HOME": str(self.home), "TMPDIR": str(self.tmp), "XDG_CACHE_HOME": str(cache)}
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(torch)
        import tempfile

        tempfile.tempdir = str(self.tmp)
        os.chdir(self.home)
        self._sound = self._snapshot()
        sys.addaudithook(self._audit)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the body."""
        self._events.clear()
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def escaped(self, given: dict[str, tuple[int, int, int]]) -> list[str]:
        """Return what was written where nothing may be, since ``watching`` began; ``given`` is :meth:`stamp`'s."""
        found = list(self._events)
        if self.stamp() != given:
            found.append("the input itself was changed")
        now = self._snapshot()
        if now != self._sound:
            found += [f"changed: {name}" for name in {*now, *self._sound} if now.get(name) != self._sound.get(name)]
            self._sound = now
        if os.listdir(self.tmp):
            gc.collect()  # what belongs to an object goes with it
            found += [f"left in the temporary folder: {name[:12]}" for name in sorted(os.listdir(self.tmp))[:1]]
        return found

    def stamp(self) -> dict[str, tuple[int, int, int]]:
        """Return size, time and inode of each file of the input."""
        return _stamps(self.case)

    def _snapshot(self) -> dict[str, tuple[int, int, int]]:
        found = _stamps(self.canary) | _stamps(self.home)
        for folder in (self.around, self.around.parent, self.around.parent.parent, self.root):
            found |= {f"{folder.name}/{name}": (0, 0, 0) for name in os.listdir(folder)}
        return found

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = (isinstance(flags, int) and flags & _WRITES) or (isinstance(mode, str) and set(mode) & set("wax+"))
            if writes and not isinstance(path, int):
                self._check(event, path)
        elif event in _PATHS:
            paths = arguments[: 2 if event in ("os.rename", "os.link") else 1]
            relative = any(isinstance(item, int) and item >= 0 for item in arguments[len(paths) :])
            for path in paths:  # those beside an open folder are shutil.rmtree's, which is looked at itself
                if not relative or os.path.isabs(os.fsdecode(path)):
                    self._check(event, path)
        elif event in _STARTS and not _rehearses():
            self._events.append(f"{event} {str(arguments)[:100]}")

    def _check(self, event: str, path: Any) -> None:
        if isinstance(path, int):
            return
        name = os.path.abspath(os.fsdecode(path))
        if not name.startswith(self._free) and name != "/dev/null":
            self._events.append(f"{event} {name[:100]}")


def _rehearses() -> bool:
    """Whether what is about to be done is tlkit's own fork, in which it tries what may crash."""
    frame = sys._getframe(2)
    return frame.f_globals.get("__name__") == "tlkit.host.rehearse" and frame.f_code.co_name == "_fork"


def _stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(place, name)
            status = os.lstat(path)
            size, when = (status.st_size, status.st_mtime_ns) if name in files else (0, 0)
            found[path] = (size, when, status.st_ino)
    return found


class Memory:
    """The process's peak of resident memory while an input is read, in bytes above what it had before."""

    def __init__(self) -> None:
        self._resettable = os.access("/proc/self/clear_refs", os.W_OK) and self._reset()
        self._before = 0
        try:
            self._libc = ctypes.CDLL("libc.so.6")
        except OSError:
            self._libc = None

    def limit(self, spare: int) -> None:
        """Let the process have ``spare`` bytes of private memory more than it has now; past it, MemoryError."""
        if sys.platform == "linux":
            private = _status("VmData")
            resource.setrlimit(resource.RLIMIT_DATA, (private + spare, resource.getrlimit(resource.RLIMIT_DATA)[1]))

    def start(self) -> None:
        """Remember what there is."""
        self._before = _resident()
        if self._resettable:
            self._reset()

    def grown(self) -> int:
        """Return by how much the peak was above the start; hand back what is kept for no reason."""
        peak = _status("VmHWM") if self._resettable else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if _resident() - self._before > _KEPT:
            gc.collect()
            if self._libc is not None:
                self._libc.malloc_trim(0)
        return max(0, peak - self._before)

    def _reset(self) -> bool:
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        except OSError:
            return False
        return True


def _resident() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _status(key: str) -> int:
    with open("/proc/self/status", "rb") as file:
        text = file.read()
    at = text.index(key.encode() + b":")
    return int(text[at:].split(None, 2)[1]) * 1024
