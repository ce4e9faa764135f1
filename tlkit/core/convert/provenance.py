"""Record in a package's user metadata how it was made: by which tlkit, from what, and how it was verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit import __version__
from tlkit.formats.coreml.open import open_package
from tlkit.formats.hashes import file_hashes, files_of

if TYPE_CHECKING:
    from tlkit.core.compare.models import Verification

# A model folder's weights, settings and tokenizer; what else lies there does not change the model.
_WEIGHTS = (".safetensors", ".json", ".txt", ".model")


def source_hash(text: str) -> str:
    """Return the SHA-256 of the file that ``text`` names (``net.py:Net``: of net.py); of a folder, of its files'.

    Empty where ``text`` names no file.
    """
    path = Path(text if Path(text).exists() else text.rpartition(":")[0])
    # A built-in's name has no colon: nothing is left before it, and Path("") is the current folder.
    if not str(path) or str(path) == "." or not path.exists():
        return ""
    if path.is_file():
        return next(iter(file_hashes([path]).values()))
    files = [item for item in files_of(path) if item.suffix in _WEIGHTS]
    lines = (
        f"{item.relative_to(path)}\0{digest}\n" for item, digest in zip(files, file_hashes(files).values(), strict=True)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def describe(source: str, precision: str, verification: Verification | None) -> dict[str, str]:
    """Return the user metadata, key by key, as text."""
    entries = {"tlkit.version": __version__, "tlkit.source": Path(source).name, "tlkit.precision": precision}
    digest = source_hash(source)
    if digest:
        entries["tlkit.source.sha256"] = digest
    if verification is not None:
        entries["tlkit.verified"] = json.dumps(_figures(verification), allow_nan=False)
    return entries


def annotate(package: Path, entries: Mapping[str, str]) -> None:
    """Add ``entries`` to the user metadata of the package at ``package``, which is still being made."""
    opened = open_package(package)
    model = opened.model
    for key, value in entries.items():
        model.description.metadata.userDefined[key] = value
    opened.file.write_bytes(model.SerializeToString())


def inherit(package: Path, functions: Mapping[str, Path]) -> None:
    """Copy the metadata of the packages of its ``functions`` into ``package``, which combines them.

    The texts are those of the default function's package, the first; ``tlkit.source`` of the function ``b`` becomes
    ``tlkit.b.source``.
    """
    first, *others = functions
    opened = open_package(package)
    model, metadata = opened.model, open_package(functions[first]).model.description.metadata
    model.description.metadata.CopyFrom(metadata)
    for name in others:
        for key, value in open_package(functions[name]).model.description.metadata.userDefined.items():
            if key.startswith("tlkit.") and key != "tlkit.version":
                model.description.metadata.userDefined[key.replace("tlkit.", f"tlkit.{name}.", 1)] = value
    opened.file.write_bytes(model.SerializeToString())


def _figures(found: Verification) -> dict[str, object]:
    outputs = {
        name: {
            # JSON has no infinity.
            key: float(f"{value:.6g}") if abs(value) != float("inf") else str(value)
            for key, value in asdict(item).items()
            if key in ("max_abs", "relative", "cosine", "snr_db")
        }
        for name, item in found.outputs.items()
    }
    figures: dict[str, object] = {"passed": found.passed, "inputs": len(found.cases), "outputs": outputs}
    return figures | ({"top1": found.agreement} if found.agreement is not None else {})
