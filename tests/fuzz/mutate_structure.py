"""Damage below the surface: to the fields of a message, the members of an archive, the header of a tensor file.

Bytes changed at random mostly break what is outermost (a checksum, a length), and what lies inside is never reached.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from tests.fuzz.mutate import damage_bytes, damage_text

_INTS = (0, 1, 2, 3, -1, 7, 63, 64, 65, 255, 2**16, 2**30, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**31))
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e30, -1e30, float("inf"), float("-inf"), float("nan"), 1e-40)
_STRINGS = ("", "x", "main", "CoreML5", "CoreML9", "add", "const", "../../x", "/etc/passwd", "\x1b[31m", "é", "a" * 300)
_NAMES = ("../x", "/x", "a/../../x", "A", "data.pkl", "x\\y", "C:x", "a//b", "", "\x00", "é", "e\u0301", "x/")


def damage_message(kind: Callable[[], Any]) -> Callable[[bytes, Sequence[bytes], random.Random], bytes]:
    """Return a damage for serialized messages of the type that ``kind`` makes: to one to four of their fields."""

    @lru_cache(maxsize=64)
    def parsed(data: bytes) -> Any:
        message = kind()
        try:
            message.ParseFromString(data)
        except Exception:
            return None
        return message

    def damage(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
        found = parsed(data)
        if found is None or rng.random() < 0.2:
            return damage_bytes(data, list(others), rng)
        message = kind()
        message.CopyFrom(found)
        donor = parsed(rng.choice(others)) or found
        for _ in range(rng.choice((1, 1, 2, 4))):
            _change(message, donor, rng)
        return bytes(message.SerializeToString())

    return damage


def _change(message: Any, donor: Any, rng: random.Random) -> None:
    """Walk down at random, and change what is there."""
    for _ in range(60):
        fields = message.ListFields()
        if not fields or rng.random() < 0.05:
            _add(message, rng)
            return
        field, value = rng.choice(fields)
        if field.message_type is None:
            _scalar(message, field, value, rng)
            return
        if rng.random() < 0.06:
            _submessages(message, field, value, donor, rng)
            return
        if _is_map(field):
            inner = field.message_type.fields_by_name["value"]
            key = rng.choice(list(value))
            if inner.message_type is None:
                value[key] = _new(inner, rng)
                return
            message = value[key]
        elif _repeated(field):
            message = rng.choice(value)
        else:
            message = value


def _is_map(field: Any) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def _repeated(field: Any) -> bool:
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


def _add(message: Any, rng: random.Random) -> None:
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    field = rng.choice(list(fields))
    if _is_map(field):
        return
    target = getattr(message, field.name)
    if field.message_type is not None:
        if _repeated(field):
            target.add()
        else:
            target.SetInParent()
    elif _repeated(field):
        target.append(_new(field, rng))
    else:
        setattr(message, field.name, _new(field, rng))


def _scalar(message: Any, field: Any, value: Any, rng: random.Random) -> None:
    if not _repeated(field):
        choice = rng.random()
        if choice < 0.1:
            message.ClearField(field.name)
        elif isinstance(value, bytes) and value:
            setattr(message, field.name, damage_bytes(value, [value], rng))
        else:
            setattr(message, field.name, _new(field, rng))
        return
    kind = rng.randrange(5)
    at = rng.randrange(len(value))
    if kind == 0:
        del value[at:]
    elif kind == 1:
        value.append(value[at])
    elif kind == 2:
        value.extend(list(value)[:64] * rng.choice((1, 4)))
    else:
        value[at] = _new(field, rng)


def _submessages(message: Any, field: Any, value: Any, donor: Any, rng: random.Random) -> None:
    if _is_map(field):
        if rng.random() < 0.5:
            del value[rng.choice(list(value))]
        return
    if not _repeated(field):
        message.ClearField(field.name)
        return
    at, other = rng.randrange(len(value)), rng.randrange(len(value))
    kind = rng.randrange(5)
    if kind == 0:
        del value[at]
    elif kind == 1:
        value.add().CopyFrom(value[at])
    elif kind == 2:
        spare = type(value[at])()
        spare.CopyFrom(value[at])
        value[at].CopyFrom(value[other])
        value[other].CopyFrom(spare)
    elif kind == 3:
        del value[at:]
    elif len(value) < 300:
        for _ in range(rng.choice((2, 20))):
            value.add().CopyFrom(value[at])


def _new(field: Any, rng: random.Random) -> Any:
    kind = field.cpp_type
    if kind == field.CPPTYPE_STRING:
        return rng.choice(_STRINGS) if field.type != field.TYPE_BYTES else rng.randbytes(rng.choice((0, 1, 8, 64)))
    if kind == field.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice(_FLOATS)
    if kind == field.CPPTYPE_ENUM:
        return rng.choice([*(item.number for item in field.enum_type.values), 77])
    bits = 64 if kind in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) else 32
    value = rng.choice(_INTS) if rng.random() < 0.7 else rng.randrange(-4, 300)
    if kind in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64):
        return value % (1 << bits)
    return (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


_TEXT = (".json", ".py", ".mil", ".txt", ".net", ".shape", ".csv")


def damage_member(name: str, data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Return a member of an archive or folder damaged as its name's ending asks for."""
    if name.endswith(_TEXT):
        return damage_words(data, others, rng)
    if name.endswith((".pkl", "constants", "version")) and rng.random() < 0.5:
        return _few(data, rng)
    return damage_bytes(data, list(others), rng) if len(data) < 1 << 16 else _few(data, rng)


