"""Zip archives from strangers: members in place where they are stored, bounded where they are compressed."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from functools import cached_property
from pathlib import PurePosixPath
from typing import BinaryIO

from tlkit.errors import LoadError, reason
from tlkit.formats.files.mapped import DAMAGED, Mapped

_END = struct.Struct("<4s4H2LH")
_LOCAL = struct.Struct("<4s5H3L2H")
DIRECTORY_LIMIT = 1 << 22
"""Bytes of an archive's list of members: some 50,000 of them, which take a second to read."""

_BOMB = 1 << 28  # bytes from which on an expansion has to be a likely one

READ_LIMIT = 1 << 24
"""Bytes of a compressed member that are read without asking."""


def directory_size(file: BinaryIO) -> int:
    """Return how many bytes the archive's list of members claims to take; -1 where it has none."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - (1 << 16) - 128, 0))
    tail = file.read()
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or len(tail) - found < _END.size:
        return -1
    record = tail.rfind(b"PK\x06\x06", 0, found)  # zip64 overrules, where it is there
    if 0 <= record <= len(tail) - 56:
        return int(struct.unpack_from("<Q", tail, record + 40)[0])
    return int(_END.unpack_from(tail, found)[5])


class Zip:
    """An archive's members by name. Names that lead out of it are refused when it is opened."""

    def __init__(self, file: Mapped) -> None:
        self.file = file
        try:
            with file.path.open("rb") as opened:
                if not 0 <= directory_size(opened) <= DIRECTORY_LIMIT:
                    raise file.broken("its directory of members is missing, or too long for a model")
                infos = zipfile.ZipFile(opened).infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
            raise LoadError(f"{file.path}: not a readable zip archive: {reason(error)}", DAMAGED) from None
        self._infos = {info.filename: info for info in infos}
        for name in self._infos:
            if ".." in PurePosixPath(name.replace("\\", "/")).parts or name.startswith(("/", "\\")):
                raise LoadError(f"{file.path}: its member '{name[:100]}' leads out of it", "do not trust this file")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The members' names in the archive's order."""
        return tuple(self._infos)

    def __contains__(self, name: object) -> bool:
        return name in self._infos

    def size(self, name: str) -> int:
        """Return a member's size, expanded, as the archive claims it."""
        return self._infos[name].file_size

    def offset(self, name: str) -> int | None:
        """Return where a member's bytes begin; None if it is compressed. LoadError if they leave the file."""
        info = self._infos[name]
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        start = self._start(info)
        if info.file_size != info.compress_size or start + info.file_size > self.file.size:
            raise self.file.broken(f"its member '{name[:100]}' runs past its end")
        return start

    def read(self, name: str, limit: int = READ_LIMIT) -> memoryview:
        """Return a member's bytes: a view if it is stored, else expanded up to ``limit``, past which LoadError."""
        if name not in self._infos:
            raise self.file.broken(f"its member '{name[:100]}' is missing")
        info, start = self._infos[name], self.offset(name)
        if start is not None:
            return self.file.view[start : start + info.file_size]
        if info.compress_type != zipfile.ZIP_DEFLATED or info.flag_bits & 1:
            raise self.file.broken(f"its member '{name[:100]}' is encrypted, or compressed in a way that is not read")
        if info.file_size > limit:
            raise self.file.broken(f"its member '{name[:100]}' expands to {info.file_size:,} bytes, too many for it")
        if info.file_size > _BOMB and info.file_size > 100 * info.compress_size:
            fold = info.file_size // max(info.compress_size, 1)
            raise self.file.broken(f"its member '{name[:100]}' expands {fold:,}-fold to {info.file_size:,} bytes")
        return memoryview(self._inflate(info))

    def head(self, name: str, limit: int) -> bytes:
        """Return the first ``limit`` bytes of a member, expanding no more than those."""
        info, start = self._infos[name], self._start(self._infos[name])
        data = self.file.view[start : start + min(info.compress_size, 2 * limit + 1024)]
        if info.compress_type == zipfile.ZIP_STORED:
            return bytes(data[:limit])
        if info.compress_type != zipfile.ZIP_DEFLATED or info.flag_bits & 1:
            raise self.file.broken(f"its member '{name[:100]}' is encrypted, or compressed in a way that is not read")
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, limit)
        except zlib.error as error:
            raise self.file.broken(f"its member '{name[:100]}' cannot be expanded: {reason(error)}") from None

    def _inflate(self, info: zipfile.ZipInfo) -> bytes:
        start = self._start(info)
        data = self.file.view[start : start + info.compress_size]
        try:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            found = inflater.decompress(data, info.file_size + 1)
        except zlib.error as error:
            raise self.file.broken(f"its member '{info.filename[:100]}' cannot be expanded: {reason(error)}") from None
        if len(found) != info.file_size or zlib.crc32(found) != info.CRC:
            raise self.file.broken(f"its member '{info.filename[:100]}' is not what its directory says")
        return found

    def _start(self, info: zipfile.ZipInfo) -> int:
        if info.header_offset < 0 or info.header_offset + _LOCAL.size > self.file.size:
            raise self.file.broken(f"its member '{info.filename[:100]}' lies past its end")
        fields = _LOCAL.unpack_from(self.file.view, info.header_offset)
        if fields[0] != b"PK\x03\x04":
            raise self.file.broken(f"its member '{info.filename[:100]}' is not where its directory says")
        return int(info.header_offset + _LOCAL.size + fields[9] + fields[10])
