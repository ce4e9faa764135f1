"""Untrusted zip archives: stored members are viewed in place, compressed ones expanded within bounds."""

from __future__ import annotations

import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import BinaryIO

from tlkit.errors import LoadError, reason
from tlkit.formats.files.mapped import DAMAGED, Mapped

# The end record and a member's own header: APPNOTE.TXT 4.3.16 and 4.3.7.
_END = struct.Struct("<4s4H2LH")
_LOCAL = struct.Struct("<4s5H3L2H")
DIRECTORY_LIMIT = 1 << 22
"""Bytes of an archive's list of members: some 50,000 of them, which take a second to read."""

_BOMB = 1 << 28  # bytes from which on an expansion has to be a likely one

READ_LIMIT = 1 << 24
"""Bytes of a compressed member that are read without asking."""

_PIECE = 1 << 22  # bytes that are expanded at a time
_FOLD = 100  # how much larger than its compressed bytes a large expansion may be
_UNSAFE = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|^[A-Za-z]:|[\\\x00-\x1f\x7f]")


def directory(file: BinaryIO) -> tuple[tuple[zipfile.ZipInfo, ...], int]:
    """Return an archive's members and the position of their list; zipfile's errors for other files.

    The last two lists are cached by their bytes: an archive is opened several times, and 60,000 members take most of a
    second.
    """
    claimed = directory_size(file)
    if not 0 <= claimed <= DIRECTORY_LIMIT:
        raise zipfile.BadZipFile("its directory of members is missing, or too long for a model")
    size = file.seek(0, os.SEEK_END)
    # Behind the directory come the end records, and a comment of at most 64 KiB.
    file.seek(max(size - claimed - (1 << 16) - 256, 0))
    key = (size, file.read())
    if key not in _kept:
        with zipfile.ZipFile(file) as archive:
            _kept[key] = tuple(archive.infolist()), archive.start_dir
        while len(_kept) > 2:
            del _kept[next(iter(_kept))]
    return _kept[key]


_kept: dict[tuple[int, bytes], tuple[tuple[zipfile.ZipInfo, ...], int]] = {}


def leads_out(name: str) -> bool:
    """Whether ``name`` could leave the folder that it is unpacked to: it is absolute, or has a drive, an empty, ``.``
    or ``..`` part, a backslash or a control character."""
    return bool(_UNSAFE.search(name))


def same_name(name: str) -> str:
    """Return a key that is equal for names that some file system or reader may confuse with ``name``."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def directory_size(file: BinaryIO) -> int:
    """Return the size in bytes that the archive claims for its list of members; -1 where it has none."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - (1 << 16) - 128, 0))
    tail = file.read()
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or len(tail) - found < _END.size:
        return -1
    record = tail.rfind(b"PK\x06\x06", 0, found)  # zip64 overrules, where it is there
    if 0 <= record <= len(tail) - 56:
        return int(struct.unpack_from("<Q", tail, record + 40)[0])  # the directory's size
    return int(_END.unpack_from(tail, found)[5])  # the same, in 32 bits


