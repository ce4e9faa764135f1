"""SafeTensors: one file, several with an index, or a Hugging Face folder.

A file is a length (8 bytes, little-endian), a JSON header of that length, and the tensors' bytes. The header maps each
name to ``{"dtype", "shape", "data_offsets": [begin, end]}``, offsets counted from the header's end, and
``__metadata__`` to text by key. Every length and offset is checked against the file when it is opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError
from tlkit.formats.base import sniff
from tlkit.formats.base.dtypes import BLOCKS, PACKED, PLAIN, stored_bytes
from tlkit.formats.base.mapped_tensors import MappedTensors
from tlkit.formats.base.tensors import TensorEntry
from tlkit.formats.files.mapped import DAMAGED, Mapped, parse_json, read_json
from tlkit.formats.files.paths import same_folder

HEADER_LIMIT = 1 << 25
"""Bytes: some 260,000 tensors. (The safetensors package reads up to 100 MB, in as much as 1.5 GB of memory.)"""

DTYPES = (PLAIN.keys() | PACKED.keys()) - {"C32", "C128"}
"""The types that SafeTensors has a name for."""

_RANK = 64  # PyTorch's own limit
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
_INDEX = ".safetensors.index.json"


class SafeTensorsFile(MappedTensors):
    """One or more SafeTensors files that make one model. ``notes`` say what of it is not here, or is odd."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.notes: list[str] = []
        self.metadata: dict[str, Any] = {}
        self.shards: tuple[Path, ...] = ()
        found: dict[str, TensorEntry] = {}
        for file in self._find():
            for entry in self._shard(file):
                if entry.name in found:
                    raise Mapped(file).broken(f"'{entry.name}' is in {found[entry.name].file} as well")
                found[entry.name] = entry
        self._entries = tuple(found.values())

    def _find(self) -> Iterable[Path]:
        path = self.path
        if path.is_dir():
            indexes = sorted(path.glob(f"*{_INDEX}"))
            if indexes:
                return self._indexed(indexes[0])
            self.shards = tuple(sorted(path.glob("*.safetensors")))
            if not self.shards:
                raise LoadError(f"{path}: no .safetensors file in it", "name a model file or folder")
            return self.shards
        if path.name.endswith(".json"):
            return self._indexed(path)
        self.shards = (path,)
        shard = _SHARD.fullmatch(path.name)
        if shard and int(shard[3]) > 1:
            self.notes.append(
                f"{path.name} is one of {int(shard[3])} shards: name its folder or its index for them all"
            )
        return self.shards

    def _indexed(self, index: Path) -> Iterable[Path]:
        content = read_json(index)
        names = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise LoadError(f"{index}: it holds no weight_map", DAMAGED)
        counts: dict[str, int] = {}
        for name in names.values():
            counts[name] = counts.get(name, 0) + 1
        self.shards = tuple(same_folder(index.parent, name) for name in sorted(counts))
        for shard in self.shards:
            if not shard.is_file():
                self.notes.append(f"{shard}: this shard is missing, and {counts[shard.name]} tensors with it")
            elif sniff.detect(shard) is sniff.Format.LFS_POINTER:
                self.notes.append(f"{shard}: {sniff.lfs_text(shard)}; run `git lfs pull` in its repository")
            else:
                yield shard

    def _shard(self, file: Path) -> Iterable[TensorEntry]:
        mapped = self._files.setdefault(str(file), Mapped(file))
        header, start = _header(mapped)
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            raise mapped.broken("its __metadata__ is not text by key")
        self.metadata |= metadata
        entries = [_entry(mapped, name, item, start) for name, item in header.items()]
        entries.sort(key=lambda entry: (entry.offset, entry.nbytes))
        self._check_order(mapped, entries, start)
        return entries

    def _check_order(self, mapped: Mapped, entries: list[TensorEntry], start: int) -> None:
        end, gaps, last = start, 0, ""
        for entry in entries:
            assert entry.offset is not None
            if entry.offset < end and entry.nbytes:
                raise mapped.broken(f"'{entry.name}' and '{last}' overlap")
            gaps += max(entry.offset - end, 0)
            end, last = max(end, entry.offset + entry.nbytes), entry.name
        gaps += mapped.size - end
        if gaps:
            self.notes.append(
                f"{mapped.path}: {gaps:,} bytes belong to no tensor; the safetensors package refuses such a file"
            )


def _header(mapped: Mapped) -> tuple[dict[str, Any], int]:
    """Return the header and the offset of the tensors' bytes."""
    if mapped.size < 10:
        raise mapped.broken(f"it is {mapped.size} bytes long, too short for SafeTensors")
    length = int.from_bytes(mapped.view[:8], "little")
    if length > mapped.size - 8:
        raise mapped.broken(f"its header should have {length:,} bytes, and the file has {mapped.size:,}")
    if length > HEADER_LIMIT:
        raise mapped.broken(f"its header should have {length:,} bytes; over {HEADER_LIMIT:,} none is read")
    header = parse_json(mapped.view[8 : 8 + length], str(mapped.path))
    if not isinstance(header, dict):
        raise mapped.broken("its header is no JSON object")
    return header, 8 + length


def _entry(mapped: Mapped, name: str, item: Any, start: int) -> TensorEntry:
    try:
        dtype, shape, (begin, end) = item["dtype"], item["shape"], item["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise mapped.broken(f"'{name}' lacks a dtype, a shape or two offsets") from None
    if not isinstance(dtype, str) or not isinstance(shape, list) or len(shape) > _RANK:
        raise mapped.broken(f"'{name}' has no readable dtype or shape")
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in (*shape, begin, end)):
        raise mapped.broken(f"'{name}' has a shape or an offset that is no size")
    if not begin <= end <= mapped.size - start:
        raise mapped.broken(f"'{name}' ends at byte {start + end:,}, past the end ({mapped.size:,})")
    entry = TensorEntry(name, dtype[:32], tuple(shape), end - begin, str(mapped.path), start + begin)
    if dtype in BLOCKS and dtype in DTYPES and stored_bytes(dtype, entry.elements) != entry.nbytes:
        raise mapped.broken(f"'{name}' has {entry.nbytes:,} bytes, not those of {dtype} {shape[:8]}")
    return entry


def folder_config(path: Path) -> Mapping[str, Any]:
    """Return a Hugging Face folder's ``config.json`` (of the file's folder, for a file); empty where there is none."""
    file = (path if path.is_dir() else path.parent) / "config.json"
    try:
        found = read_json(file) if file.is_file() else {}
    except LoadError:
        return {}
    return found if isinstance(found, dict) else {}
