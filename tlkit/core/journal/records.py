"""A file of records that outlives whoever writes it: appended to as things happen, a checked line each.

A line is eight hexadecimal digits, the CRC-32 of the rest, a space, and a JSON object. A line that was cut short when
its writer died, and one that does not match its checksum, count as if they had never been written: what cannot be read
is done again, never trusted.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError, UsageError, WriteError, reason

Record = dict[str, Any]


class RecordFile:
    """The file at ``path``, open for appending by this process only; ``take`` is given each record that it had.

    ``hint`` is what to do where it cannot be used. ``begins`` says whether a record may be a file's first. Raises
    LoadError for a file of something else, UsageError where another process writes to it, WriteError where it cannot
    be written.
    """

    def __init__(
        self, path: Path, hint: str, take: Callable[[Record], object], begins: Callable[[Record], bool] = lambda _: True
    ) -> None:
        self.path, self._hint = path, hint
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise WriteError(f"{path}: {reason(error)}", hint) from error
        try:
            self._begin(take, begins)
        except BaseException:
            os.close(self._file)
            raise

    def _begin(self, take: Callable[[Record], object], begins: Callable[[Record], bool]) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{self.path}: another tlkit writes to this journal", "wait until it has ended") from None
        except OSError:
            pass  # a file system without locks
        self.damaged, whole = read_records(self.path, self._hint, take, begins)
        if not whole and os.fstat(self._file).st_size > whole:
            raise LoadError(f"{self.path}: this is not a journal of tlkit", self._hint)
        if os.fstat(self._file).st_size > whole:
            os.ftruncate(self._file, whole)  # a line that was cut short

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a record; the operating system has it when this returns, so that it outlives this process."""
        line = record_line(record)
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            raise WriteError(f"{self.path}: {reason(error)}", "make room, then go on with --resume") from error

    def flush(self) -> None:
        """Wait until what was written has reached the disk, so that it outlives this machine."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file, and let others write to it."""
        os.close(self._file)


def read_records(
    path: Path, hint: str, take: Callable[[Record], object], begins: Callable[[Record], bool] = lambda _: True
) -> tuple[int, int]:
    """Give ``take`` each record of a file, one at a time in memory; return how many whole lines could not be read, and
    how many bytes whole lines take.

    No record, and 0 bytes, where the first that can be read may not begin a file. LoadError where it cannot be opened.
    """
    begun = False
    damaged = whole = 0
    try:
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                record = parse_record(line)
                if record is None:
                    damaged += 1
                elif not begun and not begins(record):
                    return damaged, 0
                else:
                    begun = True
                    take(record)
    except OSError as error:
        raise LoadError(f"{path}: {reason(error)}", hint) from error
    return damaged, whole if begun else 0


def record_line(record: Mapping[str, Any]) -> bytes:
    """Return a record as its line."""
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def parse_record(line: bytes) -> Record | None:
    """Return the record of a line, None for one that is damaged."""
    check, _, text = line.rstrip(b"\n").partition(b" ")
    try:
        if len(check) != 8 or int(check, 16) != zlib.crc32(text):
            return None
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
