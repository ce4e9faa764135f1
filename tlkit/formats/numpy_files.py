""".npy and .npz files: headers are parsed as text, uncompressed arrays are mapped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tlkit.formats.base.dtypes import NUMPY_CODES, PLAIN
from tlkit.formats.base.mapped_tensors import MappedTensors
from tlkit.formats.base.tensors import FormatName, TensorEntry
from tlkit.formats.files.mapped import Mapped
from tlkit.formats.files.zip import Zip
from tlkit.types import LeftOut

# The dictionary as numpy writes it, and as Python 2 did, where numbers could end in L.
_HEADER = re.compile(
    r"\s*\{\s*'descr':\s*(?P<descr>'[^']*'|\[.*\]),\s*'fortran_order':\s*(?P<fortran>True|False),\s*"
    r"'shape':\s*\((?P<shape>(?:\d{1,19}L?\s*,\s*){0,64}(?:\d{1,19}L?)?\s*)\),?\s*\}\s*",
    re.DOTALL | re.ASCII,
)
_HEADER_LIMIT = 1 << 16


class NumpyFile(MappedTensors):
    """One array, named after its file, or an archive's. ``left_out`` names arrays of objects, which are never read."""

    format: FormatName = "numpy"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = Mapped(path)
        self._files[str(path)] = self._file
        self._zip: Zip | None = None
        self._left: list[LeftOut] = []
        self._packed: dict[str, tuple[str, int]] = {}  # the member of each array, and where its bytes begin in it
        if bytes(self._file.view[:4]) == b"PK\x03\x04":
            self._zip = Zip(self._file)
            self._entries = tuple(self._members(self._zip))
        else:
            self._entries = tuple(self._array(path.stem, self._file.view, 0, self._file.size))
        self.left_out = tuple(self._left)

    def raw(self, entry: TensorEntry) -> memoryview:
        """Return an array's stored bytes: mapped, or expanded where the archive compressed them."""
        if entry.offset is not None or not self._zip:
            return super().raw(entry)
        member, start = self._packed[entry.name]
        return self._zip.read(member, self._zip.size(member))[start : start + entry.nbytes]

    def _members(self, archive: Zip) -> Iterator[TensorEntry]:
        for name in archive.names:
            start, size = archive.offset(name), archive.size(name)
            head = archive.read(name) if start is not None else memoryview(archive.head(name, _HEADER_LIMIT))
            yield from self._array(name.removesuffix(".npy"), head, start, size, name)

    def _array(
        self, name: str, data: memoryview, start: int | None, size: int, member: str = ""
    ) -> Iterator[TensorEntry]:
        """Yield the array whose file begins with ``data``; ``start`` is None if it is compressed, in ``member``."""
        major = data[6] if len(data) > 10 and bytes(data[:6]) == b"\x93NUMPY" else 0
        if major not in (1, 2, 3):
            raise self._file.broken(f"'{name[:100]}' is not a numpy array")
        # The header's length has two bytes, from version 2 on four.
        begin = 10 if major == 1 else 12
        length = int.from_bytes(data[8:begin], "little")
        if length > _HEADER_LIMIT or begin + length > len(data):
            raise self._file.broken(f"the header of '{name[:100]}' should have {length:,} bytes")
        found = _HEADER.fullmatch(bytes(data[begin : begin + length]).decode("latin-1"))
        if not found:
            raise self._file.broken(f"the header of '{name[:100]}' is not numpy's")
        dtype = NUMPY_CODES.get(found["descr"].strip("'")[1:])  # without the mark of its byte order
        if dtype is None:
            kind = found["descr"].strip("'")
            numbers = kind[1:2] not in "OUSMm"  # records of several fields are numbers, too
            why = f"an array of {kind[:60]}, which tlkit does not read"
            self._left.append(LeftOut(name, why, size - begin - length, "unread" if numbers else "other"))
            return
        shape = tuple(int(size.strip(" L")) for size in found["shape"].split(",") if size.strip(" L"))
        if len(shape) > 64 or any(dim >= 1 << 63 for dim in shape):
            raise self._file.broken(f"'{name[:100]}' has a shape that is not a size")
        offset = None if start is None else start + begin + length
        big = found["descr"].startswith("'>")
        # With one axis longer than 1, both orders are the same.
        strides = _fortran(shape) if found["fortran"] == "True" and sum(dim > 1 for dim in shape) > 1 else ()
        entry = TensorEntry(name, dtype, shape, 0, str(self.path), offset, strides, big)
        nbytes = entry.elements * PLAIN[dtype]
        if begin + length + nbytes > size:
            raise self._file.broken(
                f"'{name[:100]}' should have {nbytes:,} bytes, and {size - begin - length:,} follow"
            )
        end = begin + length + nbytes
        if end < size:
            another = bytes(data[end : end + 6]) == b"\x93NUMPY"
            why = "another array follows in the same file" if another else "these bytes follow the array"
            self._left.append(LeftOut(f"{name}: its end", why, size - end, "unread" if another else "unnamed"))
        self._packed[name] = (member, begin + length)
        yield TensorEntry(name, dtype, shape, nbytes, str(self.path), offset, strides, big)


def _fortran(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in shape:
        strides.append(step)
        step *= size
    return tuple(strides)
