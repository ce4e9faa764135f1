"""What ``tlkit inspect`` finds out about one file, in the order of its cost: description, table, values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.errors import UsageError
from tlkit.formats.base.sniff import COREML
from tlkit.formats.base.tensors import TensorEntry, TensorFile
from tlkit.formats.describe import describe_tensors, find_format, open_tensors
from tlkit.formats.groups import Group, group
from tlkit.types import ModelInfo

if TYPE_CHECKING:
    from tlkit.formats.coreml.package import Package

_LONG = 64  # elements of an array that JSON gives by its length: a vocabulary


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


def examine(path: Path, format: str | None = None, function: str | None = None) -> Inspection:
    """Open and describe the model file at ``path``; LoadError says what is wrong with it.

    Ports are those of ``function``, of a Core ML package that has several; of the default one where none is named.
    """
    if find_format(path, format) in COREML:
        from tlkit.formats.coreml.describe import describe_package, weight_table
        from tlkit.formats.coreml.package import open_package

        package = open_package(path)
        info = describe_package(package, function)
        rows = tuple(TensorEntry(w.name, w.dtype, w.shape, w.bytes, w.file, w.offset) for w in weight_table(package))
        return Inspection(path, info, rows, package)
    if function is not None:
        raise UsageError(f"{path}: no Core ML model, so without functions", "leave --function out")
    source = open_tensors(path, format)
    return Inspection(path, describe_tensors(source), tuple(source.entries()), opened=source)


def file_metadata(source: TensorFile | None) -> dict[str, Any]:
    """Return a file's own metadata as plain data; a long array as its type and length."""
    return {key: _plain(value) for key, value in (source.metadata if source else {}).items()}


def _plain(value: Any) -> Any:
    if not hasattr(value, "type"):  # an array of GGUF's has one, and is read when it is looped over
        return value
    return [_plain(item) for item in value] if len(value) <= _LONG else {"array": value.type, "length": len(value)}


def _matching(entries: Sequence[TensorEntry], pattern: str | None, where: str) -> tuple[TensorEntry, ...]:
    if pattern is None:
        return tuple(entries)
    from fnmatch import fnmatchcase

    shape = pattern if any(mark in pattern for mark in "*?[") else f"*{pattern}*"
    found = tuple(entry for entry in entries if entry.name == pattern or fnmatchcase(entry.name, shape))
    if not found:
        raise UsageError(f"{where}: none of its {len(entries)} tensors matches '{pattern}'", "list them with --weights")
    return found
