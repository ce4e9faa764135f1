"""A package's weights as a language model's source: the functions in it, and forms of the model that it does not have.

What a package was made of is told by GGUF's names in its description; its weights are constants of its functions. The
builder that made the functions makes them again of these constants, and only where they are the package's own,
operation by operation, does the model stand for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.errors import LoadError
from tlkit.formats.gguf.model.changes import Change
from tlkit.frontends.gguf.kit.source import LanguageSource, StoredTensor
from tlkit.mil.blob import BlobRef, Deferred
from tlkit.mil.program import Argument, Function, Operation, Ref, TensorType, Value
from tlkit.mil.types import DType

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCKS = "constexpr_blockwise_shift_scale"
_MAKERS = (_BLOCKS, "constexpr_cast")
_ORDER = ("data", "scale", "offset", "source_val", "output_dtype")
"""In which the builder gives a maker's inputs, which is the order of its constants."""
_NOTHING = Value(TensorType(DType.FP32, ()), (0.0,))


@dataclass(frozen=True, slots=True)
class Laid:
    """One operation of those that make a weight, of constants and other ones."""

    type: str
    inputs: Mapping[str, Laid | Value]
    dtype: DType
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PackagedTensor(StoredTensor):
    """A weight as a package has it, with all changes done: a constant, or what makes it of some."""

    laid: Laid | Value = _NOTHING

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, row-major."""
        return _shape(self.laid)

    @property
    def stored(self) -> int:
        """The bytes that its constants have."""
        return _bytes(self.laid)

    def changed(self, change: Change) -> StoredTensor:
        """Return the tensor: its values are changed already."""
        return self

    def array(self) -> NDArray[Any]:
        """Return the values as float32."""
        return self.rows(range(self.shape[0]))

    def rows(self, indices: Sequence[int]) -> NDArray[Any]:
        """Return some rows as float32, of which only the bytes are read."""
        return np.asarray(_rows(self.laid, indices), np.float32)


def packaged_source(path: Path, function: Function, said: Mapping[str, Any], files: Sequence[Path]) -> LanguageSource:
    """Return the source that a package's description (its ``metadata``, ``tensors`` and ``values``) tells of, with the
    weights of ``function``; LoadError where one is not there."""
    constants: dict[str, Value] = {}
    makers: dict[str, Operation] = {}
    for operation in function.block.operations:
        if operation.type == "const":
            constants[operation.outputs[0].name] = operation.attributes["val"]
        elif operation.type in _MAKERS:
            makers[operation.outputs[0].name] = operation
    file: Any = None  # its values are not in a file of tensors
    tensors = {name: StoredTensor(name, file, made=tuple(values)) for name, values in said["values"].items()}
    for name in said["tensors"]:
        short = name.replace(".", "_")
        ends = (f"{short}_{_BLOCKS}_1", f"{short}_{_BLOCKS}", f"{short}_constexpr_cast", short)
        laid = next((found for end in ends if (found := _laid(end, constants, makers)) is not None), None)
        if laid is None:
            raise LoadError(f"{path}: the weight '{name}' is not in its program", "convert it again")
        tensors[name] = PackagedTensor(name, file, laid=laid)
    return LanguageSource(path, said["metadata"], tensors, files=tuple(files))


def _laid(name: str, constants: Mapping[str, Value], makers: Mapping[str, Operation]) -> Laid | Value | None:
    """Return what makes the value ``name``; None where that is something else."""
    if name in constants:
        return constants[name]
    maker = makers.get(name)
    if maker is None or not isinstance(maker.outputs[0].type, TensorType):
        return None
    inputs: dict[str, Laid | Value] = {}
    for key in (key for key in _ORDER if key in maker.inputs):
        item = maker.inputs[key][0]
        found = item if isinstance(item, Value) else _laid(item.name, constants, makers)
        if found is None:
            return None
        inputs[key] = found
    kind = maker.outputs[0].type
    return Laid(maker.type, inputs, kind.dtype, tuple(length or 0 for length in kind.shape or ()))


def differs(made: Function, stored: Function, known: set[Any] | None = None) -> str | None:
    """Return where two functions part: the name of the first operation; None where they are the same.

    ``known`` are pairs of constants that are the same, which are not read again; those found are added.
    """
    known = set() if known is None else known
    if made.inputs != stored.inputs or made.block.outputs != stored.block.outputs:
        return "its inputs or outputs"
    ours, theirs = made.block.operations, stored.block.operations
    for one, other in zip(ours, theirs, strict=False):
        if not _same(one, other, known):
            return other.outputs[0].name if other.outputs else other.type
    return None if len(ours) == len(theirs) else "its end"


def _same(one: Operation, other: Operation, known: set[Any]) -> bool:
    if (one.type, one.outputs, one.blocks) != (other.type, other.outputs, other.blocks):
        return False
    if one.type == "const":
        return _equal(one.attributes["val"], other.attributes["val"], known)
    return one.inputs.keys() == other.inputs.keys() and all(
        len(items) == len(other.inputs[key])
        and all(_alike(*pair, known) for pair in zip(items, other.inputs[key], strict=True))
        for key, items in one.inputs.items()
    )


def _alike(one: Argument, other: Argument, known: set[Any]) -> bool:
    if isinstance(one, Ref) or isinstance(other, Ref):
        return one == other
    return _equal(one, other, known)


def _equal(one: Value, other: Value, known: set[Any]) -> bool:
    if one.type != other.type:
        return False
    # Constants of the package itself are not read; large ones are compared piece by piece.
    if one.data is other.data or one.data == other.data:
        return True
    if isinstance(one.data, Deferred) and isinstance(other.data, BlobRef) and other.data.file is not None:
        pair = (one.data, other.data)
        if pair not in known and not _follows(one.data.pieces(), other.data):
            return False
        known.add(pair)
        return True
    return np.array_equal(one.numpy(), other.numpy())


def _follows(pieces: Iterator[bytes | memoryview], stored: BlobRef) -> bool:
    """Whether a record of a weight file holds these bytes."""
    assert stored.file is not None
    held, start = stored.file.data(stored.file.record(stored.offset)), 0
    for piece in pieces:
        size = memoryview(piece).nbytes
        if held[start : start + size] != memoryview(piece).cast("B"):
            return False
        stored.file.release()
        start += size
    return start == len(held)


def _bytes(item: Laid | Value) -> int:
    if isinstance(item, Laid):
        return sum(map(_bytes, item.inputs.values()))
    assert isinstance(item.type, TensorType)  # as all constants of weights are
    return item.type.dtype.bits * (item.type.size or 0) // 8


def _rows(item: Laid | Value, indices: Sequence[int]) -> NDArray[Any]:
    """Return some rows of a value; of one that has a single row for all, that one."""
    if isinstance(item, Value):
        return _rows_of_constant(item, indices)
    if item.type == "constexpr_cast":
        return _rows(item.inputs["source_val"], indices)
    found = np.asarray(_rows(item.inputs["data"], indices), np.float32)
    for key in ("offset", "scale"):
        if key in item.inputs:
            part = np.asarray(_rows(item.inputs[key], indices), np.float32)
            part = np.repeat(part, found.shape[-1] // part.shape[-1], -1)
            found = found - part if key == "offset" else found * part
    return found


def _rows_of_constant(value: Value, indices: Sequence[int]) -> NDArray[Any]:
    kind, (height, *rest) = value.type, _shape(value)
    assert isinstance(kind, TensorType)
    places = list(indices) if height > 1 else [0]
    if kind.dtype.bits != 4 or not isinstance(value.data, BlobRef) or value.data.file is None:
        found: NDArray[Any] = value.numpy()[places]
        return found
    file = value.data.file
    packed = np.frombuffer(file.data(file.record(value.data.offset)), np.uint8).reshape(height, -1)[places]
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(len(places), *rest).astype(np.int8)
    return codes if kind.dtype is DType.UINT4 else np.where(codes > 7, codes - 16, codes)


def _shape(item: Laid | Value) -> tuple[int, ...]:
    if isinstance(item, Laid):
        return item.shape
    assert isinstance(item.type, TensorType)
    return tuple(length or 0 for length in item.type.shape or ())
