"""Tensors stored uncompressed in mapped files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.errors import LoadError
from tlkit.formats.base.tensors import FormatName, TensorEntry, value_type
from tlkit.formats.files.mapped import Mapped
from tlkit.types import LeftOut

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlkit.mil.program import Value


class MappedTensors:
    """The common part of readers of mapped files: entries with an ``offset`` in a ``file``, viewed in place.

    Features that such files lack (compressed tensors, several files) have their default answers here.
    """

    format: FormatName

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        self.notes: list[str] = []
        self.left_out: tuple[LeftOut, ...] = ()
        self.shards: tuple[Path, ...] = ()
        self._entries: tuple[TensorEntry, ...] = ()
        self._files: dict[str, Mapped] = {}

    def entries(self) -> Sequence[TensorEntry]:
        """Return the tensors in the file's order."""
        return self._entries

    def raw(self, entry: TensorEntry) -> memoryview:
        """Return the tensor's stored bytes, mapped."""
        if not entry.nbytes:
            return memoryview(b"")
        if entry.offset is None:
            raise LoadError(f"{entry.file}: {entry.name}: its bytes do not lie in the file as they are")
        # setdefault by itself would make another Mapped each time.
        file = self._files.get(entry.file) or self._files.setdefault(entry.file, Mapped(Path(entry.file)))
        if entry.offset + entry.nbytes > file.size:
            raise file.broken(f"{entry.name} ends at {entry.offset + entry.nbytes}, past the end ({file.size})")
        return file.view[entry.offset : entry.offset + entry.nbytes]

    def release(self, entry: TensorEntry, nbytes: int) -> None:
        """Release the first ``nbytes`` of a tensor's mapped pages; they are read again on the next access."""
        if entry.offset is not None and entry.file in self._files:
            self._files[entry.file].release(entry.offset, entry.offset + nbytes)

    def release_all(self) -> None:
        """Release all mapped pages; they are read again on the next access."""
        for file in self._files.values():
            file.release(0, file.size)

    def is_compressed(self, entry: TensorEntry) -> bool:
        """Whether a tensor's values must be computed from what is stored: never, here."""
        return False

    def decoded_type(self, entry: TensorEntry) -> str:
        """Return the type of what :meth:`array` gives."""
        return value_type(entry)

    def parts(self, entry: TensorEntry) -> Mapping[str, Value]:
        """Return an empty mapping: a tensor is one run of bytes."""
        return {}

    def carried(self) -> Mapping[str, tuple[str, Any]]:
        """Return the metadata that another format can take over, as text."""
        plain = {key: value for key, value in self.metadata.items() if isinstance(value, str | int | float)}
        return {key: ("str", str(value)) for key, value in plain.items()}

    def decode(self, entry: TensorEntry, raw: memoryview) -> NDArray[Any]:
        """Return the values that stored bytes hold."""
        from tlkit.formats.base.arrays import decode  # late: listing tensors does not need numpy

        return decode(entry, raw)

    def array(self, entry: TensorEntry) -> NDArray[Any]:
        """Return the tensor's values."""
        return self.decode(entry, self.raw(entry))
