"""Array files, told by content: .npy, .npz and .safetensors. Nothing in them is executed."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.errors import LoadError, UsageError, reason
from tlkit.formats.base import sniff
from tlkit.formats.numpy_files import NumpyFile

Array = np.ndarray[Any, Any]
# All that numpy, zipfile and zlib raise for damaged files.
_UNREADABLE = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, MemoryError, NotImplementedError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


def holds_arrays(path: str | Path) -> bool:
    """Whether ``path`` is a file of arrays: by content, or, where damage hides that, by name."""
    if Path(path).suffix in (".npy", ".npz", ".safetensors"):
        return Path(path).is_file()
    try:
        return Path(path).is_file() and sniff.detect(path) in (sniff.Format.NUMPY, sniff.Format.SAFETENSORS)
    except LoadError:
        return False


def read_arrays(path: str | Path) -> Array | dict[str, Array]:
    """Return the array of a .npy file, or those of a .npz or .safetensors file by name; LoadError where it cannot."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        if sniff.detect(path) is sniff.Format.SAFETENSORS:
            return dict(load_file(path))
        if sniff.detect(path) is sniff.Format.NUMPY or zipfile.is_zipfile(path):
            NumpyFile(Path(path))  # numpy believes a header's sizes before it looks whether the bytes are there
        if zipfile.is_zipfile(path):
            with np.load(path, allow_pickle=False) as archive:
                return dict(archive)
        # Mapped, the file's real length is checked before its header is believed.
        mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped
    except (*_UNREADABLE, SafetensorError) as error:
        raise LoadError(f"{path}: its arrays cannot be read: {reason(error)}", "write the file again") from None


def read_array(path: str | Path, name: str, key: str | None = None) -> Array:
    """Return one array: ``key`` if it is given, else the one called ``name``, else the only one there is."""
    found = read_arrays(path)
    if isinstance(found, np.ndarray):
        return found
    wanted = key or (name if name in found or len(found) != 1 else next(iter(found)))
    if wanted not in found:
        raise UsageError(
            f"{path}: no array '{wanted}' in it", f"ask for one of its arrays with FILE:KEY: {', '.join(found)}"
        )
    return found[wanted]
