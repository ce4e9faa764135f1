"""Write PyTorch state_dicts as a stream, without PyTorch, for ``torch.load(weights_only=True)``.

The file is an uncompressed zip with ``data.pkl`` (an OrderedDict of tensors that name their storages) and one member
per storage. The pickle needs only a dozen opcodes; it is written by hand, since pickle itself would import torch to
name its functions.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tlkit.formats.base.dtypes import PLAIN
from tlkit.formats.base.planned import Data, Planned, copy_data
from tlkit.formats.torch.objects import DTYPES, STORAGES

_STORAGES = {name: kind for kind, name in reversed(STORAGES.items()) if not kind.startswith(("Q", "Untyped"))}
_DTYPES = {name: kind for kind, name in DTYPES.items()}
_FOLDER = "archive"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same input makes the same file
_ALIGNMENT = 64

TYPES = frozenset(_DTYPES) & frozenset(PLAIN)
"""The stored types that a PyTorch tensor may have."""


def write_torch(path: Path, tensors: Sequence[Planned], data: Data) -> None:
    """Write a state_dict of ``tensors``, each in its own storage."""
    with path.open("wb") as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.writestr(_member("data.pkl"), _pickle(tensors))
        archive.writestr(_member(".format_version"), b"1")
        archive.writestr(_member("byteorder"), b"little")
        for index, tensor in enumerate(tensors):
            member = _member(f"data/{index}")
            member.extra = _padding(raw.tell(), len(member.filename))
            with archive.open(member, "w", force_zip64=True) as file:
                copy_data(file, tensor, data)
        archive.writestr(_member("version"), b"3\n")


def _member(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{_FOLDER}/{name}", _EPOCH)


def _padding(place: int, name: int) -> bytes:
    """Return the extra field that makes the data after a header at ``place`` start at a multiple of 64 bytes."""
    header = 30 + name + 20 + 4  # the local header, its name, zip64's sizes, and this field's own head
    size = -(place + header) % _ALIGNMENT
    # The field with which PyTorch itself pads.
    return b"FB" + struct.pack("<H", size) + b"Z" * size


def _pickle(tensors: Sequence[Planned]) -> bytes:
    # PROTO 2, OrderedDict() and a mark; after the pairs SETITEMS (u) and STOP (.).
    parts = [b"\x80\x02ccollections\nOrderedDict\n)R("]
    for index, tensor in enumerate(tensors):
        parts += [_text(tensor.name), _tensor(tensor, index)]
    return b"".join(parts) + b"u."


def _tensor(tensor: Planned, index: int) -> bytes:
    """Return the call that rebuilds a tensor from its storage, an offset, a shape and strides."""
    strides: list[int] = []
    step = 1
    for size in reversed(tensor.shape):
        strides.insert(0, step)
        step *= max(size, 1)
    if tensor.dtype in _STORAGES:
        function, last = b"_rebuild_tensor_v2", b""
        kind, count = f"torch\n{_STORAGES[tensor.dtype]}", tensor.elements
    else:  # newer types have no storage class: bytes, and the type itself
        function, last = b"_rebuild_tensor_v3", f"ctorch\n{_DTYPES[tensor.dtype]}\n".encode()
        kind, count = "torch.storage\nUntypedStorage", tensor.nbytes
    # ("storage", class, key, "cpu", count), which BINPERSID (Q) makes a reference.
    storage = b"(" + _text("storage") + f"c{kind}\n".encode() + _text(str(index)) + _text("cpu") + _int(count) + b"tQ"
    place = _int(0) + _ints(tensor.shape) + _ints(strides)
    return (
        # NEWFALSE is requires_grad, the OrderedDict the hooks.
        b"ctorch._utils\n" + function + b"\n(" + storage + place + b"\x89ccollections\nOrderedDict\n)R" + last + b"tR"
    )


def _text(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def _int(number: int) -> bytes:
    if number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    raw = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def _ints(numbers: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(_int, numbers)) + b"t"
