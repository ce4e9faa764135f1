"""Requirements for packages that tlkit writes: they may replace only packages, and must be readable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tlkit.errors import LoadError
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.package import Package
from tlkit.formats.files.mapped import read_json
from tlkit.host.goals import Kind

_MANIFEST = "Manifest.json"
_LARGEST = 1 << 20  # bytes of a manifest; they have one or two thousand
_MADE_BY_SYSTEMS = (".DS_Store",)  # the Finder's
_WEIGHTS = ".bin"


def foreign(folder: Path) -> Path | None:
    """Return a file in ``folder`` that does not belong in a Core ML package: one that its manifest does not list, or a
    file in a weights folder that is not a weight file. None if there is none, as in an empty folder."""
    listed = _listed(folder / _MANIFEST)
    for file in _files(folder):
        parts = file.relative_to(folder).parts
        if (parts == (_MANIFEST,) and listed) or file.name in _MADE_BY_SYSTEMS:
            continue
        inside = parts[0] == "Data" and any(parts[1 : 1 + len(item)] == item for item in listed)
        if not inside or (parts[1:] not in listed and file.suffix != _WEIGHTS):
            return file
    return None


PACKAGE = Kind("a Core ML package", foreign)
"""What a .mlpackage may replace."""


def read_package(path: Path) -> None:
    """Open the package or .mlmodel at ``path`` as its users will; LoadError where it or its weights cannot be read."""
    _read(open_package(path))


def _read(package: Package) -> None:
    package.require_weights()
    for stage in package.stages():
        _read(stage)


def _listed(manifest: Path) -> set[tuple[str, ...]]:
    """Return the paths below ``Data`` that a manifest lists; empty where it cannot be read."""
    try:
        entries = read_json(manifest, _LARGEST)["itemInfoEntries"]
        return {PurePosixPath(entry["path"]).parts for entry in entries.values()} - {()}
    except (LoadError, OSError, KeyError, TypeError, AttributeError):
        return set()


def _files(folder: Path) -> Iterator[Path]:
    """Yield everything below ``folder`` except folders; links to folders are included."""
    for place, folders, files in os.walk(folder):
        for name in (*files, *(name for name in folders if Path(place, name).is_symlink())):
            yield Path(place, name)
