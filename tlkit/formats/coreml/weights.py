"""The weights of a Core ML model as a table: stored type, size and location of each.

Stored types have their usual names: ``F32 F16 INT8 INT4 PAL4`` (palettized, 4-bit indices), ``SPARSE ...``. A
compressed weight (``constexpr_*``) is one row: its shape is that of the weight it expands to, its bytes are those of
all its parts (indices, look-up table, scales, mask).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tlkit.errors import LoadError
from tlkit.formats.base.ledger import Ledger
from tlkit.mil.blob import BlobFile
from tlkit.mil.program import Argument, BlobRef, Operation, Program, Ref, TensorType, Type, Value, walk
from tlkit.mil.types import DType
from tlkit.types import LeftOut

_NAMES = {DType.FP16: "F16", DType.FP32: "F32", DType.FP64: "F64", DType.BF16: "BF16"}
_ALIGNED = 64  # bytes: records, their descriptors and the file's header begin at multiples of it
_UNNAMED = "no constant of the program names these bytes"
_CHAIN = 8  # constexpr ops feed one another at most twice; a damaged program may name itself


@dataclass(frozen=True, slots=True)
class Weight:
    """One stored tensor: name, stored type, shape, bytes on disk and the offset of its record in ``file``.

    ``file`` is empty and ``offset`` None for a constant kept in the program itself.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    file: str = ""
    offset: int | None = None

    @property
    def elements(self) -> int:
        """The number of elements of the (expanded) weight."""
        return math.prod(self.shape)


def program_weights(program: Program) -> tuple[Weight, ...]:
    """Return the weights of all functions, in program order; one that several functions share is listed once.

    A weight is any constant in a weight file, the result of a ``constexpr`` op, and any other float constant of rank 1
    or more; scalars and integer parameters (strides, axes) are not.
    """
    found: dict[tuple[Any, ...], Weight] = {}
    for function in program.functions.values():
        for weight in _Table(function.block.operations).rows():
            # Functions may share one record under several names.
            key = (weight.file, weight.offset, weight.dtype) if weight.file else (weight.name, weight.shape)
            found.setdefault(key, weight)
    return tuple(found.values())


def blob_references(program: Program) -> Iterator[BlobRef]:
    """Yield every reference to a weight file, in all functions."""
    return (ref for ref, _ in _blobs(program))


def blob_constants(program: Program) -> Iterator[tuple[BlobRef, int]]:
    """Yield every reference to a weight file with the bytes that its constant takes, by its type."""
    for ref, kind in _blobs(program):
        yield ref, _bytes(kind)


def _blobs(program: Program) -> Iterator[tuple[BlobRef, Type]]:
    for function in program.functions.values():
        for operation in walk(function.block.operations):
            for _, value in _values(operation):
                if isinstance(value.data, BlobRef):
                    yield value.data, value.type


