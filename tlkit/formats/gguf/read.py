"""Read GGUF, versions 1 to 3, of either byte order, in one file or split.

A file is ``GGUF``, a version, the counts of tensors and of metadata; the metadata (key, type, value); a record for each
tensor (name, dimensions innermost first, type, offset); and the tensors' bytes, each aligned. Version 1 counts in 32
bits, later ones in 64. Arrays (a vocabulary has 128,000 strings) are skipped and read on request.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.errors import LoadError
from tlkit.formats.base import sniff
from tlkit.formats.base.dtypes import GGML, stored_bytes
from tlkit.formats.base.ledger import Ledger
from tlkit.formats.base.mapped_tensors import MappedTensors
from tlkit.formats.base.tensors import FormatName, TensorEntry
from tlkit.formats.files.mapped import Mapped
from tlkit.formats.files.paths import inside
from tlkit.formats.gguf.header import GGUFArray, Reader, type_name
from tlkit.types import LeftOut

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RANK = 8  # ggml itself knows 4
_NEWEST = 64  # a larger version is damage
_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


class GGUFFile(MappedTensors):
    """One GGUF model. ``metadata`` gives values by key, ``types`` their GGUF types (``u32``, ``str``, ``arr[str]``)."""

    format: FormatName = "GGUF"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.types: dict[str, str] = {}
        self.shards = self._siblings()
        parts = [_Part(Mapped(file)) for file in self.shards]
        first = parts[0]
        self.version, self.big_endian, self.alignment = first.version, first.reader.order == ">", first.alignment
        found: dict[str, TensorEntry] = {}
        left = list(self.left_out)
        for part in parts:
            left += part.rest()
            self._files[str(part.file.path)] = part.file
            # The first part's entries count: it has the model's, the others only their own numbers.
            self.metadata = {**part.metadata, **self.metadata}
            self.types = {**part.types, **self.types}
            for entry in part.entries:
                if entry.name in found:
                    raise part.file.broken(f"the tensor '{entry.name}' appears twice")
                found[entry.name] = entry
        self._entries = tuple(found.values())
        self.left_out = (*left, *self._split(len(parts)))

    def _split(self, here: int) -> list[LeftOut]:
        """Compare the files present with what the metadata say about the split."""
        count, tensors = (self.metadata.get(f"split.{key}") for key in ("count", "tensors.count"))
        others = count - here if type(count) is int and 1 < count < 1 << 16 else 0
        if others > 0 and not self.left_out:
            reason = f"the file is one part of {count}, and the others are not beside it under their numbered names"
            return [LeftOut(f"{others} other parts", reason, None, "missing")]
        missing = tensors - len(self._entries) if type(tensors) is int and not self.left_out else 0
        if missing > 0:
            return [LeftOut(f"{missing} tensors", f"the split says that the model has {tensors}", None, "missing")]
        return []

    def carried(self) -> Mapping[str, tuple[str, Any]]:
        """Return the metadata with their types, without the keys about splitting."""
        return {key: (self.types[key], value) for key, value in self.metadata.items() if not key.startswith("split.")}

    def decoded_type(self, entry: TensorEntry) -> str:
        """Return the type of what :meth:`array` gives: f32 for blocks that can be decoded."""
        from tlkit.formats.gguf.quants import DEQUANTIZABLE  # late: listing tensors does not need numpy

        blocks = entry.dtype in DEQUANTIZABLE and not entry.big_endian
        return "F32" if blocks else super().decoded_type(entry)

    def decode(self, entry: TensorEntry, raw: memoryview) -> NDArray[Any]:
        """Decode stored bytes, including blocks, to values."""
        from tlkit.formats.gguf.quants import DEQUANTIZABLE, dequantize

        if entry.dtype in DEQUANTIZABLE and not entry.big_endian:
            return dequantize(raw, entry.dtype, entry.shape)
        return super().decode(entry, raw)

    def _siblings(self) -> tuple[Path, ...]:
        """Return the files of a split model that are present, the first one first."""
        split = _SPLIT.fullmatch(self.path.name)
        if not split or int(split[3]) < 2:
            return (self.path,)
        names = [f"{split[1]}-{part:05}-of-{split[3]}.gguf" for part in range(1, min(int(split[3]), 9999) + 1)]
        files = [self.path.with_name(name) for name in names]
        here = [file for file in files if file.is_file() and not self._pointer(file)]
        for file in here:  # the one that the user named may be a link, those beside it only within the folder
            if file != self.path:
                inside(file.parent, file.parent, file.name)
        missing = len(names) - len(here)
        if missing:
            self.notes.append(f"{missing} of the model's {len(names)} files are missing: this is what is here")
            gone = [file for file in files if file not in here]
            self.left_out = tuple(LeftOut(file.name, "this file is missing", None, "missing") for file in gone)
        return tuple(here) or (self.path,)

    def _pointer(self, file: Path) -> bool:
        if sniff.detect(file) is not sniff.Format.LFS_POINTER:
            return False
        self.notes.append(f"{file}: {sniff.lfs_text(file)}; run `git lfs pull` in its repository")
        return True


class _Part:
    """One file, parsed: metadata and tensor records."""

    def __init__(self, file: Mapped) -> None:
        self.file = file
        self.ledger = Ledger()
        # Version 1 counts in 32 bits, so that its header may end after 16 bytes.
        if file.size < 24 and not (file.size >= 16 and file.view[4] == 1):
            raise file.broken(f"it is {file.size} bytes long, shorter than GGUF's header")
        little = int.from_bytes(file.view[4:8], "little")
        # A version has an empty lower half only where it was written in the other byte order.
        order = "<" if little & 0xFFFF else ">"
        self.version = little if order == "<" else int.from_bytes(file.view[4:8], "big")
        if bytes(file.view[:4]) == b"GGUF" and 3 < self.version < _NEWEST:
            said = f"{file.path}: GGUF of version {self.version}, and tlkit reads versions 1 to 3"
            raise LoadError(said, "write it again with the gguf package, or see whether a newer tlkit reads it")
        if bytes(file.view[:4]) != b"GGUF" or not 1 <= self.version <= 3:
            raise file.broken(f"not a GGUF file of version 1 to 3 (version field {self.version})")
        reader = self.reader = Reader(file, order, self.version > 1, 8)
        try:
            tensors, pairs = reader.count(), reader.count()
            self.metadata, self.types = self._pairs(pairs)
            self.alignment = self._alignment()
            self.entries = self._tensors(tensors)
        except (struct.error, OverflowError):
            raise file.broken("its header runs past the end of the file") from None

    def rest(self) -> Iterator[LeftOut]:
        """Yield bytes after or between the tensors that belong to none, such as further files appended to the first."""
        end = max((entry.offset or 0) + entry.nbytes for entry in self.entries) if self.entries else self.reader.offset
        place = -(-end // self.alignment) * self.alignment
        if bytes(self.file.view[place : place + 4]) == b"GGUF":
            reason = "another GGUF file follows the first: parts are joined by llama-gguf-split --merge, not by cat"
            yield LeftOut(f"{self.file.path.name} from byte {place:,} on", reason, self.file.size - place)
        else:
            yield from self.ledger.rest("these bytes belong to no tensor")

    def _pairs(self, count: int) -> tuple[dict[str, Any], dict[str, str]]:
        reader, values, types = self.reader, {}, {}
        # In 9 bytes fit a key's length, a type and a value (version 1).
        reader.afford(count, 9, "metadata entries", 16)
        for _ in range(count):
            key = reader.text()
            if key in values:
                raise self.file.broken(f"the key '{key[:100]}' appears twice")
            (kind,) = reader.scalars("I", 1)
            values[key] = value = reader.value(kind)
            types[key] = f"arr[{value.type}]" if isinstance(value, GGUFArray) else type_name(kind)
        return values, types

    def _alignment(self) -> int:
        found = self.metadata.get("general.alignment", 32)
        if type(found) is not int or found < 1 or found > 1 << 30 or found & (found - 1):
            raise self.file.broken("its alignment is not a power of two")
        return found

    def _tensors(self, count: int) -> list[TensorEntry]:
        self.reader.afford(count, 16, "tensors", 32)
        records = [self._record() for _ in range(count)]
        start = -(-self.reader.offset // self.alignment) * self.alignment
        if records and start > self.file.size:
            raise self.file.broken("its tensors start past its end")
        self.ledger.enter("data", max(self.file.size - start, 0), self.file.path.name)
        return self._placed(records, start)

    def _record(self) -> tuple[str, tuple[int, ...], int, int]:
        reader = self.reader
        name = reader.text()
        (rank,) = reader.scalars("I", 1)
        if rank > _RANK:
            raise self.file.broken(f"the tensor '{name[:100]}' has {rank} dimensions")
        dims = reader.scalars("Q" if reader.wide else "I", rank)
        kind, offset = *reader.scalars("I", 1), *reader.scalars("Q", 1)
        return name, tuple(reversed(dims)), kind, offset

    def _placed(self, records: list[tuple[str, tuple[int, ...], int, int]], start: int) -> list[TensorEntry]:
        """Return the entries in the file's order; LoadError where one leaves the file or overlaps another."""
        order = sorted(range(len(records)), key=lambda index: records[index][3])
        entries: dict[int, TensorEntry] = {}
        end, last = start, ""
        for position, index in enumerate(order):
            name, shape, kind, relative = records[index]
            offset = start + relative
            following = records[order[position + 1]][3] if position + 1 < len(order) else self.file.size - start
            entry = self._entry(name, shape, kind, offset, max(following - relative, 0))
            if offset + entry.nbytes > self.file.size:
                needs = f"'{name[:100]}' ends at byte {offset + entry.nbytes:,}"
                raise self.file.broken(f"the tensor {needs}, past the end ({self.file.size:,})")
            if offset < end and entry.nbytes:
                raise self.file.broken(f"the tensors '{name[:100]}' and '{last[:100]}' overlap")
            end, last = max(end, offset + entry.nbytes), name
            entries[index] = entry
            self.ledger.claim("data", offset - start, offset - start + entry.nbytes)
            padded = -(-(offset + entry.nbytes) // self.alignment) * self.alignment
            self.ledger.claim("data", offset - start + entry.nbytes, min(padded, self.file.size) - start)
        return [entries[index] for index in range(len(records))]

    def _entry(self, name: str, shape: tuple[int, ...], kind: int, offset: int, room: int) -> TensorEntry:
        big = self.reader.order == ">"
        dtype, block, _ = GGML.get(kind, (f"GGML{kind}", 1, 0))
        if kind not in GGML:  # a type that came later, or went: its size is the room it has
            return TensorEntry(name, dtype, shape, room, str(self.file.path), offset, big_endian=big)
        entry = TensorEntry(name, dtype, shape, 0, str(self.file.path), offset, big_endian=big)
        size = stored_bytes(dtype, entry.elements)
        if size is None or (shape and shape[-1] % block):
            raise self.file.broken(f"the rows of '{name[:100]}' ({shape[-1] if shape else 1}) are not {dtype} blocks")
        return TensorEntry(name, dtype, shape, size, str(self.file.path), offset, big_endian=big)


def text_of(metadata: Mapping[str, Any], key: str) -> str:
    """Return the value of ``key`` where it is text, else nothing."""
    found = metadata.get(key)
    return found if isinstance(found, str) else ""
