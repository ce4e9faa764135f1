"""Damage to the parts of a GGUF file: a key's value or type, an array's elements, a tensor's name, shape, type or
place; counts and lengths stay right, so that what reads the parts is reached."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from tests.fuzz.mutate import damage_bytes

_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_COUNTS = (0, 1, 2, 3, 5, 7, 64, 255, 4096, 1 << 16, 1 << 20, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_WIDE = (-1, -(1 << 31), 1 << 40, (1 << 63) - 1, -(1 << 63))
_REALS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e30, -1e30, 3e38, 1e-40, float("inf"), float("-inf"), float("nan"))
_TEXTS = (
    b"",
    b"x",
    b"llama",
    b"bert",
    b"gpt2",
    b"t5",
    b"none",
    b"yarn",
    b"linear",
    b"longrope",
    b"\xff\xfe",
    b"\x1b[31m",
)
_LONG = (
    b"a" * 5000,
    "\u2581".encode() * 300,
    b"{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
)


@dataclass
class Parts:
    """A GGUF file, apart: keys are (name, type, value), arrays' values (type, elements); tensors are name, dimensions,
    type and offset."""

    version: int
    keys: list[tuple[bytes, int, Any]] = field(default_factory=list)
    tensors: list[tuple[bytes, list[int], int, int]] = field(default_factory=list)
    data: bytes = b""
    alignment: int = 32


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def one(self, code: str) -> Any:
        (found,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(f"<{code}")
        return found

    def text(self) -> bytes:
        size = self.one("Q")
        self.at += size
        if self.at > len(self.data):
            raise ValueError("past the end")
        return self.data[self.at - size : self.at]

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.one(_CODES[kind])
        inner, count = self.one("I"), self.one("Q")
        if count > len(self.data):
            raise ValueError("too many")
        return inner, [self.value(inner) for _ in range(count)]


@lru_cache(maxsize=64)
def taken_apart(data: bytes) -> Parts | None:
    """Return the parts of a file; None for one that is too damaged."""
    cursor = _Cursor(data)
    try:
        cursor.at = 4
        found = Parts(cursor.one("I"))
        tensors, keys = cursor.one("Q"), cursor.one("Q")
        for _ in range(keys):
            name, kind = cursor.text(), cursor.one("I")
            found.keys.append((name, kind, cursor.value(kind)))
        for _ in range(tensors):
            name = cursor.text()
            dimensions = [cursor.one("Q") for _ in range(cursor.one("I") % 100)]
            found.tensors.append((name, dimensions, cursor.one("I"), cursor.one("Q")))
    except (struct.error, ValueError, KeyError):
        return None
    found.data = data[-(-cursor.at // found.alignment) * found.alignment :]
    return found


def put_together(parts: Parts) -> bytes:
    """Return the file of some parts."""
    out = bytearray(struct.pack("<4sIQQ", b"GGUF", parts.version, len(parts.tensors), len(parts.keys)))
    for name, kind, value in parts.keys:
        out += struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + _stored(kind, value)
    for name, dimensions, kind, offset in parts.tensors:
        out += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(dimensions))
        out += struct.pack(f"<{len(dimensions)}QIQ", *dimensions, kind, offset)
    out += bytes(-len(out) % parts.alignment)
    return bytes(out) + parts.data


def _stored(kind: int, value: Any) -> bytes:
    if kind == _STRING:
        return struct.pack("<Q", len(value)) + bytes(value)
    if kind == _ARRAY:
        inner, items = value
        return struct.pack("<IQ", inner, len(items)) + b"".join(_stored(inner, item) for item in items)
    return struct.pack(f"<{_CODES[kind]}", value)


def damage_gguf(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Return a file with one to three of its parts changed, or its bytes."""
    found = taken_apart(data)
    if found is None or rng.random() < 0.15:
        return damage_bytes(data, list(others), rng)
    parts = Parts(found.version, list(found.keys), list(found.tensors), found.data)
    donor = taken_apart(rng.choice(others)) or found
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        way = rng.random()
        if way < 0.65 and parts.keys:
            _change_key(parts, donor, rng)
        elif way < 0.95 and parts.tensors:
            _change_tensor(parts, donor, rng)
        else:
            parts.data = damage_bytes(parts.data, [donor.data], rng)
    return put_together(parts)


