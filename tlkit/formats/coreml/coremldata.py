"""``coremldata.bin`` of a compiled model: its kind, specification version and description.

The file has no published layout. All known ones begin with a kind (u32: the number of the model's field in Core ML's
protobuf) and two records (u64 major, minor, patch, u64 length, text): the one with a text is the container's version
and variant, the other the specification version. Compilers of 2017 write the latter first, later ones last. Variant
``spec`` (the small kinds): the rest is the whole serialised Model. Variant ``generic``: the ModelDescription, preceded
by its length in eight bytes, then data of the kind.
"""

from __future__ import annotations

import re
import struct
from itertools import islice
from typing import Any

from tlkit.mil import coreml_proto

# A length below 2^40, then the tag of a field that a description begins with: 1, 10, 11 or 20.
_LENGTH = re.compile(rb"(?=.{5}\x00{3}[\x0a\x52\x5a\xa2])", re.DOTALL)
_PLACES = 10_000  # where a description could begin
_VARIANT = 1 << 16  # bytes; a pipeline's names those of its stages, a model's takes seven
_NEWEST = 1000  # specification versions are below


def decode(data: bytes, guess: str) -> Any | None:
    """Return the Model that ``data`` describes (its body empty, but for the small kinds), or None.

    ``guess`` is the kind to assume where the file's number is unknown ("" leaves the message without one).
    """
    kind, variant, version, end = _head(data)
    if variant.startswith("spec"):
        model = _parsed("Model", data[end:])
        return model if model is not None and model.WhichOneof("Type") else None
    description = _find_description(data, end)
    if description is None:
        return None
    model = empty_model(kind or guess)
    model.description.CopyFrom(description)
    if version:
        model.specificationVersion = version
    return model


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


def _find_description(data: bytes, begin: int) -> Any | None:
    """Search from ``begin`` for a length followed by a description; the work is bounded."""
    budget = 8 * len(data)
    for match in islice(_LENGTH.finditer(data, begin), _PLACES):
        start = match.start() + 8
        (size,) = struct.unpack_from("<Q", data, match.start())
        if size < 8 or size > len(data) - start:
            continue
        budget -= size
        if budget < 0:
            return None
        found = _parsed("ModelDescription", data[start : start + size])
        if found is not None and _is_description(found):
            return found
    return None


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
