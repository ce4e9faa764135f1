"""Files mapped into memory, read-only, with errors that name the file; and untrusted JSON."""

from __future__ import annotations

import codecs
import json
import mmap
from functools import cached_property
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError, reason
from tlkit.formats.files.paths import regular_size

DAMAGED = "the file is damaged or cut short: fetch or write it again"
_DEPTH = 64  # of nested lists and objects, far more than any model's header has
JSON_ITEMS = 1 << 21
"""The default limit of items, lists and objects in a JSON text."""


class Mapped:
    """One file, mapped on first access; its size is known before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = regular_size(path)

    @cached_property
    def map(self) -> mmap.mmap:
        """The mapping; nothing is read before it is used."""
        if not self.size:
            raise LoadError(f"{self.path}: the file is empty", "fetch or convert it again")
        try:
            with self.path.open("rb") as file:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise LoadError(
                f"{self.path}: cannot be mapped: {reason(error)}", "check the path and its permissions"
            ) from None

    @cached_property
    def view(self) -> memoryview:
        """The whole file as one view."""
        return memoryview(self.map)

    def release(self, start: int, end: int) -> None:
        """Release the mapped pages between ``start`` and ``end``, so that a long read needs little memory."""
        # Whole pages only: the pages at the edges may hold neighbours' bytes that are in use.
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = min(end, self.size) // mmap.PAGESIZE * mmap.PAGESIZE
        # Back to 64 MiB before, for what an earlier call left: pages at the seams of its pieces.
        first = max(first - (1 << 26), 0)
        if last > first and hasattr(mmap, "MADV_DONTNEED"):
            self.map.madvise(mmap.MADV_DONTNEED, first, last - first)

    def broken(self, why: str) -> LoadError:
        """Return the LoadError for a damaged file."""
        return LoadError(f"{self.path}: {why}", DAMAGED)


def parse_json(data: bytes | memoryview, where: str, parts: int = JSON_ITEMS) -> Any:
    """Parse JSON; LoadError for invalid JSON, repeated keys, more than ``parts`` items, or deep nesting."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            # Parsers differ in which of two equal keys counts, so a file could mean two things.
            keys = [key for key, _ in pairs]
            twice = next(key for key in found if keys.count(key) > 1)
            raise LoadError(f"{where}: the key '{twice[:100]}' appears twice", DAMAGED)
        return found

    try:
        text = str(data, "utf-8")
        if sum(text.count(mark) for mark in "[{,") > parts:  # each becomes some hundred bytes of memory
            raise ValueError("it has millions of items, more than any model needs")
        found = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{where}: not readable as JSON: {reason(error)[:100]}", DAMAGED) from None
    if _deeper(found, _DEPTH):
        raise LoadError(f"{where}: not readable as JSON: it is nested too deeply", DAMAGED)
    return found


def read_json(path: Path, limit: int = 1 << 25) -> Any:
    """Return what the JSON file ``path`` holds; LoadError if it is over ``limit`` bytes or cannot be read.

    A byte order mark, as some Windows editors write, is skipped.
    """
    return parse_json(without_mark(read_whole(path, limit)), str(path))


def without_mark(text: bytes) -> bytes:
    """Return UTF-8 ``text`` without the byte order mark that it may begin with."""
    return text.removeprefix(codecs.BOM_UTF8)


def read_whole(path: Path, limit: int) -> bytes:
    """Return the bytes of the regular file ``path``; LoadError if it is over ``limit`` bytes or cannot be read."""
    size = regular_size(path)
    if size > limit:
        raise LoadError(f"{path}: {size:,} bytes, too many for such a file", DAMAGED)
    try:
        return path.read_bytes()
    except OSError as error:
        raise LoadError(f"{path}: {reason(error)}", "check the path") from None


def _deeper(value: Any, depth: int) -> bool:
    """Whether ``value`` nests lists and objects more than ``depth`` deep; checked after parsing, which has its own
    limit."""
    level = [value]
    for _ in range(depth):
        level = [
            item
            for held in level
            if isinstance(held, dict | list)
            for item in (held.values() if isinstance(held, dict) else held)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True
