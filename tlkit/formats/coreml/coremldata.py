"""``coremldata.bin`` of a compiled model: its kind, specification version and description.

The file has no published layout. All known ones begin with a kind (u32: the number of the model's field in Core ML's
protobuf) and two records (u64 major, minor, patch, u64 length, text): the one with a text is the container's version
and variant, the other the specification version. Compilers of 2017 write the latter first, later ones last. Variant
``spec`` (the small kinds): the rest is the whole serialised Model. Variant ``generic``: the ModelDescription, preceded
by its length in eight bytes, then data of the kind. For a neural network that is the kind again (u64), a classifier's
labels (u64: 100 for texts, 101 for integers; u64 count; the labels) and the name of the value with their probabilities,
then the names of the values that are the outputs (u64 count); a text is a u64 length and its bytes.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tlkit.mil import coreml_proto

# A length below 2^40, then the tag of a field that a description begins with: 1, 10, 11 or 20.
_LENGTH = re.compile(rb"(?=.{5}\x00{3}[\x0a\x52\x5a\xa2])", re.DOTALL)
_PLACES = 10_000  # where a description could begin
_VARIANT = 1 << 16  # bytes; a pipeline's names those of its stages, a model's takes seven
_NEWEST = 1000  # specification versions are below
_NETWORK, _CLASSIFIER, _TEXTS = 500, 403, 100


def decode(data: bytes, guess: str) -> Any | None:
    """Return the Model that ``data`` describes (its body empty but for the small kinds and labels), or None.

    ``guess`` is the kind to assume where the file's number is unknown ("" leaves the message without one).
    """
    kind, variant, version, end = _head(data)
    if variant.startswith("spec"):
        model = _parsed("Model", data[end:])
        return model if model is not None and model.WhichOneof("Type") else None
    description, end = _find_description(data, end)
    if description is None:
        return None
    model = empty_model(kind or guess)
    model.description.CopyFrom(description)
    if version:
        model.specificationVersion = version
    if model.WhichOneof("Type") == "neuralNetworkClassifier":
        tail, network = _tail(data, end), model.neuralNetworkClassifier
        if tail and tail.labels:
            texts = isinstance(tail.labels[0], str)
            getattr(network, "stringClassLabels" if texts else "int64ClassLabels").vector.extend(tail.labels)
        network.labelProbabilityLayerName = tail.scores if tail else ""
    return model


def variant(data: bytes) -> str:
    """Return the container's variant, ``spec`` where it holds a whole ``Model``."""
    return _head(data)[1]


def output_values(data: bytes) -> tuple[str, ...]:
    """Return the values that are a compiled network's outputs, in the description's order; empty where unknown."""
    _, variant, _, end = _head(data)
    description, end = (None, 0) if variant.startswith("spec") else _find_description(data, end)
    if description is None:
        return ()
    tail = _tail(data, end)
    return tail.outputs if tail and len(tail.outputs) == len(description.output) else ()


@dataclass(frozen=True, slots=True)
class _Tail:
    outputs: tuple[str, ...]
    labels: tuple[str, ...] | tuple[int, ...] = ()
    scores: str = ""


def _tail(data: bytes, begin: int) -> _Tail | None:
    """Return what follows a neural network's description; None where it is not as expected."""
    reader = _Tape(data, begin)
    try:
        kind = reader.number()
        if kind == _CLASSIFIER:
            as_text, count = reader.number() == _TEXTS, reader.count()
            labels: Any = tuple(reader.text() if as_text else reader.signed() for _ in range(count))
            scores = reader.text()
            return _Tail(tuple(reader.text() for _ in range(reader.count())), labels, scores)
        return _Tail(tuple(reader.text() for _ in range(reader.count()))) if kind == _NETWORK else None
    except (struct.error, ValueError):
        return None


class _Tape:
    def __init__(self, data: bytes, place: int) -> None:
        self._data, self._place = data, place

    def number(self) -> int:
        """Read a u64."""
        return self._read("<Q")

    def signed(self) -> int:
        """Read an i64."""
        return self._read("<q")

    def count(self) -> int:
        """Read how many items of 8 bytes or more follow; ValueError where the file is too short for them."""
        found = self.number()
        if 8 * found > len(self._data) - self._place:
            raise ValueError("more items than bytes")
        return found

    def text(self) -> str:
        """Read a length and so many bytes of UTF-8."""
        begin = self._place + 8
        size = self.number()
        if size > len(self._data) - begin:
            raise ValueError("a text past the end")
        self._place = begin + size
        return self._data[begin : self._place].decode()

    def _read(self, code: str) -> int:
        found: int = struct.unpack_from(code, self._data, self._place)[0]
        self._place += 8
        return found


def empty_model(kind: str) -> Any:
    """Return a Model message with only its kind set; for "", an empty one."""
    model = coreml_proto.module("Model_pb2").Model()
    if kind:
        getattr(model, kind).SetInParent()
    return model


def kinds() -> frozenset[str]:
    """Return the names of all kinds of models."""
    return frozenset(
        item.name for item in coreml_proto.module("Model_pb2").Model.DESCRIPTOR.oneofs_by_name["Type"].fields
    )


def _head(data: bytes) -> tuple[str, str, int, int]:
    """Return the kind, the variant and the specification version (or "", "" and 0), and where they end."""
    known = coreml_proto.module("Model_pb2").Model.DESCRIPTOR.fields_by_number
    number = int.from_bytes(data[:4], "little") if len(data) >= 4 else 0
    # A Model's kinds are its fields from 200 on.
    kind = known[number].name if number in known and number >= 200 else ""
    variant, version, place = "", 0, 4
    for _ in range(2):
        # Four numbers of eight bytes.
        if place + 32 > len(data):
            break
        major, _, _, length = struct.unpack_from("<4Q", data, place)
        if length > min(_VARIANT, len(data) - place - 32):
            break
        place += 32
        if length:
            variant = data[place : place + length].decode("utf-8", "replace")
        elif major < _NEWEST:
            version = major
        place += length
    return kind, variant, version, place


def _find_description(data: bytes, begin: int) -> tuple[Any | None, int]:
    """Search from ``begin`` for a length followed by a description and return where that ends; the work is bounded."""
    budget = 8 * len(data)
    for match in islice(_LENGTH.finditer(data, begin), _PLACES):
        start = match.start() + 8
        (size,) = struct.unpack_from("<Q", data, match.start())
        if size < 8 or size > len(data) - start:
            continue
        budget -= size
        if budget < 0:
            break
        found = _parsed("ModelDescription", data[start : start + size])
        if found is not None and _is_description(found):
            return found, start + size
    return None, 0


def _is_description(message: Any) -> bool:
    ports = [*message.input, *message.output, *(port for f in message.functions for port in (*f.input, *f.output))]
    return bool(ports) and all(port.name and port.type.WhichOneof("Type") for port in ports)


def _parsed(name: str, data: bytes) -> Any | None:
    from google.protobuf.message import DecodeError

    message = getattr(coreml_proto.module("Model_pb2"), name)()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return None
    return message
