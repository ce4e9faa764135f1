"""File names of shards and indexes of SafeTensors and PyTorch models, and the folders that hold one model."""

from __future__ import annotations

import re
from pathlib import Path

INDEX = r"(?P<stem>.+)\.(?P<ending>safetensors|bin)\.index(\.(?P<variant>[\w-]+))?\.json"
"""The names of indexes: ``model.safetensors.index.json``, ``...index.fp32.json``, ``pytorch_model.bin.index.json``."""

SHARD = r"(?P<stem>.+)-(?P<turn>\d{5})-of-(?P<count>\d{5})\.(?P<ending>safetensors|bin)"
"""The names of shards."""

STEMS = {"safetensors": ("model", "diffusion_pytorch_model"), "bin": ("pytorch_model", "diffusion_pytorch_model")}
"""The names of whole files, by ending, in the order in which they are looked for."""


def ending_of(folder: Path) -> str | None:
    """Return ``safetensors`` or ``bin`` for a folder that is one model in such files; None for any other."""
    names = [item.name for item in folder.iterdir() if item.is_file()]
    for ending, stems in STEMS.items():
        if any(f"{stem}.{ending}" in names or f"{stem}.{ending}.index.json" in names for stem in stems):
            return ending
    # A folder that holds other models too is not one model.
    others = any(name.endswith((".gguf", ".pt", ".pth", ".mlmodel", ".onnx")) for name in names)
    for ending in () if others else STEMS:
        files = [name for name in names if name.endswith(f".{ending}")]
        if files and len({series(name) for name in files}) == 1 and series(files[0]):
            return ending
    return None


def series(name: str) -> tuple[str, str] | None:
    """Return the stem and the count that all shards of one model share; None for a file that is not a shard."""
    shard = re.fullmatch(SHARD, name)
    return (shard["stem"], shard["count"]) if shard else None