def damage_words(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Return UTF-8 text with some of its words and numbers changed."""
    texts = [item.decode("utf-8", "surrogateescape") for item in (data, *others[:4])]
    return damage_text(texts[0], texts, rng).encode("utf-8", "surrogatepass")


def _few(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4)) if out else 0):
        at = rng.randrange(len(out))
        out[at] = rng.randrange(256) if rng.random() < 0.5 else out[at] ^ 1 << rng.randrange(8)
    return bytes(out)


def damage_archive(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Return a zip archive with a member damaged, renamed, doubled, dropped or exchanged, and sound checksums."""
    if not data.startswith(b"PK") or rng.random() < 0.15:
        return damage_bytes(data, list(others), rng)
    try:
        members = _members(data)
    except Exception:
        return damage_bytes(data, list(others), rng)
    if not members:
        return damage_bytes(data, list(others), rng)
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(members))
        name, content = members[at]
        kind = rng.random()
        if kind < 0.75:
            donors = [other for key, other in members if key.rpartition(".")[2] == name.rpartition(".")[2]]
            members[at] = name, damage_member(name, content, donors, rng)
        elif kind < 0.83:
            members[at] = name.rpartition("/")[0] + "/" + rng.choice(_NAMES), content
        elif kind < 0.87:
            members[at] = name.swapcase(), content
        elif kind < 0.91 and len(members) > 1:
            del members[at]
        elif kind < 0.95:
            members.append((name, damage_member(name, content, [content], rng)))
        else:
            members.append((rng.choice(_NAMES), content[:64]))
    out = io.BytesIO()
    with zipfile.ZipFile(
        out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name.encode("utf-8", "replace").decode()), content)
    return out.getvalue()


@lru_cache(maxsize=256)
def _read(data: bytes) -> tuple[tuple[str, bytes], ...]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(info.file_size for info in archive.infolist()) > 1 << 22:
            raise ValueError("too large to be worth it")
        return tuple((info.filename, archive.read(info)) for info in archive.infolist())


def _members(data: bytes) -> list[tuple[str, bytes]]:
    return list(_read(data))


_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    3,
    7,
    255,
    2**31 - 1,
    2**31,
    2**63,
    2**64,
    0.5,
    1e30,
    -1e400,
)
_VALUES += (float("nan"), "", "x", "\x1b[31m", "\ud800", "a" * 5000, [], {}, [1], ["x"], [[]], {"a": 1}, [0] * 300)


def damage_json(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Return a JSON document with one to three of its values changed, dropped, repeated or exchanged for another's."""
    try:
        found = json.loads(data)
    except ValueError:
        return damage_words(data, others, rng)
    if not isinstance(found, dict | list) or rng.random() < 0.1:
        return damage_words(data, others, rng) if len(data) < 1 << 14 else _few(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        inside = found
        while inside:
            keys = list(inside) if isinstance(inside, dict) else range(len(inside))
            key = rng.choice(keys)
            if isinstance(inside[key], dict | list) and rng.random() < 0.7:
                inside = inside[key]
                continue
            way = rng.randrange(8)
            if way == 0:
                del inside[key]
            elif way == 1:
                inside[key] = inside[rng.choice(keys)]
            elif way == 2 and isinstance(inside, list):
                inside.insert(key, inside[key])
            elif way == 2:
                inside["x"] = inside[key]
            else:
                inside[key] = rng.choice(_VALUES)
            break
    try:
        return json.dumps(found, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    except (RecursionError, ValueError):  # put into itself
        return data


def damage_safetensors(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Return a SafeTensors file with its header's words changed and its header's length right."""
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8 or rng.random() < 0.3:
        return damage_bytes(data, list(others), rng)
    header = damage_words(data[8 : 8 + length], [], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]
