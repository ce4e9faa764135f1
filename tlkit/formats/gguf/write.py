"""GGUF files (version 3, little-endian) written as a stream: header and metadata, tensor records, then the tensors."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tlkit.errors import UsageError
from tlkit.formats.base.dtypes import GGML, QUANTIZED
from tlkit.formats.base.planned import Data, Planned, copy_data

TYPES = frozenset(name for name, _, _ in GGML.values())
"""The stored types that a file may hold."""

RANK = 4
"""ggml's tensors have at most four dimensions."""

NAME = 63
"""Bytes of a tensor's name that ggml takes (GGML_MAX_NAME less the zero at the end)."""

SCALARS = {
    "u8": (0, "B"),
    "i8": (1, "b"),
    "u16": (2, "H"),
    "i16": (3, "h"),
    "u32": (4, "I"),
    "i32": (5, "i"),
    "f32": (6, "f"),
    "bool": (7, "?"),
    "u64": (10, "Q"),
    "i64": (11, "q"),
    "f64": (12, "d"),
}
"""The numbers that metadata may hold: GGUF's code and struct's."""

_STRING, _ARRAY = 8, 9
_CODES = {name: code for code, (name, _, _) in GGML.items()}


@dataclass(frozen=True, slots=True)
class Typed:
    """A metadata value with its GGUF type: ``u32``, ``str``, ``arr[str]``."""

    type: str
    value: Any


def write_gguf(path: Path, tensors: Sequence[Planned], metadata: Mapping[str, Typed], data: Data) -> None:
    """Write one file. The alignment is ``general.alignment``'s, 32 where that is not given."""
    given = metadata.get("general.alignment")
    alignment = int(given.value) if given else 32
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
        for key, typed in metadata.items():
            file.write(_string(key))
            file.write(struct.pack("<I", _code(typed.type)))
            _value(file, typed.type, typed.value, key)
        place = 0
        for tensor in tensors:
            # GGUF lists the innermost dimension first.
            dims = tensor.shape[::-1]
            file.write(_string(tensor.name))
            file.write(struct.pack(f"<I{len(dims)}Q", len(dims), *dims))
            file.write(struct.pack("<IQ", _CODES[tensor.dtype], place))
            # Offsets count from the start of the data section, each tensor padded to the alignment.
            place += -(-tensor.nbytes // alignment) * alignment
        for tensor in tensors:
            file.write(bytes(-file.tell() % alignment))
            copy_data(file, tensor, data)
        # After the last one too: ggml reads its padding as data.
        file.write(bytes(-file.tell() % alignment))


def _string(text: str) -> bytes:
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        raw = text.encode("utf-8", "replace")
    return struct.pack("<Q", len(raw)) + raw


def _code(kind: str) -> int:
    return SCALARS[kind][0] if kind in SCALARS else _ARRAY if kind.startswith("arr") else _STRING


def _value(file: IO[bytes], kind: str, value: Any, key: str) -> None:
    if kind == "str":
        file.write(_string(value))
    elif kind in SCALARS:
        try:
            file.write(struct.pack(f"<{SCALARS[kind][1]}", value))
        except (struct.error, OverflowError):
            raise UsageError(
                f"{key}: {value} is not a {kind}", f"give it another type: --metadata {key}:TYPE=VALUE"
            ) from None
    else:
        inner = kind.removeprefix("arr[").removesuffix("]")
        if inner.startswith("arr[") and any(getattr(item, "type", inner[4:-1]) != inner[4:-1] for item in value):
            raise UsageError(f"{key}: an array of arrays of several types", "leave it out: --metadata KEY=")
        file.write(struct.pack("<IQ", _code(inner), len(value)))
        if inner in SCALARS:
            file.write(struct.pack(f"<{len(value)}{SCALARS[inner][1]}", *value))
        elif inner == "str":
            file.write(b"".join(map(_string, value)))
        else:
            for item in value:
                _value(file, inner, item, key)


def fits(dtype: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of ``shape`` can be stored in ``dtype``: rows of block types are whole blocks."""
    if dtype not in QUANTIZED:
        return True
    block = next(elements for name, elements, _ in GGML.values() if name == dtype)
    return bool(shape) and shape[-1] % block == 0
