"""The protocol of every format with weights: its tensors, their places in the file, and their bytes on demand.

Invariants, which each reader checks when it opens a file: an entry's bytes lie inside its file; its shape and type
agree with ``nbytes``; names are unique. Shapes are row-major, as PyTorch and numpy write them (GGUF stores them
reversed). Nothing is lost silently: every byte of tensor data belongs to an entry or to an item of ``left_out``
(:mod:`tlkit.formats.base.ledger` keeps the count).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from tlkit.errors import LoadError
from tlkit.formats.base.dtypes import BLOCKS, QUANTIZED
from tlkit.types import LeftOut

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlkit.mil.program import Value

FormatName = Literal["CoreML", "GGUF", "ONNX", "PyTorch", "SafeTensors", "numpy"]


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One stored tensor: name, stored type (:mod:`tlkit.formats.base.dtypes`), shape, bytes, file and offset.

    ``strides`` (in elements) are empty for a contiguous, row-major tensor; otherwise ``nbytes`` spans from its first to
    its last element. ``storage`` names memory that several tensors share in PyTorch's files. ``offset`` is None where
    the bytes are not in the file as such (compressed in a zip, or inside a protobuf). ``role`` is ``training`` for what
    only resuming training needs (an optimizer's state).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    file: str = ""
    offset: int | None = None
    strides: tuple[int, ...] = ()
    big_endian: bool = False
    storage: str = ""
    role: str = ""

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@runtime_checkable
class TensorFile(Protocol):
    """A file (or several that belong together) of named tensors, opened and checked, whose data are not read yet."""

    @property
    def path(self) -> Path:
        """The path that the user gave."""

    @property
    def format(self) -> FormatName:
        """The file's format."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The file's own metadata, plain data by key."""

    @property
    def notes(self) -> Sequence[str]:
        """Anomalies of the file, one sentence each."""

    @property
    def left_out(self) -> Sequence[LeftOut]:
        """Tensor data that are not among the entries, with reasons."""

    @property
    def shards(self) -> Sequence[Path]:
        """The files of a split model; empty where the model is the one file that the user named."""

    def carried(self) -> Mapping[str, tuple[str, Any]]:
        """Return the metadata that another format can take over: GGUF's type name (``str``, ``u32``) and value, by
        key."""

    def entries(self) -> Sequence[TensorEntry]:
        """Return the tensors in the file's order."""

    def is_compressed(self, entry: TensorEntry) -> bool:
        """Whether a tensor's values must be computed: its stored bytes are not simply the elements of its shape."""

    def decoded_type(self, entry: TensorEntry) -> str:
        """Return the type, by SafeTensors' name, of what :meth:`array` returns; LoadError where it cannot."""

    def release(self, entry: TensorEntry, nbytes: int) -> None:
        """Release the first ``nbytes`` of a tensor's mapped pages; they are read again on the next access."""

    def raw(self, entry: TensorEntry) -> memoryview:
        """Return a tensor's stored bytes, mapped rather than copied where the file allows; do not write to them.

        LoadError where they are missing (with their shard or weight file).
        """

    def decode(self, entry: TensorEntry, raw: memoryview) -> NDArray[Any]:
        """Decode ``raw``, a tensor's stored bytes or a run of them, to values in the shape of ``entry``.

        LoadError for a type that cannot be decoded.
        """

    def array(self, entry: TensorEntry) -> NDArray[Any]:
        """Return a tensor's values: numpy's own types unchanged, everything else (BF16, blocks) as float32."""

    def parts(self, entry: TensorEntry) -> Mapping[str, Value]:
        """Return the constants of a compressed tensor by role (indices, lut, scale, mask …); empty for one stored as a
        whole.
        """


class LazyTensor:
    """A tensor that is read on request: ``numpy()`` decodes it, ``raw()`` views its stored bytes."""

    def __init__(self, source: TensorFile, entry: TensorEntry) -> None:
        self._source = source
        self.entry = entry

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.entry.name

    @property
    def dtype(self) -> str:
        """The stored type's name, ``BF16`` or ``Q4_K``."""
        return self.entry.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, row-major."""
        return self.entry.shape

    def raw(self) -> memoryview:
        """Return the stored bytes, mapped."""
        return self._source.raw(self.entry)

    def numpy(self) -> NDArray[Any]:
        """Return the values; a plain type is a read-only view of the file, anything else is decoded to float32."""
        return self._source.array(self.entry)

    # numpy calls this, and since version 2 says whether it wants a copy.
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        import numpy as np

        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"LazyTensor({self.name!r}, {self.dtype}, {self.shape})"


class Tensors(Mapping[str, LazyTensor]):
    """The tensors of a file by name, each read on request."""

    def __init__(self, source: TensorFile) -> None:
        self.source = source
        self._entries = {entry.name: entry for entry in source.entries()}

    def __getitem__(self, name: str) -> LazyTensor:
        return LazyTensor(self.source, self._entries[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def value_type(entry: TensorEntry) -> str:
    """Return the type of the values of a plain ``entry``; LoadError for blocks, which only their reader can decode."""
    if entry.dtype in BLOCKS and entry.dtype not in QUANTIZED:
        return entry.dtype
    order = "big-endian " if entry.big_endian and entry.dtype in QUANTIZED else ""
    raise LoadError(f"{entry.file}: {entry.name}: no values can be read from {order}{entry.dtype}")
