"""Read Core ML's protobuf into a :class:`~tlkit.mil.program.Program`: one function per kind of message.

The generated modules come from coremltools' wheel, but coremltools itself is never imported (see ``coreml_proto``).
Constants are not decoded; a blob value keeps the file's name and offset, and each file is mapped once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlkit.errors import LoadError
from tlkit.mil import coreml_proto
from tlkit.mil.blob import BlobFile
from tlkit.mil.collector import uncollected
from tlkit.mil.immediate import canonical, is_packed
from tlkit.mil.program import (
    Argument,
    BlobRef,
    Block,
    DictType,
    Function,
    ListType,
    NamedType,
    Operation,
    Program,
    Ref,
    StateType,
    TensorType,
    TupleType,
    Type,
    Value,
)
from tlkit.mil.types import BY_NUMBER, DType

OpenBlob = Callable[[str], BlobFile | None]

_MOST_AXES = 64  # numpy's and torch's own bound
_SCALAR_FIELDS = ("floats", "ints", "bools", "strings", "longInts", "doubles")


def parse_model(data: bytes) -> Any:
    """Return the ``Model`` message that ``data`` holds; LoadError where it is damaged."""
    from google.protobuf.message import DecodeError

    model = coreml_proto.module("Model_pb2").Model()
    try:
        model.ParseFromString(data)
    except DecodeError:
        said = "the model's protobuf is damaged, or has messages more than 100 deep in each other"
        raise LoadError(said, "fetch or convert the file again; pipelines can be 45 deep") from None
    return model


@uncollected()
def read_program(message: Any, open_blob: OpenBlob) -> Program:
    """Return the program in ``message`` (``Model.mlProgram``); ``open_blob`` maps the weight file of a given name."""
    return _Reader(open_blob).program(message)


class _Reader:
    """Reads one program. Types and small constants recur in their thousands: each is made once and shared.

    Two messages of the same bytes are equal, so a message's bytes are the key. Serializing one costs a fraction of
    reading its fields one by one.
    """

    def __init__(self, open_blob: OpenBlob) -> None:
        self._open_blob = open_blob
        self._files: dict[str, BlobFile | None] = {}
        self._types: dict[bytes, Type] = {}
        self._values: dict[bytes, Value] = {}
        self._names = _Names()

    def program(self, message: Any) -> Program:
        functions = {name: self.function(item) for name, item in message.functions.items()}
        return Program(functions, message.version, self.attributes(message), message.docString)

    def function(self, message: Any) -> Function:
        blocks = {opset: self.block(block) for opset, block in message.block_specializations.items()}
        return Function(self.named(message.inputs), message.opset, blocks, self.attributes(message))

    def block(self, message: Any) -> Block:
        operations = tuple(map(self.operation, message.operations))
        return Block(self.named(message.inputs), tuple(message.outputs), operations, self.attributes(message))

    def operation(self, message: Any) -> Operation:
        inputs, blocks = message.inputs, message.blocks
        # A map's own iterator: items() of protobuf's maps is Python's, several times as slow.
        # They come in another order in each process.
        given = {name: tuple(map(self.argument, inputs[name].arguments)) for name in sorted(inputs)} if inputs else {}
        inner = tuple(map(self.block, blocks)) if blocks else ()
        return Operation(message.type, given, self.named(message.outputs), self.attributes(message), inner)

    def argument(self, binding: Any) -> Argument:
        # The name is empty where a value is bound.
        if not (name := binding.name) and binding.WhichOneof("binding") == "value":
            return self.value(binding.value)
        return Ref(name)

    def attributes(self, message: Any) -> dict[str, Value]:
        found = message.attributes
        if not found:
            return {}
        return {key: self.name(found[key]) if key == "name" else self.value(found[key]) for key in sorted(found)}

    def named(self, messages: Any) -> tuple[NamedType, ...]:
        return tuple([NamedType(item.name, self.type(item.type)) for item in messages])

    def type(self, message: Any) -> Type:
        key = message.SerializeToString()
        if (found := self._types.get(key)) is None:
            found = self._types[key] = read_type(message)
        return found

    def name(self, message: Any) -> Value:
        """An operation's own name: as frequent as operations, and no two alike."""
        return self._names.read(message.SerializeToString()) or self.value(message)

    def value(self, message: Any) -> Value:
        if message.ByteSize() > _SMALL:
            return self._value(message)
        key = message.SerializeToString()
        if (found := self._values.get(key)) is None:
            found = self._value(message)
            # Places in a weight file do not recur.
            if not isinstance(found.data, BlobRef):
                self._values[key] = found
        return found

    def _value(self, message: Any) -> Value:
        kind, doc = self.type(message.type), message.docString
        source = message.WhichOneof("value")
        if source == "blobFileValue":
            blob = message.blobFileValue
            name = blob.fileName
            if name not in self._files:
                self._files[name] = self._open_blob(name)
            return Value(kind, BlobRef(name, blob.offset, self._files[name]), doc)
        if source is None:
            return Value(kind, (), doc)
        return Value(kind, canonical(kind, self.immediate(kind, message.immediateValue)), doc)

    def immediate(self, kind: Type, message: Any) -> tuple[Any, ...] | bytes:
        which = message.WhichOneof("value")
        if which == "tensor":
            field = message.tensor.WhichOneof("value")
            if field == "bytes":
                return bytes(message.tensor.bytes.values)
            found = tuple(getattr(message.tensor, field).values) if field in _SCALAR_FIELDS else ()
            packed = isinstance(kind, TensorType) and is_packed(kind.dtype)
            return b"" if field and packed and not found else found  # an empty tensor, not a missing value
        if which in ("tuple", "list"):
            return tuple(self.value(item) for item in getattr(message, which).values)
        if which == "dictionary":
            return tuple((self.value(pair.key), self.value(pair.value)) for pair in message.dictionary.values)
        return ()


