"""Outputs of many inferences as the arrays of one .npz archive."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from tlkit.errors import UsageError


def arrays_of(outputs: Mapping[str, Any]) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, str], dict[str, Any]]:
    """Return one inference's outputs as arrays, texts, and labels of a classifier's probabilities (``NAME.labels``)."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    texts: dict[str, str] = {}
    labels: dict[str, Any] = {}
    for name, value in outputs.items():
        if isinstance(value, str | int):
            texts[name] = str(value)
        elif isinstance(value, Mapping):
            labels[f"{name}.labels"] = [str(key) for key in value]
            arrays[name] = np.array(list(value.values()), np.float64)
        else:
            arrays[name] = np.ascontiguousarray(value)
    return arrays, texts, labels


def differs(name: str, shape: tuple[int, ...], first: tuple[int, ...]) -> UsageError:
    """Return the error for an output that has another shape than that of the first sample."""
    return UsageError(
        f"output '{name}' is of shape {shape} for one sample and {first} for another",
        "run samples of one size, or leave --save-outputs out",
    )


class NpzWriter:
    """One archive of ``count`` samples: its arrays grow in files beside it and are joined in the end."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._count = path, count
        self._files: dict[str, IO[bytes]] = {}
        self._shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._texts: dict[str, _Texts] = {}
        self._labels: dict[str, list[str]] = {}

    def add(self, name: str, outputs: Mapping[str, Any]) -> None:
        """Append a sample's outputs; UsageError where they do not fit those of the first."""
        arrays, texts, labels = arrays_of(outputs)
        for key, array in arrays.items():
            self._append(key, array)
        for key, text in (texts | {"files": name}).items():
            if key not in self._texts:
                self._texts[key] = _Texts(self._path.parent)
            self._texts[key].add(text)
        self._labels = self._labels or labels

    def _append(self, name: str, array: np.ndarray[Any, Any]) -> None:
        kind = (array.dtype.str, array.shape)
        if name not in self._files:
            self._shapes[name] = kind
            self._files[name] = tempfile.TemporaryFile(dir=self._path.parent)  # noqa: SIM115
            _header(self._files[name], kind[0], (self._count, *array.shape))
        if kind != self._shapes[name]:
            raise differs(name, array.shape, self._shapes[name][1])
        self._files[name].write(array.tobytes())

    def close(self) -> None:
        """Write the archive."""
        with zipfile.ZipFile(self._path, "w", allowZip64=True) as archive:
            for name, part in self._files.items():
                part.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    shutil.copyfileobj(part, entry, 1 << 20)
                part.close()
            for name, texts in self._texts.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    texts.write(entry)
            for name, values in self._labels.items():
                with archive.open(f"{name}.npy", "w") as entry:
                    np.lib.format.write_array(entry, np.array(values), allow_pickle=False)  # type: ignore[no-untyped-call]


def _header(file: IO[bytes], dtype: str, shape: tuple[int, ...]) -> None:
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]


class _Texts:
    """An array of texts: their width is known only in the end, so they wait in a file."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile("w+", dir=folder, encoding="utf-8")  # noqa: SIM115
        self._count, self._width = 0, 1

    def add(self, text: str) -> None:
        self._file.write(json.dumps(text) + "\n")
        self._count, self._width = self._count + 1, max(self._width, len(text))

    def write(self, entry: IO[bytes]) -> None:
        dtype = np.dtype(f"<U{self._width}")
        _header(entry, dtype.str, (self._count,))
        self._file.seek(0)
        for line in self._file:
            entry.write(np.array(json.loads(line), dtype).tobytes())
        self._file.close()
