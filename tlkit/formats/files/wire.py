"""Protobuf's wire format, to examine messages without their generated classes."""

from __future__ import annotations

from collections.abc import Iterator

from tlkit.errors import LoadError

Field = tuple[int, int, int, int]
"""Field number, wire type, and either a value and 0, or where its bytes begin and end."""


class WireError(LoadError):
    """Bytes that are not a protobuf message."""


def fields(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (number, wire type, value or start, end) of the fields in ``data[start:end]``, without reading their
    content."""
    place = start
    while place < end:
        key, place = data[place], place + 1  # most numbers have one byte
        if key > 127:
            key, place = varint(data, place - 1, end)
        wire = key & 7
        if wire == 0:
            value, place = varint(data, place, end)
            yield key >> 3, wire, value, 0
            continue
        # Wire type 1 is eight bytes, 2 a length and that many bytes, 5 four; groups (3, 4) are no longer written.
        length = 8
        if wire == 2:
            length, place = varint(data, place, end)
        elif wire == 5:
            length = 4
        elif wire != 1:
            raise WireError(f"not protobuf: wire type {wire} at byte {place}")
        if length > end - place:
            raise WireError(f"a field at byte {place} claims {length:,} bytes, past its message's end")
        yield key >> 3, wire, place, place + length
        place += length


def varint(data: memoryview, place: int, end: int) -> tuple[int, int]:
    """Return the varint at ``place`` and the position after it; WireError where it has no end."""
    value = 0
    # Ten bytes at most hold 64 bits.
    for shift in range(0, 70, 7):
        if place >= end:
            break
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, place
    raise WireError(f"a number at byte {place} has no end")


def varints(data: memoryview, start: int, end: int) -> Iterator[int]:
    """Yield the packed numbers in ``data[start:end]``."""
    while start < end:
        value, start = varint(data, start, end)
        yield value


def signed(value: int) -> int:
    """Return a varint's value as the signed 64-bit integer that it stands for."""
    return value - (1 << 64) if value >> 63 else value
