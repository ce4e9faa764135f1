"""Files in tlkit's cache folder that are kept within a limit and believed only if they are whole.

An entry is a file whose name is the hash of its key. It holds the key, a checksum and the contents. One that is
damaged, of another key or not the user's own counts as missing. Entries are written beside their goal and renamed; what
was used longest ago goes first when the limit is reached.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tlkit.host.machine import cache_folder

LIMIT = 2 << 30
"""Bytes that compiled models may take."""
_MAGIC = b"tlkit cache 1\n"


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
        place = self._place(key)
        try:
            if hasattr(os, "getuid") and place.stat().st_uid != os.getuid():
                return None
            wanted = _head(key)
            with place.open("rb") as file:  # in parts: an entry may have gigabytes, and a copy takes as long as reading
                head, digest, body = file.read(len(wanted)), file.read(32), file.read()
            os.utime(place)
        except OSError:
            return None
        if head != wanted or digest != hashlib.sha256(body).digest():
            self.drop(key)
            return None
        return body

    def store(self, key: str, contents: bytes) -> None:
        """Keep ``contents``, and let the oldest entries go where that exceeds the limit. Raises OSError."""
        if len(contents) > self.limit:
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_room(len(contents))
        handle, name = tempfile.mkstemp(prefix=".new-", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_head(key) + hashlib.sha256(contents).digest())
                file.write(contents)
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


def _head(key: str) -> bytes:
    return _MAGIC + hashlib.sha256(key.encode()).digest()
