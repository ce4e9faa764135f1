"""Importance matrices read: how much each column of a model's matrices matters, as llama.cpp's ``imatrix`` measures it.

Two forms are known: GGUF files with a tensor of summed squares and one of counts for each matrix, and the older
``.dat``: a count of entries, then for each a name, a count of calls and the values. Both mean what
``load_imatrix`` of llama.cpp's quantize makes of them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlkit.errors import LoadError
from tlkit.formats.files.mapped import Mapped
from tlkit.formats.gguf.read import GGUFFile

Importance = Mapping[str, NDArray[np.float32]]
"""Weights [matrices, columns] by the name of the tensor."""

_SUMS, _COUNTS = ".in_sum2", ".counts"
_ENTRIES = 1 << 20
_NAME = 1 << 12
_NOT_ONE = "name a file that llama.cpp's imatrix has written"


def read_imatrix(path: Path) -> Importance:
    """Return the weights of each matrix's columns by GGUF's name of it, float32 [matrices, columns]: one row, or one
    for each expert. LoadError for a file that is none, is damaged, or has weights that are no weights."""
    file = Mapped(path)
    if file.size < 4:
        raise LoadError(f"{path}: too short to be an importance matrix", _NOT_ONE)
    found = _of_gguf(path) if bytes(file.view[:4]) == b"GGUF" else _of_dat(file)
    for name, values in found.items():
        if not np.isfinite(values).all() or (values < 0).any():
            raise LoadError(f"{path}: '{name[:80]}' has weights that are negative or not finite", _NOT_ONE)
    return found


def _of_gguf(path: Path) -> dict[str, NDArray[np.float32]]:
    file = GGUFFile(path)
    entries = {entry.name: entry for entry in file.entries()}
    sums = [name.removesuffix(_SUMS) for name in entries if name.endswith(_SUMS)]
    if not sums:
        raise LoadError(f"{path}: a GGUF file without an importance matrix", _NOT_ONE)
    found = {}
    for name in sums:
        if name + _COUNTS not in entries:
            raise LoadError(f"{path}: '{name[:80]}' has sums and no counts", _NOT_ONE)
        total, counts = (
            np.asarray(file.array(entries[name + end]), np.float32).reshape(-1) for end in (_SUMS, _COUNTS)
        )
        if not counts.size or total.size % counts.size or not np.isfinite(counts).all():
            raise LoadError(f"{path}: '{name[:80]}' has {total.size} sums and {counts.size} counts", _NOT_ONE)
        rows, each = total.reshape(counts.size, -1), np.rint(counts)[:, None]
        with np.errstate(all="ignore"):
            # What no text went through weighs the same everywhere.
            found[name] = np.where(each > 0, rows / each, np.float32(1)).astype(np.float32)
    return found


def _of_dat(file: Mapped) -> dict[str, NDArray[np.float32]]:
    place = 0

    def number(what: str, most: int, least: int = 0) -> int:
        nonlocal place
        if place + 4 > file.size:
            raise LoadError(f"{file.path}: it ends before {what}", _NOT_ONE)
        (value,) = struct.unpack("<i", file.view[place : place + 4])
        if not least <= value <= most:
            raise LoadError(f"{file.path}: no importance matrix: {what} is {value}", _NOT_ONE)
        place += 4
        return int(value)

    found = {}
    for index in range(number("the count of entries", _ENTRIES, 1)):
        where = f"entry {index + 1}"
        length = number(f"the length of {where}'s name", _NAME, 1)
        name = bytes(file.view[place : place + length]).decode("utf-8", "replace")
        place += length
        calls, count = number(f"{where}'s calls", (1 << 31) - 1, -(1 << 31)), number(f"{where}'s values", 1 << 30, 1)
        if place + 4 * count > file.size:
            raise LoadError(f"{file.path}: it ends within the values of {where}", _NOT_ONE)
        values = np.frombuffer(file.view[place : place + 4 * count], "<f4").astype(np.float32)
        place += 4 * count
        found[name] = (values / np.float32(calls) if calls > 0 else values)[None]
    return found