class _Names:
    """Reads strings without axes from their bytes: of large programs, every second constant is an operation's name.

    Protobuf itself serializes an example of each length; what begins as that does is a string of that length.
    """

    def __init__(self) -> None:
        self._heads: dict[int, bytes] = {}
        self._example = coreml_proto.module("MIL_pb2").Value()
        self._example.type.tensorType.dataType = DType.STRING.number
        self._example.immediateValue.tensor.strings.values.append("")
        self._head = len(self._example.SerializeToString())  # of all strings but the longest

    def read(self, data: bytes) -> Value | None:
        """Return the string in ``data``; None where they are of any other value, or too long, or empty."""
        length = len(data) - self._head
        if length <= 0 or len(data) > _SMALL:
            return None
        if (head := self._heads.get(length)) is None:
            self._example.immediateValue.tensor.strings.values[0] = "-" * length
            head = self._heads[length] = self._example.SerializeToString()[:-length]
        return Value(_STRING, (data[self._head :].decode(),)) if data.startswith(head) else None


_STRING = TensorType(DType.STRING, ())
_SMALL = 127  # bytes of a constant that is looked up by them: up to here protobuf writes a length as one byte


def read_type(message: Any) -> Type:
    """Return the type in a ``ValueType`` message."""
    which = message.WhichOneof("type")
    if which == "tensorType":
        return _tensor_type(message.tensorType)
    if which == "listType":
        length = message.listType.length
        fixed = length.constant.size if length.WhichOneof("dimension") == "constant" else None
        return ListType(read_type(message.listType.type), fixed, length.unknown.variadic)
    if which == "tupleType":
        return TupleType(tuple(read_type(item) for item in message.tupleType.types))
    if which == "dictionaryType":
        return DictType(read_type(message.dictionaryType.keyType), read_type(message.dictionaryType.valueType))
    if which == "stateType":
        wrapped = read_type(message.stateType.wrappedType)
        if isinstance(wrapped, TensorType):
            return StateType(wrapped)
    raise LoadError(f"a MIL value of unknown type ({which})", "the model file is damaged or newer than tlkit")


def _tensor_type(message: Any) -> TensorType:
    dtype = BY_NUMBER.get(message.dataType)
    if dtype is None:
        raise LoadError(f"unknown MIL element type {message.dataType}", "the model file is damaged or newer than tlkit")
    # A negative rank stands for an unknown one.
    if message.rank < 0:
        return TensorType(dtype, None, _type_attributes(message))
    dims = message.dimensions
    if len(dims) > _MOST_AXES:
        raise LoadError(f"a tensor of {len(dims)} axes", "the model file is damaged")
    shape = tuple(d.constant.size if d.WhichOneof("dimension") == "constant" else None for d in dims)
    variadic = tuple(axis for axis, d in enumerate(dims) if d.unknown.variadic)
    return TensorType(dtype, shape, _type_attributes(message), variadic)


def _type_attributes(message: Any) -> tuple[tuple[str, Value], ...]:
    if not message.attributes:
        return ()
    found = _Reader(lambda name: None).attributes(message)
    return tuple((name, found[name]) for name in sorted(found))
