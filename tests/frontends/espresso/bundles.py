"""Compiled neural networks written for tests: Espresso's three files, and Core ML's description of the model."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Blobs:
    """Numbers the tensors that layers name: odd ids, with padding between that aligns each to 64 bytes."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def add(self, array: np.ndarray[Any, Any], zeros: int = 0) -> int:
        """Return the id of a tensor, which the file has in its own type, with so many bytes of zeros behind."""
        kind = array.dtype if array.dtype in (np.float16, np.uint8) else np.dtype("<f4")
        self.payloads.append(np.ascontiguousarray(array, kind).tobytes() + bytes(zeros))
        return 2 * len(self.payloads) - 1

    def file(self) -> bytes:
        """Return the weight file."""
        table, body, start = [], b"", 8 + 32 * len(self.payloads)
        for number, payload in enumerate(self.payloads):
            gap = -(start + len(body)) % 64
            table += [(2 * number, gap), (2 * number + 1, len(payload))]
            body += bytes(gap) + payload
        head = struct.pack("<Q", len(table)) + b"".join(struct.pack("<QQ", *row) for row in table)
        return head + body


def write_bundle(
    folder: Path,
    layers: Sequence[Mapping[str, Any]],
    shapes: Mapping[str, Sequence[int]],
    blobs: Blobs | None = None,
    *,
    exact: bool = False,
    model: bytes = b"",
    **more: Any,
) -> Path:
    """Write a bundle whose values have these shapes (five sizes, or with ``exact`` the value's own); return it."""
    folder.mkdir(parents=True)
    net = {"storage": "model.espresso.weights", "format_version": 200, "layers": list(layers), "properties": {}, **more}
    (folder / "model.espresso.net").write_text(json.dumps(net))
    sizes = {}
    for name, shape in shapes.items():
        five = [1] * (5 - len(shape)) + list(shape)
        sizes[name] = dict(zip(("seq", "n", "k", "h", "w"), five, strict=True)) | (
            {"_rank": len(shape)} if exact else {}
        )
    (folder / "model.espresso.shape").write_text(json.dumps({"layer_shapes": sizes}))
    (folder / "model.espresso.weights").write_bytes((blobs or Blobs()).file())
    if model:
        (folder / "coremldata.bin").write_bytes(model)
    return folder


def text(value: str) -> bytes:
    """A text as ``coremldata.bin`` has it."""
    return struct.pack("<Q", len(value.encode())) + value.encode()


def coremldata(kind: int, description: Any, *tail: bytes) -> bytes:
    """The file of a model of ``kind`` (the number of its field), with what follows its description."""
    head = (
        struct.pack("<I", kind) + struct.pack("<3Q", 1, 2, 1) + text("generic") + struct.pack("<3Q", 4, 0, 0) + text("")
    )
    body = description.SerializeToString()
    return head + struct.pack("<Q", len(body)) + body + struct.pack("<Q", kind) + b"".join(tail)
