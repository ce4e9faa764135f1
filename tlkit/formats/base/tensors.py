"""What every weight-carrying format answers: which tensors it holds, where they lie, and their bytes on demand.

Invariants, kept by each reader when it opens a file: an entry's bytes lie inside its file; its shape and type agree
with ``nbytes``; names are unique. Shapes are row-major, as PyTorch and numpy write them (GGUF stores them reversed).
Nothing vanishes: every byte of tensor data in the file belongs to an entry or to something in ``left_out``
(:mod:`tlkit.formats.base.ledger` keeps the count).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from tlkit.errors import LoadError
from tlkit.mil.program import Value
from tlkit.types import LeftOut

if TYPE_CHECKING:
    from numpy.typing import NDArray

FormatName = Literal["CoreML", "GGUF", "ONNX", "PyTorch", "SafeTensors", "numpy"]


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One stored tensor: name, stored type (:mod:`tlkit.formats.base.dtypes`), shape, bytes, and where in which file.

    ``strides`` (in elements) are empty for a tensor that lies contiguously, row by row; otherwise ``nbytes`` spans from
    its first to its last element. ``storage`` names memory that several tensors share, in PyTorch's files. ``offset``
    is None where the bytes do not lie in a file as they are (compressed in a zip, or inside a protobuf). ``role`` is
    ``training`` for what only going on with a training needs (an optimizer's state).
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
    """A file (or several that belong together) of named tensors, opened and checked but not read."""

    @property
    def path(self) -> Path:
        """What the user named."""

    @property
    def format(self) -> FormatName:
        """What it is a file of."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the file says of itself, plain data by key."""

    @property
    def notes(self) -> Sequence[str]:
        """What is odd about the file, a sentence each."""

    @property
    def left_out(self) -> Sequence[LeftOut]:
        """The tensor data that are not among the entries, and why."""

    @property
    def shards(self) -> Sequence[Path]:
        """The files that the model was split into; none where it is the one that was named."""

    def carried(self) -> Mapping[str, tuple[str, Any]]:
        """Return the metadata that another format can take on: GGUF's name of the type (``str``, ``u32``) and value."""

    def entries(self) -> Sequence[TensorEntry]:
        """Return the tensors in the file's order."""

    def is_compressed(self, entry: TensorEntry) -> bool:
        """Whether a tensor's values have to be worked out: its stored bytes are not the values of its shape."""

    def decoded_type(self, entry: TensorEntry) -> str:
        """Return the type, by SafeTensors' name, of what :meth:`array` gives; LoadError where it can give nothing."""

    def release(self, entry: TensorEntry, nbytes: int) -> None:
        """Let go of the first ``nbytes`` of a tensor's mapped pages; looked at again, they are read again."""

    def raw(self, entry: TensorEntry) -> memoryview:
        """Return a tensor's stored bytes, mapped and not copied wherever the file allows; they are not to be written.

        LoadError where they are not here (a shard or weight file that is missing).
        """

    def decode(self, entry: TensorEntry, raw: memoryview) -> NDArray[Any]:
        """Return the values, in the shape of ``entry``, that ``raw`` holds: a tensor's stored bytes, or a run of them.

        LoadError for a type that has no values of its own.
        """

    def array(self, entry: TensorEntry) -> NDArray[Any]:
        """Return a tensor's values: numpy's own types as they are, everything else (BF16, blocks) as float32."""

    def parts(self, entry: TensorEntry) -> Mapping[str, Value]:
        """Return the constants that a compressed tensor is made of, by what each is: indices, lut, scale, mask …

        Nothing for one that is stored as a whole.
        """


class LazyTensor:
    """A tensor that is read when asked: ``numpy()`` decodes it, ``raw()`` views its stored bytes."""

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

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        import numpy as np

        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"LazyTensor({self.name!r}, {self.dtype}, {self.shape})"


class Tensors(Mapping[str, LazyTensor]):
    """The tensors of a file by name, each read when it is asked for."""

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
    from tlkit.formats.base.dtypes import BLOCKS, QUANTIZED

    if entry.dtype in BLOCKS and entry.dtype not in QUANTIZED:
        return entry.dtype
    order = "big-endian " if entry.big_endian and entry.dtype in QUANTIZED else ""
    raise LoadError(f"{entry.file}: {entry.name}: no values can be read from {order}{entry.dtype}")