class Zip:
    """An archive's members by name. Opening it refuses names that lead out of it or occur twice."""

    def __init__(self, file: Mapped) -> None:
        self.file = file
        try:
            with file.path.open("rb") as opened:
                infos, self._directory = directory(opened)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
            raise LoadError(f"{file.path}: not a readable zip archive: {reason(error)}", DAMAGED) from None
        self._infos = {info.filename: info for info in infos}
        for name, info in self._infos.items():
            # zipfile cuts a name at its first zero byte, and on Windows turns backslashes.
            if leads_out(name.removesuffix("/")) or info.orig_filename != name:
                raise self._distrusted(f"its member '{info.orig_filename[:100]}' leads out of it")
        if len(self._infos) != len(infos):
            raise self._distrusted("two of its members have one name")

    def _distrusted(self, what: str) -> LoadError:
        return LoadError(f"{self.file.path}: {what}", "do not trust this file")

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
        """Return the position of a member's bytes; None if it is compressed. LoadError if they leave the file."""
        info = self._plain(name)
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        start = self._start(info)
        if info.file_size != info.compress_size or start + info.file_size > self.file.size:
            raise self.file.broken(f"its member '{name[:100]}' runs past its end")
        return start

    def read(self, name: str, limit: int = READ_LIMIT) -> memoryview:
        """Return a member's bytes: a view if it is stored, else expanded up to ``limit``, past which LoadError."""
        info, start = self._plain(name), self.offset(name)
        if start is not None:
            return self.file.view[start : start + info.file_size]
        if info.file_size > limit:
            raise self.file.broken(f"its member '{name[:100]}' expands to {info.file_size:,} bytes, too many for it")
        self._check_fold(f"its member '{name[:100]}' expands", info.file_size, info.compress_size)
        return memoryview(b"".join(self.pieces(name)))

    def head(self, name: str, limit: int) -> bytes:
        """Return the first ``limit`` bytes of a member, expanding no more than those."""
        info = self._plain(name)
        start = self._start(info)
        data = self.file.view[start : start + min(info.compress_size, 2 * limit + 1024)]
        if info.compress_type == zipfile.ZIP_STORED:
            return bytes(data[:limit])
        try:
            # Deflate without zlib's header, as in zip archives.
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, limit)
        except zlib.error as error:
            raise self.file.broken(f"its member '{name[:100]}' cannot be expanded: {reason(error)}") from None

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a member's bytes in pieces; LoadError as soon as they exceed the size it claims, or differ from its
        checksum.

        Size and checksum are verified only with the last piece.
        """
        info = self._plain(name)
        left, checksum = info.file_size, 0
        for piece in self._expanded(info):
            left -= len(piece)
            if left < 0:
                break
            checksum = zlib.crc32(piece, checksum)
            yield piece
        if left or checksum != info.CRC:
            raise self.file.broken(f"its member '{name[:100]}' is not what its directory says")

    def check_total(self, names: Iterable[str]) -> int:
        """Return how many bytes ``names`` expand to in total; LoadError for an implausible number."""
        infos = [self._plain(name) for name in names]
        total = sum(info.file_size for info in infos)
        self._check_fold("it expands", total, min(sum(info.compress_size for info in infos), self.file.size))
        return total

    def require_one_reading(self) -> None:
        """Raise LoadError unless every reader of archives finds the same members with the same bytes.

        Readers differ in where they look for the directory, in whether case matters, in where a name ends and in which
        of two records they trust. So nothing may lie outside what the directory describes except what every reader
        skips, names must be plain and differ in more than case, and no two members may share bytes.
        """
        with self.file.path.open("rb") as opened:
            if not _ends_plainly(opened, self.file.size, self._directory):
                raise self._distrusted("its directory is not the last thing in it, or is there twice")
        if not all(name.isascii() for name in self._infos):
            raise self._distrusted("its members' names are not plain ASCII")
        self.require_distinct(self._infos)

    def require_distinct(self, names: Iterable[str]) -> None:
        """Raise LoadError if two of ``names`` differ only in case or in Unicode form, or share bytes."""
        seen: dict[str, str] = {}
        for name in names:
            other = seen.setdefault(same_name(name.removesuffix("/")), name)
            if other != name:
                raise self._distrusted(f"'{name[:100]}' and '{other[:100]}' are one name to some systems")
        spans = sorted((self._infos[name].header_offset, self._end(self._plain(name))) for name in seen.values())
        for (_, end), (start, _) in pairwise(spans):
            if start < end:
                raise self._distrusted("two of its members share bytes")

    def _plain(self, name: str) -> zipfile.ZipInfo:
        """Return the record of a member; LoadError if it is missing, a link, encrypted or compressed in an unread
        way."""
        info = self._infos.get(name)
        if info is None:
            raise self.file.broken(f"its member '{name[:100]}' is missing")
        # Bits 0 and 6: encrypted, strongly encrypted.
        if info.flag_bits & 0x41 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            how = "encrypted" if info.flag_bits & 0x41 else "compressed in a way that tlkit does not read"
            raise LoadError(
                f"{self.file.path}: its member '{name[:100]}' is {how}", "unzip it, and zip it again plainly"
            )
        # Unix writers put the file's mode into the upper half; others leave 0 there.
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise self._distrusted(f"its member '{name[:100]}' is a link or a device, not a file")
        return info

    def _check_fold(self, what: str, size: int, packed: int) -> None:
        if size > _BOMB and size > _FOLD * packed:
            raise self.file.broken(f"{what} {size // max(packed, 1):,}-fold to {size:,} bytes")

    def _expanded(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        start = self._start(info)
        end = min(start + info.compress_size, self.file.size)
        inflater = None if info.compress_type == zipfile.ZIP_STORED else zlib.decompressobj(-zlib.MAX_WBITS)
        for place in range(start, end, _PIECE):
            data = bytes(self.file.view[place : min(place + _PIECE, end)])
            if inflater is None:
                yield data
                continue
            try:
                while data and not inflater.eof:
                    # A piece at most comes of one call, however much the data expand.
                    yield inflater.decompress(data, _PIECE)
                    data = inflater.unconsumed_tail
            except zlib.error as error:
                raise self.file.broken(
                    f"its member '{info.filename[:100]}' cannot be expanded: {reason(error)}"
                ) from None

    def _start(self, info: zipfile.ZipInfo) -> int:
        if info.header_offset < 0 or info.header_offset + _LOCAL.size > self.file.size:
            raise self.file.broken(f"its member '{info.filename[:100]}' lies past its end")
        fields = _LOCAL.unpack_from(self.file.view, info.header_offset)
        if fields[0] != b"PK\x03\x04":
            raise self.file.broken(f"its member '{info.filename[:100]}' is not where its directory says")
        # The header's own lengths of name and extra field: those in the directory may differ.
        return int(info.header_offset + _LOCAL.size + fields[9] + fields[10])

    def _end(self, info: zipfile.ZipInfo) -> int:
        end = self._start(info) + info.compress_size
        if end > self._directory:
            raise self.file.broken(f"its member '{info.filename[:100]}' runs past its end")
        return end


def _ends_plainly(file: BinaryIO, size: int, directory: int) -> bool:
    """Whether an archive ends with its directory (at ``directory``) and its end records, and nothing else."""
    file.seek(max(size - (1 << 16) - 128, 0))
    tail = file.read()
    base = size - len(tail)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or tail.find(b"PK\x05\x06", end + 1) >= 0 or base + end + _END.size != size:
        return False
    _, disk, first, _, _, length, offset, comment = _END.unpack_from(tail, end)
    place = base + end
    # The locator, which zip64 puts between its record and the end record.
    if tail[max(end - 20, 0) : end].startswith(b"PK\x06\x07"):
        _, _, record, disks = struct.unpack_from("<4sLQL", tail, end - 20)
        if disks > 1 or record < base or tail[record - base : record - base + 4] != b"PK\x06\x06":
            return False
        (record_size,) = struct.unpack_from("<Q", tail, record - base + 4)
        length, offset = struct.unpack_from("<QQ", tail, record - base + 40)
        # The record's size leaves out its own first 12 bytes.
        if record + 12 + record_size != base + end - 20:
            return False
        place = record
    return not (disk or first or comment) and offset == directory and offset + length == place
