"""Read SafeTensors: one file, several with an index, or a Hugging Face folder.

A file is a length (8 bytes, little-endian), a JSON header of that length, and the tensors' bytes. The header maps each
name to ``{"dtype", "shape", "data_offsets": [begin, end]}``, offsets counted from the header's end, and
``__metadata__`` to text by key. Every length and offset is checked against the file when it is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.errors import LoadError
from tlkit.formats.base.checkpoint_folder import choose, indexed, lone_shard, unlisted
from tlkit.formats.base.dtypes import BLOCKS, PACKED, PLAIN, stored_bytes
from tlkit.formats.base.mapped_tensors import MappedTensors
from tlkit.formats.base.tensors import FormatName, TensorEntry
from tlkit.formats.files.mapped import JSON_ITEMS, Mapped, parse_json, read_json
from tlkit.formats.safetensors import quantized
from tlkit.types import LeftOut

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEADER_LIMIT = 1 << 26
"""Bytes: some 500,000 tensors. (The safetensors package reads up to 100 MB, in as much as 1.5 GB of memory.)"""

_TENSORS = 600_000
_ITEMS = 8  # of JSON, for a tensor of rank 4

DTYPES = (PLAIN.keys() | PACKED.keys()) - {"C32", "C128"}
"""The types that SafeTensors has a name for."""

_RANK = 64  # PyTorch's own limit


class SafeTensorsFile(MappedTensors):
    """One or more SafeTensors files that form one model; ``notes`` say what is missing or unusual."""

    format: FormatName = "SafeTensors"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if path.is_dir():
            chosen = choose(path, "safetensors")
        else:
            chosen = indexed(path) if path.name.endswith(".json") else lone_shard(path)
        self.shards = tuple(sorted((*chosen.files, *chosen.missing)))
        self.notes += chosen.notes
        found: dict[str, TensorEntry] = {}
        left = list(chosen.left_out)
        for file in chosen.files:
            for entry in self._shard(file, left):
                if entry.name in found:
                    raise Mapped(file).broken(f"'{entry.name}' is in {found[entry.name].file} as well")
                found[entry.name] = entry
        left += unlisted(chosen, found)
        self.scheme = quantized.scheme(folder_config(path))
        self._packed: dict[str, quantized.Packed] = {}
        if self.scheme is not None:
            found, self._packed = quantized.gather(self.scheme, found)
            left += quantized.unread(self.scheme, found, self._packed)
        self._entries = tuple(found.values())
        self.left_out = tuple(left)

    def is_compressed(self, entry: TensorEntry) -> bool:
        """Whether a weight consists of several stored tensors (codes, scales, zeros)."""
        return entry.name in self._packed

    def decoded_type(self, entry: TensorEntry) -> str:
        """Return the type of what :meth:`array` gives: f32 for quantized weights."""
        return "F32" if self.is_compressed(entry) else super().decoded_type(entry)

    def array(self, entry: TensorEntry) -> NDArray[Any]:
        """Return a tensor's values, dequantized if the folder stores them quantized."""
        if entry.name not in self._packed or self.scheme is None:
            return super().array(entry)
        return quantized.values(self.scheme, self._packed[entry.name], super().array)

    def _shard(self, file: Path, left: list[LeftOut]) -> Iterable[TensorEntry]:
        mapped = self._files.setdefault(str(file), Mapped(file))
        header, start = _header(mapped)
        metadata = header.pop("__metadata__", None) or {}
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            raise mapped.broken("its __metadata__ is not text by key")
        self.metadata |= metadata
        entries = [_entry(mapped, name, item, start) for name, item in header.items()]
        entries.sort(key=lambda entry: (entry.offset, entry.nbytes))
        left += self._check_order(mapped, entries, start)
        return entries

    def _check_order(self, mapped: Mapped, entries: list[TensorEntry], start: int) -> list[LeftOut]:
        """Refuse overlapping tensors; return the bytes that no tensor names."""
        end, gaps, last = start, 0, ""
        for entry in entries:
            assert entry.offset is not None
            if entry.offset < end and entry.nbytes:
                raise mapped.broken(f"'{entry.name}' and '{last}' overlap")
            gaps += max(entry.offset - end, 0)
            end, last = max(end, entry.offset + entry.nbytes), entry.name
        gaps += mapped.size - end
        reason = "these bytes belong to no tensor; the safetensors package refuses such a file"
        return [LeftOut(mapped.path.name, reason, gaps, "unnamed")] if gaps else []


def _header(mapped: Mapped) -> tuple[dict[str, Any], int]:
    """Return the header and the offset of the tensors' bytes."""
    if mapped.size < 10:
        raise mapped.broken(f"it is {mapped.size} bytes long, too short for SafeTensors")
    length = int.from_bytes(mapped.view[:8], "little")
    if length > mapped.size - 8:
        raise mapped.broken(f"its header should have {length:,} bytes, and the file has {mapped.size:,}")
    if length > HEADER_LIMIT:
        raise mapped.broken(f"its header should have {length:,} bytes; at most {HEADER_LIMIT:,} are read")
    text = bytes(mapped.view[8 : 8 + length])
    # As many items as its tensors warrant, counted before anything is parsed.
    tensors = min(text.count(b'"data_offsets"'), _TENSORS)
    header = parse_json(text, str(mapped.path), _ITEMS * tensors + JSON_ITEMS)
    if not isinstance(header, dict):
        raise mapped.broken("its header is not a JSON object")
    return header, 8 + length


def _entry(mapped: Mapped, name: str, item: Any, start: int) -> TensorEntry:
    try:
        dtype, shape, (begin, end) = item["dtype"], item["shape"], item["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise mapped.broken(f"'{name}' lacks a dtype, a shape or two offsets") from None
    if not isinstance(dtype, str) or not isinstance(shape, list) or len(shape) > _RANK:
        raise mapped.broken(f"'{name}' has no readable dtype or shape")
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in (*shape, begin, end)):
        raise mapped.broken(f"'{name}' has a shape or an offset that is not a size")
    if not begin <= end <= mapped.size - start:
        raise mapped.broken(f"'{name}' ends at byte {start + end:,}, past the end ({mapped.size:,})")
    entry = TensorEntry(name, dtype[:32], tuple(shape), end - begin, str(mapped.path), start + begin)
    if dtype in BLOCKS and dtype in DTYPES and stored_bytes(dtype, entry.elements) != entry.nbytes:
        raise mapped.broken(f"'{name}' has {entry.nbytes:,} bytes, not those of {dtype} {shape[:8]}")
    return entry


def folder_config(path: Path) -> Mapping[str, Any]:
    """Return a Hugging Face folder's ``config.json`` (for a file, its folder's); empty where there is none."""
    file = (path if path.is_dir() else path.parent) / "config.json"
    try:
        found = read_json(file) if file.is_file() else {}
    except LoadError:
        return {}
    return found if isinstance(found, dict) else {}
