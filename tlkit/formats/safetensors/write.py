"""Write SafeTensors files as a stream: the header first, then one tensor after another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlkit.errors import ConversionError
from tlkit.formats.base.dtypes import BLOCKS
from tlkit.formats.base.planned import Data, Planned, copy_data
from tlkit.formats.safetensors.read import DTYPES, HEADER_LIMIT

TYPES = frozenset(DTYPES)
"""The stored types that a file may hold."""


def write_safetensors(path: Path, tensors: Sequence[Planned], metadata: Mapping[str, str], data: Data) -> None:
    """Write one file. Wide types come first, so that every tensor is aligned to its element size."""
    if any(tensor.name == "__metadata__" for tensor in tensors):
        raise ConversionError(
            f"{path.name}: a tensor may not be called '__metadata__' in SafeTensors",
            "rename it, or write .pth or .gguf",
        )
    ordered = sorted(tensors, key=lambda tensor: -BLOCKS[tensor.dtype][1] if BLOCKS[tensor.dtype][0] == 1 else 0)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    place = 0
    for tensor in ordered:
        span = [place, place + tensor.nbytes]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": span}
        place += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    # Blanks are JSON too: with them the data begin at a multiple of 8, as in the safetensors package's files.
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_LIMIT:
        raise ConversionError(
            f"{path.name}: its header would have {len(text):,} bytes; readers take {HEADER_LIMIT:,}",
            "leave metadata out with --metadata KEY=",
        )
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for tensor in ordered:
            copy_data(file, tensor, data)


def write_index(path: Path, shards: Mapping[str, Sequence[Planned]]) -> None:
    """Write the index of several files: the file of each tensor, and the total bytes."""
    total = sum(tensor.nbytes for tensors in shards.values() for tensor in tensors)
    names = {tensor.name: file for file, tensors in shards.items() for tensor in tensors}
    content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(names.items()))}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
