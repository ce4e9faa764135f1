"""What ``tlkit inspect`` finds out about one file, in the order of its cost: description, table, values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.errors import UsageError
from tlkit.formats._groups import Group, group
from tlkit.formats.describe import describe_tensors, find_format, open_tensors
from tlkit.formats.sniff import COREML
from tlkit.formats.tensors import TensorEntry, TensorFile
from tlkit.types import ModelInfo

if TYPE_CHECKING:
    from tlkit.formats.package import Package


@dataclass
class Inspection:
    """One model file, described. ``package`` is the opened Core ML model, None for other formats."""

    path: Path
    info: ModelInfo
    tensors: tuple[TensorEntry, ...]
    package: Package | None = None
    opened: TensorFile | None = None

    @cached_property
    def source(self) -> TensorFile:
        """The tensors with their values."""
        return self.opened or open_tensors(self.path)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The tensors grouped by block."""
        return group(self.tensors)

    def matching(self, pattern: str | None) -> tuple[TensorEntry, ...]:
        """Return the tensors whose names match ``pattern`` (with ``*?[]``, else any part of a name); all for None."""
        return _matching(self.tensors, pattern, str(self.path))

    def readable(self, pattern: str | None) -> tuple[TensorEntry, ...]:
        """Return the same from the file that can read their values."""
        return _matching(self.source.entries(), pattern, str(self.path))


def examine(path: Path, format: str | None = None) -> Inspection:
    """Open and describe the model file at ``path``; LoadError says what is wrong with it."""
    if find_format(path, format) in COREML:
        from tlkit.formats.coreml import describe_package, weight_table
        from tlkit.formats.package import open_package

        package = open_package(path)
        info = describe_package(package)
        rows = tuple(TensorEntry(w.name, w.dtype, w.shape, w.bytes, w.file, w.offset) for w in weight_table(package))
        return Inspection(path, info, rows, package)
    source = open_tensors(path, format)
    return Inspection(path, describe_tensors(source), tuple(source.entries()), opened=source)


def file_metadata(source: TensorFile | None) -> dict[str, Any]:
    """Return a file's own metadata as plain data; a long array as its type and length."""
    found: dict[str, Any] = {}
    for key, value in (source.metadata if source else {}).items():
        kind = getattr(value, "type", None)
        plain = kind is None or len(value) <= 64
        found[key] = (list(value) if kind else value) if plain else {"array": kind, "length": len(value)}
    return found


def _matching(entries: Sequence[TensorEntry], pattern: str | None, where: str) -> tuple[TensorEntry, ...]:
    if pattern is None:
        return tuple(entries)
    from fnmatch import fnmatchcase

    shape = pattern if any(mark in pattern for mark in "*?[") else f"*{pattern}*"
    found = tuple(entry for entry in entries if entry.name == pattern or fnmatchcase(entry.name, shape))
    if not found:
        raise UsageError(f"{where}: none of its {len(entries)} tensors matches '{pattern}'", "list them with --weights")
    return found
