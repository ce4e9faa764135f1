"""Opening a Core ML model on disk: a ``.mlpackage`` folder or a ``.mlmodel`` file, read and never touched.

(coremltools can rewrite a package's Manifest.json on opening it; this does not.) Every path that a package names is
resolved and must stay inside the package.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from tlkit.errors import LoadError
from tlkit.mil import proto
from tlkit.mil.blob import BlobFile
from tlkit.mil.program import Program

LFS_MAGIC = b"version https://git-lfs"
_MODEL_PATH = "@model_path/"


@dataclass(frozen=True)
class Package:
    """A Core ML model: where it is, its ``Model`` message and the file that held it.

    ``root`` is what the user named; ``base`` the folder that ``@model_path/`` stands for in the program.
    """

    root: Path
    file: Path
    model: Any

    @property
    def base(self) -> Path:
        """The folder that the program's weight paths start from."""
        return self.file.parent

    @cached_property
    def program(self) -> Program | None:
        """The MIL program, or None where the model is not an mlprogram. A missing weight file is left for later."""
        if self.model.WhichOneof("Type") != "mlProgram":
            return None
        return proto.read_program(self.model.mlProgram, self._open_blob)

    def blob_path(self, name: str) -> Path:
        """Return the path of the weight file that the program calls ``name``; LoadError if it leaves the package."""
        return inside(self.root if self.root.is_dir() else self.base, self.base, name.removeprefix(_MODEL_PATH))

    def _open_blob(self, name: str) -> BlobFile | None:
        path = self.blob_path(name)
        return BlobFile(path) if path.is_file() else None


def open_package(path: Path) -> Package:
    """Open a ``.mlpackage`` folder or a ``.mlmodel`` file; LoadError says what is missing or damaged."""
    file = _root_model(path) if path.is_dir() else path
    data = _read(file)
    if data.startswith(LFS_MAGIC):
        raise LoadError(f"{file}: a git-lfs pointer, not the model", "run `git lfs pull` in its repository")
    try:
        return Package(path, file, proto.parse_model(data))
    except LoadError as error:
        raise LoadError(f"{file}: {error.message}", error.hint) from None


def inside(root: Path, base: Path, name: str) -> Path:
    """Return ``base/name`` if it lies in ``root`` after links are followed; LoadError otherwise."""
    target = (base / PurePosixPath(name)).resolve()
    if not name or not target.is_relative_to(root.resolve()):
        raise LoadError(f"{root}: it names the path '{name}', outside the package", "do not trust this file")
    return target


def _root_model(path: Path) -> Path:
    manifest = path / "Manifest.json"
    if not manifest.is_file():
        raise LoadError(f"{path}: a folder without a Manifest.json is no .mlpackage", "name a model file or package")
    try:
        content = json.loads(_read(manifest))
        entry = content["itemInfoEntries"][content["rootModelIdentifier"]]["path"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise LoadError(f"{manifest}: it names no root model", "the package is damaged: fetch it again") from None
    return inside(path, path / "Data", str(entry))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LoadError(f"{path}: {error.strerror or error}", "check the path") from None