def unnamed(references: Iterable[BlobRef]) -> Iterator[LeftOut]:
    """Yield the bytes of the weight files that none of ``references`` names, except padding, per file.

    A file with a damaged record is skipped: the package's faults name it.
    """
    named: dict[BlobFile, set[int]] = {}
    for ref in references:
        if ref.file is not None:
            named.setdefault(ref.file, set()).add(ref.offset)
    ledger = Ledger()
    for file, offsets in named.items():
        key = str(file.path)
        ledger.enter(key, len(file), file.path.name)
        ledger.claim(key, 0, _ALIGNED)
        try:
            for offset in offsets:
                record = file.record(offset)
                # The padding after a record belongs to it.
                end = -(-(record.offset + record.nbytes) // _ALIGNED) * _ALIGNED
                ledger.claim(key, offset, offset + _ALIGNED)
                ledger.claim(key, record.offset, min(end, len(file)))
        except LoadError:
            ledger.claim(key)
    yield from ledger.rest(_UNNAMED)


def unnamed_in(files: Mapping[str, int], constants: Iterable[tuple[BlobRef, int]]) -> Iterator[LeftOut]:
    """Yield what :func:`unnamed` does for weight files that are not open: ``files`` has the size of each by the name
    that the program gives it. Each constant counts by its type, with its record and the padding behind it."""
    taken: dict[str, dict[int, int]] = {name: {} for name in files}
    for ref, nbytes in constants:
        taken.setdefault(ref.file_name, {})[ref.offset] = nbytes
    for name, size in files.items():
        used = _ALIGNED + sum(_ALIGNED - (-nbytes // _ALIGNED) * _ALIGNED for nbytes in taken[name].values())
        if size - used > 0:
            yield LeftOut(name.rpartition("/")[2], _UNNAMED, size - used, "unnamed")


def strays(sizes: Mapping[str, int], used: Iterable[str]) -> Iterator[LeftOut]:
    """Yield the weight files among ``sizes``, bytes by path, that are not among ``used``."""
    known = set(used)
    for path, size in sorted(sizes.items()):
        if is_weight_file(path) and path not in known:
            yield LeftOut(path, "no program of the model names this weight file", size, "unnamed")


def is_weight_file(path: str) -> bool:
    """Whether a package's file, by its path in it, can only be one of weights."""
    folder, _, name = path.rpartition("/")
    inside = folder.rpartition("/")[2] == "weights" and not name.startswith(".")
    return inside or name.endswith(".weights") or (name.endswith(".bin") and name != "coremldata.bin")


def stored_name(dtype: DType) -> str:
    """Return the usual name of ``dtype``: ``F16`` for fp16, ``INT8`` for int8 and uint8."""
    return _NAMES.get(dtype) or dtype.name.removeprefix("U").replace("FP8", "F8")


def _values(operation: Operation) -> list[tuple[str, Value]]:
    found = list(operation.attributes.items())
    for key, arguments in operation.inputs.items():
        found += [(key, argument) for argument in arguments if isinstance(argument, Value)]
    return found


class _Table:
    """The weights of one block: its constants by name, and those that are parts of a compressed weight."""

    def __init__(self, operations: tuple[Operation, ...]) -> None:
        self._operations = [op for op in walk(operations) if op.outputs]
        self._parts = {
            argument.name
            for op in self._operations
            if op.type.startswith("constexpr_")
            for arguments in op.inputs.values()
            for argument in arguments
            if isinstance(argument, Ref)
        }

    @cached_property  # only compressed weights ask
    def _makers(self) -> Mapping[str, tuple[Operation, Type]]:
        return {output.name: (op, output.type) for op in self._operations for output in op.outputs}

    def rows(self) -> Iterator[Weight]:
        for op in self._operations:
            name = op.outputs[0].name
            if op.type.startswith("constexpr_"):
                # Of a mask and the values that it places, the next operation may take only the values.
                if all(output.name not in self._parts for output in op.outputs):
                    yield self._compressed(op)
            elif name not in self._parts:
                for key, value in _values(op):
                    kind = value.type
                    if isinstance(kind, TensorType) and (
                        isinstance(value.data, BlobRef) or (kind.dtype.is_float and kind.shape)
                    ):
                        yield self._plain(name if op.type == "const" else f"{name}.{key}", kind, value)

    def _plain(self, name: str, kind: TensorType, value: Value) -> Weight:
        blob = value.data if isinstance(value.data, BlobRef) else None
        return Weight(name, stored_name(kind.dtype), _shape(kind), _bytes(kind), *_place(blob))

    def _compressed(self, op: Operation) -> Weight:
        values = list(self._leaves(op))
        # The largest part is the weight's own; equal scales and zero points of several are stored once.
        stored = [value for value in values if isinstance(value.data, BlobRef)]
        data = max(stored, key=lambda value: _bytes(value.type)).data if stored else None
        blob = data if isinstance(data, BlobRef) else None
        # Two operations in a row may take one mask.
        places = {_place(value.data) if isinstance(value.data, BlobRef) else (id(value),): value for value in values}
        size = sum(_bytes(value.type) for value in places.values())
        return Weight(op.outputs[0].name, self._label(op), _shape(op.outputs[0].type), size, *_place(blob))

    def _leaves(self, op: Operation, seen: set[str] | None = None) -> Iterator[Value]:
        """Yield the constants that ``op`` expands, itself or through other constexpr ops, each once."""
        seen = set() if seen is None else seen
        # Neither holds weights: what the op is called, and what shape it expands to.
        yield from (value for key, value in op.attributes.items() if key not in ("name", "shape"))
        for argument in (argument for arguments in op.inputs.values() for argument in arguments):
            if isinstance(argument, Value):
                yield argument
            elif argument.name in self._makers:
                maker = self._makers[argument.name][0]
                if maker.outputs[0].name not in seen:
                    seen.add(maker.outputs[0].name)
                    yield from self._leaves(maker, seen)

    def _label(self, op: Operation, depth: int = 0) -> str:
        sparse = "SPARSE " if "sparse" in op.type else ""
        if op.type == "constexpr_sparse_to_dense" and depth < _CHAIN:
            maker = self._maker(op, "nonzero_data")
            if maker is not None and maker.type.startswith("constexpr_"):
                return self._label(maker, depth + 1)
        if "lut" in op.type:
            return f"{sparse}PAL{self._index_bits(op)}"
        # The input that holds the codes has another name in each op.
        kinds = (self._type(op, key) for key in ("quantized_data", "data", "nonzero_data", "source_val"))
        return sparse + next((stored_name(kind.dtype) for kind in kinds if kind), "")

    def _index_bits(self, op: Operation) -> int:
        """Return the width of indices: iOS18 has types for them; iOS16 packs them into uint8, so the table's length
        tells."""
        kind, table = self._type(op, "indices") or self._type(op, "indices_nonzero_data"), self._type(op, "lut")
        if kind and kind.dtype is not DType.UINT8:
            return kind.dtype.bits
        entries = table.shape[0] if table and table.shape and len(table.shape) == 1 else 256
        return max(1, math.ceil(math.log2(max(entries or 2, 2))))

    def _type(self, op: Operation, key: str) -> TensorType | None:
        argument: Argument | None = op.attributes.get(key) or next(iter(op.inputs.get(key, ())), None)
        if isinstance(argument, Ref):
            kind = self._makers[argument.name][1] if argument.name in self._makers else None
        else:
            kind = argument.type if argument else None
        return kind if isinstance(kind, TensorType) else None

    def _maker(self, op: Operation, key: str) -> Operation | None:
        argument = next(iter(op.inputs.get(key, ())), None)
        return self._makers[argument.name][0] if isinstance(argument, Ref) and argument.name in self._makers else None


def _shape(kind: Any) -> tuple[int, ...]:
    return tuple([dim or 0 for dim in kind.shape or ()]) if isinstance(kind, TensorType) else ()


def _bytes(kind: Any) -> int:
    # Rounded up to whole bytes.
    return -(-math.prod(_shape(kind)) * kind.dtype.bits // 8) if isinstance(kind, TensorType) else 0


def _place(blob: BlobRef | None) -> tuple[str, int | None]:
    return (blob.file_name, blob.offset) if blob else ("", None)