def _change_key(parts: Parts, donor: Parts, rng: random.Random) -> None:
    at = rng.randrange(len(parts.keys))
    name, kind, value = parts.keys[at]
    way = rng.random()
    if way < 0.1:
        del parts.keys[at]
    elif way < 0.15:
        parts.keys.append((name, *rng.choice(donor.keys)[1:]))
    elif way < 0.22:
        parts.keys[at] = name, *rng.choice(donor.keys)[1:]
    elif way < 0.3:
        parts.keys.insert(at, rng.choice(donor.keys))
    elif way < 0.4 and kind != _ARRAY:
        parts.keys[at] = name, _ARRAY, (kind, [value] * rng.choice((0, 1, 2, 7)))
    elif kind == _ARRAY and way < 0.9:
        inner, items = value
        parts.keys[at] = name, kind, (inner, _changed_items(inner, list(items), rng))
    else:
        kind = rng.choice((*_CODES, _STRING)) if way > 0.85 or kind == _ARRAY else kind
        parts.keys[at] = name, kind, _new(kind, rng)


def _changed_items(kind: int, items: list[Any], rng: random.Random) -> list[Any]:
    at = rng.randrange(len(items) + 1)
    way = rng.randrange(6)
    if way == 0 or not items:
        return items[:at]
    if way == 1:
        return items[:at] + items[at : at + 3] * rng.choice((2, 50)) + items[at:]
    at = min(at, len(items) - 1)
    if kind == _ARRAY or way == 2:
        items[at] = items[rng.randrange(len(items))]
    elif kind == _STRING and way == 3:
        text = items[at]
        items[at] = text[1:] if rng.random() < 0.5 else text.replace(b" ", b"") + b" "
    else:
        items[at] = _new(kind, rng)
    return items


def _new(kind: int, rng: random.Random) -> Any:
    if kind == _STRING:
        return rng.choice(_LONG if rng.random() < 0.2 else _TEXTS)
    if kind == 7:
        return rng.random() < 0.5
    if kind in (6, 12):
        return rng.choice(_REALS)
    size = 8 * struct.calcsize(f"<{_CODES[kind]}")
    value = rng.choice(_COUNTS if rng.random() < 0.8 else _WIDE) % (1 << size)
    return value - (1 << size) if _CODES[kind].islower() and value >= 1 << (size - 1) else value


def _change_tensor(parts: Parts, donor: Parts, rng: random.Random) -> None:
    at = rng.randrange(len(parts.tensors))
    name, dimensions, kind, offset = parts.tensors[at]
    other = rng.choice(donor.tensors) if donor.tensors else parts.tensors[at]
    way = rng.randrange(10)
    if way == 0:
        del parts.tensors[at]
        return
    if way == 1:
        parts.tensors.append(parts.tensors[at])
    elif way == 2:
        name = other[0]
    elif way == 3:
        dimensions = dimensions[::-1]
    elif way == 4:
        dimensions = [*dimensions, 1][: rng.randrange(6)]
    elif way == 5 and dimensions:
        place = rng.randrange(len(dimensions))
        dimensions = [*dimensions[:place], rng.choice((*_COUNTS, 1 << 62, (1 << 64) - 1)), *dimensions[place + 1 :]]
    elif way == 6:
        kind = rng.choice((*range(45), (1 << 32) - 1))
    elif way == 7:
        offset = rng.choice(
            (0, 1, 31, 32, other[3], len(parts.data) - 32, len(parts.data), 1 << 40, (1 << 64) - 32)
        ) % (1 << 64)
    elif way == 8:
        dimensions = list(other[1])
    else:
        parts.tensors.insert(at, other)
        return
    parts.tensors[at] = name, dimensions, kind, offset
