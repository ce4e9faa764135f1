"""Find what a ``MILSpec.Program`` contains that tlkit does not know, before a rewritten program loses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tlkit.errors import LoadError


def refuse_loss(message: Any, where: str = "") -> None:
    """Raise LoadError where a program's message holds fields that tlkit does not know; ``where`` names its file."""
    for lost in unkept(message):
        said = f"{where}: {lost}" if where else lost
        raise LoadError(f"{said}, which would be lost", "this program can be read and run, and is not rewritten")


def unkept(message: Any) -> Iterator[str]:
    """Yield a description of each unknown field in a protobuf message."""
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    # A fast test first: walking all messages of a large program takes seconds.
    if known.ByteSize() != message.ByteSize():
        yield from _walk(message, "the program")


def _walk(message: Any, place: str) -> Iterator[str]:
    from google.protobuf.unknown_fields import UnknownFieldSet

    numbers = sorted({field.field_number for field in UnknownFieldSet(message)})
    if numbers:
        yield f"{place} has a field that tlkit does not know (number {numbers[0]})"
    for field, value in message.ListFields():
        for name, inner in _inner(field, value):
            yield from _walk(inner, f"{place}.{name}")


def _inner(field: Any, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the messages in a field, each with its place in it."""
    if field.message_type is None:
        return
    if field.message_type.GetOptions().map_entry:
        if field.message_type.fields_by_name["value"].message_type is not None:
            yield from ((f"{field.name}[{key}]", value[key]) for key in value)
    elif hasattr(value, "ListFields"):
        yield field.name, value
    else:
        yield from ((f"{field.name}[{index}]", item) for index, item in enumerate(value))
