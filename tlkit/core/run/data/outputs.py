"""Outputs of many inferences, written as they come, so that memory does not grow with how many there are.

By the goal's name: ``.npz``, one archive with an array per output that has one more axis in front; ``.parquet``, a row
per sample; a folder, ``.npz`` shards of that form beside a manifest that says what is in each, with its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tlkit.core.run.data.columns import NpzWriter, arrays_of
from tlkit.core.run.data.parquet import pyarrow
from tlkit.core.run.data.table import ParquetWriter
from tlkit.errors import LoadError, UsageError, reason
from tlkit.host.goals import Kind
from tlkit.host.staging import Goal

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
_SHARD = 64 << 20  # bytes of outputs in a shard, at least one sample
_MOST = 65536  # samples in a shard


class OutputWriter(Protocol):
    """Takes one sample's outputs after another."""

    def add(self, name: str, outputs: Mapping[str, Any]) -> None:
        """Append a sample's outputs; UsageError where they do not fit those of the first."""

    def close(self) -> None:
        """Write what is left."""


def outputs_goal(text: str) -> Goal:
    """Return what ``--save-outputs`` writes for many samples; UsageError for a name of another kind."""
    path = Path(text)
    if path.suffix == ".npz":
        return Goal(path, _read_npz)
    if path.suffix == ".parquet":
        return Goal(path, _read_parquet)
    if path.suffix == "" or text.endswith("/"):
        return Goal(path, read_manifest, SHARDS)
    raise UsageError(
        f"--save-outputs {text}: outputs of many samples go into a .npz, a .parquet or a folder of shards",
        "name it .npz or .parquet, or name a folder",
    )


def output_writer(goal: Goal, path: Path, count: int) -> OutputWriter:
    """Return what writes ``count`` samples' outputs to ``path``, in the form of ``goal``."""
    if goal.kind is SHARDS:
        return ShardWriter(path)
    return ParquetWriter(path) if path.suffix == ".parquet" else NpzWriter(path, count)


class ShardWriter:
    """A folder of archives, ``00000.npz`` and on, and :data:`MANIFEST`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir()
        self._shards: list[dict[str, Any]] = []
        self._waiting: list[tuple[str, Mapping[str, Any]]] = []
        self._bytes = self._count = 0

    def add(self, name: str, outputs: Mapping[str, Any]) -> None:
        """See :class:`OutputWriter`."""
        self._waiting.append((name, outputs))
        self._bytes += sum(array.nbytes for array in arrays_of(outputs)[0].values())
        if self._bytes >= _SHARD or len(self._waiting) >= _MOST:
            self._write()

    def _write(self) -> None:
        file = self._path / f"{len(self._shards):05d}.npz"
        writer = NpzWriter(file, len(self._waiting))
        for name, outputs in self._waiting:
            writer.add(name, outputs)
        writer.close()
        with file.open("rb") as made:
            digest = hashlib.file_digest(made, "sha256").hexdigest()
        facts = {"file": file.name, "count": len(self._waiting), "first": self._waiting[0][0]}
        self._shards.append(facts | {"last": self._waiting[-1][0], "bytes": file.stat().st_size, "sha256": digest})
        self._count += len(self._waiting)
        self._waiting, self._bytes = [], 0

    def close(self) -> None:
        """Write the last shard and the manifest."""
        if self._waiting:
            self._write()
        manifest = {"schema_version": MANIFEST_VERSION, "count": self._count, "shards": self._shards}
        (self._path / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder of shards; LoadError where a shard is not there, or not as it says."""
    place = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        for shard in manifest["shards"]:
            with (folder / Path(shard["file"]).name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
                    raise LoadError(f"{folder / shard['file']}: not the shard that was written")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoadError(f"{place}: not a manifest of shards ({reason(error)})") from None
    return manifest


def saved_outputs(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what :class:`ShardWriter` was given, sample by sample; a shard is in memory at a time.

    A classifier's probabilities are a mapping again, all other outputs are arrays and texts. Raises LoadError.
    """
    for shard in read_manifest(folder)["shards"]:
        with np.load(folder / Path(shard["file"]).name, allow_pickle=False) as archive:
            held = {name: archive[name] for name in archive.files}
        names = held.pop("files")
        labels = {name.removesuffix(".labels"): held.pop(name) for name in list(held) if name.endswith(".labels")}
        for at, name in enumerate(names):
            yield str(name), {key: _again(array[at], labels.get(key)) for key, array in held.items()}


def _again(value: Any, labels: Any) -> Any:
    if labels is not None:
        return dict(zip(map(str, labels), value.tolist(), strict=True))
    return str(value) if np.asarray(value).dtype.kind == "U" else value


def _foreign(folder: Path) -> Path | None:
    """Return a file in ``folder`` that is not part of such an output; None if there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        listed = {MANIFEST, *(shard["file"] for shard in manifest["shards"])}
    except (OSError, ValueError, KeyError, TypeError):
        listed = set()
    return next((item for item in folder.iterdir() if item.name not in listed or not item.is_file()), None)


SHARDS = Kind("a folder of output shards", _foreign)
"""What a folder of shards may replace."""


def _read_npz(path: Path) -> None:
    """Read an archive's checksums, to see that it is whole; its arrays stay on the disk."""
    with zipfile.ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:
            raise LoadError(f"{path}: {damaged} is damaged")


def _read_parquet(path: Path) -> None:
    with pyarrow().parquet.ParquetFile(path) as file:
        file.metadata  # noqa: B018  # its last bytes, which are written last
