"""Write a :class:`~tlkit.mil.program.Program` as Core ML's protobuf, and its constants to a weight file: the inverse of
``proto.py``.

Each element type goes into the protobuf field that coremltools uses, since that is where Core ML looks for it. Weights
are copied piece by piece, and once however many functions use them, so a program larger than memory can be written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError
from tlkit.mil import immediate
from tlkit.mil.blob import BlobWriter
from tlkit.mil.collector import uncollected
from tlkit.mil.opsets import DIALECT
from tlkit.mil.program import (
    Argument,
    BlobRef,
    Block,
    Deferred,
    DictType,
    Function,
    ListType,
    NamedType,
    Operation,
    Program,
    StateType,
    TensorType,
    TupleType,
    Type,
    Value,
)
from tlkit.mil.types import DType
from tlkit.mil.unkept import refuse_loss

WEIGHTS = "weights/weight.bin"
"""The path of a package's weights, relative to its model's folder."""
_FIELDS = {
    DType.BOOL: "bools",
    DType.STRING: "strings",
    DType.FP32: "floats",
    DType.FP64: "doubles",
    DType.INT16: "ints",
    DType.UINT16: "ints",
    DType.INT32: "ints",
    DType.INT64: "longInts",
    DType.UINT64: "longInts",
}
"""The protobuf field of each element type; elements of all other types are bytes."""
_LARGEST = (1 << 31) - 1  # bytes of a protobuf message
_DEEPEST = 45  # protobuf readers stop at 100 nested messages, and each nested block adds two: an operation and a block


class WeightFile:
    """The weight file of a program being written (see :func:`weight_file`); created with its first constant."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._writer: BlobWriter | None = None
        # Spares reading a constant again that several functions name; equal bytes from different records are found by
        # BlobWriter.
        self._placed: dict[tuple[DType, BlobRef | Deferred], int] = {}

    @property
    def used(self) -> bool:
        """Whether it contains a constant."""
        return bool(self._placed)

    def place(self, kind: TensorType, data: BlobRef | Deferred) -> int:
        """Add a constant of type ``kind`` unless it is there already; return its record's offset.

        LoadError where its source is missing or damaged, or where its size is not what its type says.
        """
        key = (kind.dtype, data)
        if key not in self._placed:
            put = self._copied(data) if isinstance(data, BlobRef) else self._made(kind, data)
            self._placed[key] = put
        return self._placed[key]

    def _copied(self, ref: BlobRef) -> int:
        if ref.file is None:
            raise LoadError(f"the weight file '{ref.file_name}' that the program names is missing")
        record = ref.file.record(ref.offset)
        padding = record.nbytes * 8 - record.count * record.dtype.bits if record.dtype.bits < 8 else 0
        return self._blobs().stream(record.dtype, ref.file.pieces(record), padding)

    def _made(self, kind: TensorType, data: Deferred) -> int:
        if kind.size is None:
            raise LoadError("a constant of an open shape cannot be written")
        bits = kind.size * kind.dtype.bits
        # Sub-byte elements are packed; the rest of the last byte is padding.
        size = -(-bits // 8)
        dtype = DType.UINT8 if kind.dtype is DType.BOOL else kind.dtype  # a weight file has no bool
        return self._blobs().stream(dtype, _counted(data.pieces(), size), size * 8 - bits)

    def _blobs(self) -> BlobWriter:
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = BlobWriter(self.path.open("w+b"))
        return self._writer

    def close(self, whole: bool) -> None:
        """Close the file; one that is not ``whole`` (complete) gets no header, so that nothing reads it."""
        if self._writer is not None:
            self._writer.close(whole)


def _counted(pieces: Iterable[bytes | memoryview], size: int) -> Iterator[bytes | memoryview]:
    found = 0
    for piece in pieces:
        found += memoryview(piece).nbytes
        yield piece
    if found != size:
        raise LoadError(f"a constant of {size} bytes was made {found} bytes long")


@contextmanager
def weight_file(folder: Path) -> Iterator[WeightFile]:
    """Create the weight file of a model in ``folder``; it is complete once the body has ended without an error."""
    # Core ML puts the folder of model.mlmodel in the place of @model_path.
    weights, whole = WeightFile(folder / WEIGHTS, f"@model_path/{WEIGHTS}"), False
    try:
        yield weights
        whole = True
    finally:
        weights.close(whole)


@uncollected()
def write_program(program: Program, message: Any, weights: WeightFile | None = None) -> None:
    """Write ``program`` into ``message``, a ``MILSpec.Program`` (``Model.mlProgram``), replacing its contents.

    Constants in weight files are copied to ``weights``; without it they stay in the files that the program names.
    LoadError for what protobuf cannot hold, and where ``message`` contains something that a program cannot
    (:mod:`tlkit.mil.unkept`) and that would be lost.
    """
    refuse_loss(message)
    message.Clear()
    _Writer(weights).program(program, message)
    if message.ByteSize() > _LARGEST:
        raise LoadError("the program is larger than a protobuf can be", "keep its constants in a weight file")


class _Writer:
    def __init__(self, weights: WeightFile | None) -> None:
        self._weights = weights

    def program(self, program: Program, message: Any) -> None:
        message.version, message.docString = program.version, program.doc
        for name, function in program.functions.items():
            self.function(function, message.functions[name])
        self.attributes(program.attributes, message)

    def function(self, function: Function, message: Any) -> None:
        message.opset = function.opset
        self.named(function.inputs, message.inputs)
        for opset, block in function.specializations.items():
            self.block(block, message.block_specializations[opset])
        self.attributes(function.attributes, message)

    def block(self, block: Block, message: Any, depth: int = 0) -> None:
        if depth > _DEEPEST:
            raise LoadError(f"blocks are nested deeper than the {_DEEPEST} levels that a protobuf can hold")
        self.named(block.inputs, message.inputs)
        message.outputs.extend(block.outputs)
        for operation in block.operations:
            self.operation(operation, message.operations.add(), depth)
        self.attributes(block.attributes, message)

    def operation(self, operation: Operation, message: Any, depth: int) -> None:
        if operation.type.startswith(DIALECT):
            raise LoadError(f"the operation {operation.type} is tlkit's own, and no package can hold it")
        message.type = operation.type
        for name, arguments in operation.inputs.items():
            given = message.inputs[name].arguments
            for argument in arguments:
                self.argument(argument, given.add())
        self.named(operation.outputs, message.outputs)
        for block in operation.blocks:
            self.block(block, message.blocks.add(), depth + 1)
        self.attributes(operation.attributes, message)

    def argument(self, argument: Argument, message: Any) -> None:
        if isinstance(argument, Value):
            self.value(argument, message.value)
        else:
            message.name = argument.name

    def attributes(self, attributes: Mapping[str, Value], message: Any) -> None:
        for name, value in attributes.items():
            self.value(value, message.attributes[name])

    def named(self, items: Iterable[NamedType], messages: Any) -> None:
        for item in items:
            self.type(item.type, messages.add(name=item.name).type)

    def type(self, kind: Type, message: Any) -> None:
        if isinstance(kind, TensorType):
            self.tensor_type(kind, message.tensorType)
        elif isinstance(kind, ListType):
            self.type(kind.element, message.listType.type)
            _write_dimension(kind.length, message.listType.length, kind.variadic)
        elif isinstance(kind, TupleType):
            # A tuple without elements has to be set too: a oneof without a member reads as no type at all.
            message.tupleType.SetInParent()
            for element in kind.elements:
                self.type(element, message.tupleType.types.add())
        elif isinstance(kind, DictType):
            self.type(kind.key, message.dictionaryType.keyType)
            self.type(kind.value, message.dictionaryType.valueType)
        else:
            self.type(kind.wrapped, message.stateType.wrappedType)

    def tensor_type(self, kind: TensorType, message: Any) -> None:
        message.dataType = kind.dtype.number
        message.rank = -1 if kind.shape is None else len(kind.shape)
        for axis, length in enumerate(kind.shape or ()):
            _write_dimension(length, message.dimensions.add(), axis in kind.variadic)
        for name, value in kind.attributes:
            self.value(value, message.attributes[name])

    def value(self, value: Value, message: Any) -> None:
        kind, data = value.type, value.data
        if value.doc:
            message.docString = value.doc
        self.type(kind, message.type)
        if isinstance(data, BlobRef) and self._weights is None:
            message.blobFileValue.fileName, message.blobFileValue.offset = data.file_name, data.offset
        elif isinstance(data, BlobRef | Deferred):
            self._placed(kind, data, message.blobFileValue)
        elif isinstance(kind, TensorType):
            _write_elements(kind, data, message.immediateValue.tensor)
        elif isinstance(data, bytes):
            raise LoadError("only a tensor's data can be bytes")
        else:
            self.parts(kind, data, message.immediateValue)

    def _placed(self, kind: Type, data: BlobRef | Deferred, message: Any) -> None:
        if self._weights is None:
            raise ValueError("what a pass made of a constant is written to a weight file, and none is given")
        if not isinstance(kind, TensorType):
            raise LoadError("only a tensor's data can lie in a weight file")
        message.fileName, message.offset = self._weights.name, self._weights.place(kind, data)

    def parts(self, kind: Type, data: tuple[Any, ...], message: Any) -> None:
        """Write the constants in a list, tuple or dictionary."""
        if isinstance(kind, DictType):
            message.dictionary.SetInParent()
            for key, item in data:
                pair = message.dictionary.values.add()
                self.value(key, pair.key)
                self.value(item, pair.value)
        elif isinstance(kind, ListType | TupleType):
            inner = message.list if isinstance(kind, ListType) else message.tuple
            inner.SetInParent()
            for item in data:
                self.value(item, inner.values.add())
        elif isinstance(kind, StateType) and data:
            raise LoadError("a state cannot be a constant")


def _write_dimension(length: int | None, message: Any, variadic: bool = False) -> None:
    if length is None:
        # The message is empty: that it is set is all that it says.
        message.unknown.SetInParent()
        if variadic:
            message.unknown.variadic = True
    else:
        message.constant.size = length


def _write_elements(kind: TensorType, data: tuple[Any, ...] | bytes, message: Any) -> None:
    field = _FIELDS.get(kind.dtype, "bytes")
    if data == () and immediate.is_packed(kind.dtype):
        message.SetInParent()  # a constant without a value
    elif field == "bytes":
        message.bytes.values = immediate.canonical(kind, data)
    else:
        elements = immediate.elements(kind.dtype, data, kind.size)
        if kind.dtype is DType.UINT64:
            elements = [item - (1 << 64) if item >> 63 else item for item in elements]  # a longInt is signed
        where = getattr(message, field)
        where.SetInParent()
        where.values.extend(elements)
