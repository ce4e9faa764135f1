"""Weight files (``weight.bin``, storage version 2): memory-mapped, checked, read only on demand.

Layout (MILBlob's ``StorageFormat.hpp``): a 64-byte header ``<count:u32, version:u32, reserved>``, then records. A
program points at a record's 64-byte descriptor: ``<sentinel:u32 = 0xDEADBEEF, dtype:u32, bytes:u64, offset:u64,
padding_bits:u64, reserved>``; the data lie at ``offset``, 64-byte aligned. ``padding_bits`` counts the unused bits in
the last byte of a sub-byte type. It is read for those types only, since coremltools 7.0-7.2 leaves garbage there for
wider ones.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tlkit.errors import LoadError, reason
from tlkit.mil.types import BY_BLOB_NUMBER, DType

_HEADER = struct.Struct("<II")
_RECORD = struct.Struct("<IIQQQ")
_SENTINEL = 0xDEADBEEF
_LFS_MAGIC = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class Record:
    """Where one constant lies: element type, data offset and length in bytes, and the number of elements."""

    dtype: DType
    offset: int
    nbytes: int
    count: int


class BlobFile:
    """One weight file. Opening it maps it; :meth:`record` checks a descriptor, :meth:`data` views its bytes."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._map = self._open()
        if len(self._map) < 64:
            raise self._broken(f"it is {len(self._map)} bytes long, shorter than its own header")
        _, version = _HEADER.unpack_from(self._map, 0)
        if version != 2:
            raise self._broken(f"it is not a version 2 weight file (version field {version})")

    def _open(self) -> mmap.mmap | bytes:
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):  # a pipe would block, a device has no end
                raise self._broken("it is not a regular file")
            with self.path.open("rb") as file:
                head = file.read(64)
                if head.startswith(_LFS_MAGIC):
                    raise LoadError(f"{self.path}: a git-lfs pointer, not the weights", "run `git lfs pull` there")
                # Copy-on-write: numpy and torch get writable arrays without a copy, and the file stays as it is.
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if head else b""
        except OSError as error:
            raise LoadError(f"{self.path}: {reason(error)}", "the package's weights are missing") from None

    def _broken(self, reason: str) -> LoadError:
        return LoadError(f"{self.path}: {reason}", "the file is damaged: fetch or convert it again")

    def __len__(self) -> int:
        return len(self._map)

    def record(self, offset: int) -> Record:
        """Return the checked descriptor at ``offset``; LoadError if it or its data leave the file."""
        if offset < 0 or offset % 64 or offset + _RECORD.size > len(self._map):
            raise self._broken(f"no weight record can be at offset {offset} of {len(self._map)} bytes")
        sentinel, code, nbytes, start, padding = _RECORD.unpack_from(self._map, offset)
        if sentinel != _SENTINEL:
            raise self._broken(f"no weight record at offset {offset}")
        dtype = BY_BLOB_NUMBER.get(code)
        if dtype is None:
            raise self._broken(f"the record at offset {offset} has the unknown element type {code}")
        if start + nbytes > len(self._map):
            raise self._broken(f"the record at offset {offset} wants {nbytes} bytes at {start}, past the end")
        # Fewer than 8 bits of the last byte can be unused: a larger figure is garbage.
        bits = nbytes * 8 - (padding if dtype.bits < 8 and padding < 8 else 0)
        return Record(dtype, start, nbytes, bits // dtype.bits)

    def data(self, record: Record) -> memoryview:
        """Return the record's bytes, a private view of the mapped file: nothing is read before it is used."""
        return memoryview(self._map)[record.offset : record.offset + record.nbytes]

    def pieces(self, record: Record, size: int = 1 << 24) -> Iterator[memoryview]:
        """Yield the record's bytes, ``size`` at a time; each piece's memory is released when the next is requested."""
        data = self.data(record)
        for start in range(0, len(data), size):
            yield data[start : start + size]
            self.release()

    def release(self) -> None:
        """Release the mapped pages; they are read from the file again on the next access."""
        # Windows has no madvise: there pages stay until the system reclaims them.
        if isinstance(self._map, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


class BlobWriter:
    """A new weight file in ``file`` (opened for reading and writing, binary): :meth:`add` records, then :meth:`close`
    it.

    Records are written in order; one whose bytes are in the file already is not written again.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._known: dict[tuple[DType, int, int, bytes], int] = {}
        # Zeros until close(): version 0, so that a file that was not finished is refused.
        file.write(bytes(64))

    def add(self, dtype: DType, data: bytes | memoryview, padding: int = 0) -> int:
        """Append one constant; return the offset of its descriptor. ``padding`` is the number of unused bits in the
        last byte."""
        return self.stream(dtype, (data,), padding)

    def stream(self, dtype: DType, pieces: Iterable[bytes | memoryview], padding: int = 0) -> int:
        """:meth:`add` a constant whose bytes come in pieces, of which only one is held at a time."""
        import hashlib  # loads OpenSSL, which `inspect` does without

        offset, size, digest = self._file.tell(), 0, hashlib.sha256()
        # Room for the descriptor, which is written once the size is known.
        self._file.write(bytes(64))
        for piece in pieces:
            self._file.write(piece)
            digest.update(piece)
            # Not len(): a memoryview counts items, which may be wider than a byte.
            size += memoryview(piece).nbytes
        # Equal bytes are found by their digest, so that neither memory nor the file has to be searched.
        key = (dtype, size, padding, digest.digest())
        if key in self._known:
            # A repetition is recognised only after its last piece, so it is removed again.
            self._file.seek(offset)
            self._file.truncate()
            return self._known[key]
        # The next descriptor has to begin at a multiple of 64.
        end = self._file.write(bytes(-size % 64)) + offset + 64 + size
        self._file.seek(offset)
        self._file.write(_RECORD.pack(_SENTINEL, dtype.blob_number, size, offset + 64, padding))
        self._file.seek(end)
        self._known[key] = offset
        return offset

    def close(self, whole: bool = True) -> None:
        """Write the header if the file is ``whole`` (complete), and close it."""
        with self._file:
            if whole:
                self._file.seek(0)
                self._file.write(_HEADER.pack(len(self._known), 2))


@dataclass(frozen=True, slots=True)
class BlobRef:
    """A constant's data in a weight file: the file as the program names it, opened, and the record's offset."""

    file_name: str
    offset: int
    file: BlobFile | None = None


class Deferred(ABC):
    """Tensor data that a pass computes from other data when they are written or read.

    Subclasses are frozen dataclasses, so that two with the same result compare equal and are computed once.
    """

    __slots__ = ()

    @property
    def stored(self) -> int:
        """The bytes that a file stores of it, where it is not made of another constant of the program."""
        return 0

    @abstractmethod
    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the bytes in order, packed as in a weight file, in pieces that easily fit into memory."""

    def whole(self) -> bytes | memoryview:
        """Return all bytes; memory of their own that may be written to, where that spares a copy."""
        return b"".join(self.pieces())
