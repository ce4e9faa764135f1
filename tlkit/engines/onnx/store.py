"""Files in tlkit's cache folder that are kept within a limit and believed only if they are whole.

An entry is a file whose name is the hash of its key. It holds the contents (at its start, so that they can be mapped),
the key and a checksum, which finds accidents and is as fast as memory: hundreds of MB are checked before the first
result. One that is damaged, of another key or not the user's own counts as missing. Entries are written
beside their goal and renamed; what was used longest ago goes first when the limit is reached.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tlkit.host.machine import cache_folder

LIMIT = 2 << 30
"""Bytes that compiled models may take."""
_MAGIC = b"tlkit cache 3\n"
_DIGEST = 32
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Contents:
    """What a store holds: entries, their bytes, and the limit."""

    folder: Path
    entries: int
    size: int
    limit: int


class Store:
    """The entries below ``folder`` of the cache folder (``compiled`` by default)."""

    def __init__(self, folder: Path | None = None, limit: int = LIMIT) -> None:
        self.folder = folder or cache_folder() / "compiled"
        self.limit = limit

    def contents(self) -> Contents:
        """Return how much there is."""
        sizes = [size for _, size, _ in self._entries()]
        return Contents(self.folder, len(sizes), sum(sizes), self.limit)

    def has(self, key: str) -> bool:
        """Whether there is an entry for the key; it may turn out to be damaged."""
        return self._place(key).is_file()

    def load(self, key: str) -> bytes | None:
        """Return an entry's contents; None where there is none, or it is damaged, another's or another key's."""
        try:
            with self._opened(
                key
            ) as file:  # in parts: an entry may have gigabytes, and a copy takes as long as reading
                body, tail = file.read(_body(file, key)), file.read()
        except OSError:
            return None
        checksum = Checksum()
        checksum.add(body)
        if tail != _tail(key, checksum.digest()):
            self.drop(key)
            return None
        return body

    def mapped(self, key: str) -> MappedEntry | None:
        """Return an entry whose contents are mapped and not checked yet; None where there is none, or another's."""
        try:
            with self._opened(key) as file:
                size = _body(file, key)
                return MappedEntry(self._place(key), key, size, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
        except (OSError, ValueError):
            return None

    def _opened(self, key: str) -> IO[bytes]:
        """Open an entry of the user's own, which is thereby the one used last; OSError where there is none."""
        place = self._place(key)
        if hasattr(os, "getuid") and place.stat().st_uid != os.getuid():
            raise PermissionError(place)
        file = place.open("rb")
        os.utime(place)
        return file

    def store(self, key: str, pieces: Iterable[bytes], size: int) -> None:
        """Keep contents of ``size`` bytes, given in pieces, and let the oldest entries go where that exceeds the limit.
        Raises OSError."""
        if size > self.limit:
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_room(size)
        handle, name = tempfile.mkstemp(prefix=".new-", dir=self.folder)
        try:
            checksum = Checksum()
            with os.fdopen(handle, "wb") as file:
                for piece in pieces:
                    checksum.add(piece)
                    file.write(piece)
                file.write(_tail(key, checksum.digest()))
            os.replace(name, self._place(key))
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise

    def drop(self, key: str) -> None:
        """Remove an entry, if it is there."""
        with suppress(OSError):
            self._place(key).unlink()

    def _place(self, key: str) -> Path:
        return self.folder / hashlib.sha256(key.encode()).hexdigest()[:40]

    def _entries(self) -> list[tuple[float, int, Path]]:
        """Return (time of last use, bytes, path) of every entry, the oldest first."""
        found = []
        with suppress(OSError):
            for path in self.folder.iterdir():
                with suppress(OSError):
                    status = path.stat()
                    found.append((status.st_mtime, status.st_size, path))
        return sorted(found)

    def _make_room(self, size: int) -> None:
        entries = self._entries()
        total = size + sum(item[1] for item in entries)
        for _, taken, path in entries:
            if total <= self.limit:
                return
            with suppress(OSError):
                path.unlink()
                total -= taken


@dataclass(frozen=True, slots=True)
class MappedEntry:
    """An entry's contents as mapped memory."""

    place: Path
    key: str
    size: int
    memory: mmap.mmap

    def whole(self) -> bool:
        """Whether the contents are what was stored; reads the file and touches no mapped page."""
        checksum, left = Checksum(), self.size
        try:
            with self.place.open("rb") as file:
                while left and (piece := file.read(min(left, _PIECE))):
                    checksum.add(piece)
                    left -= len(piece)
                return file.read() == _tail(self.key, checksum.digest())
        except OSError:
            return False

    def release(self) -> None:
        """Give the pages back to the system, which reads them again if they are asked for."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.memory.madvise(mmap.MADV_DONTNEED)


class Checksum:
    """SHA-256 of the sums of pieces' 64-bit words, modulo 2^64: what shows is any change of one word in a piece, and
    pieces that have changed places."""

    def __init__(self) -> None:
        self._digest, self._rest = hashlib.sha256(), b""

    def add(self, data: bytes) -> None:
        """Add what follows, in parts of any length."""
        import numpy as np  # late: commands that only ask what the store holds do without it

        view = memoryview(data)
        while len(self._rest) + len(view) >= _PIECE:
            first = _PIECE - len(self._rest)
            piece = b"".join((self._rest, view[:first])) if self._rest else view[:first]
            self._digest.update(np.frombuffer(piece, "<u8").sum(dtype="<u8").tobytes())
            self._rest, view = b"", view[first:]
        self._rest += bytes(view)

    def digest(self) -> bytes:
        """Return the checksum of all that was added."""
        found = self._digest.copy()
        found.update(self._rest)
        return found.digest()


def _tail(key: str, digest: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(key.encode()).digest() + digest


def _body(file: IO[bytes], key: str) -> int:
    """Return the bytes of an open entry's contents."""
    return max(os.fstat(file.fileno()).st_size - len(_tail(key, bytes(_DIGEST))), 0)
