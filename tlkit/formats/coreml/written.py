"""What is asked of a package that tlkit writes: it replaces a package and nothing else, and it can be read again."""

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
_MADE_BY_SYSTEMS = (".DS_Store",)
_WEIGHTS = ".bin"


def foreign(folder: Path) -> Path | None:
    """Return a file in ``folder`` that no Core ML package has: one that is not in its manifest, or in a weights folder
    and not a weight file. None where there is none, as in an empty folder."""
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
    """Open the package or .mlmodel at ``path`` as whoever gets it will; LoadError where it or its weights cannot be."""
    _read(open_package(path))


def _read(package: Package) -> None:
    package.require_weights()
    for stage in package.stages():
        _read(stage)


def _listed(manifest: Path) -> set[tuple[str, ...]]:
    """Return the paths that a manifest lists, below ``Data``; none where it cannot be read."""
    try:
        entries = read_json(manifest, _LARGEST)["itemInfoEntries"]
        return {PurePosixPath(entry["path"]).parts for entry in entries.values()} - {()}
    except (LoadError, OSError, KeyError, TypeError, AttributeError):
        return set()


def _files(folder: Path) -> Iterator[Path]:
    """Yield all that is not a folder below ``folder``, links to folders among it."""
    for place, folders, files in os.walk(folder):
        for name in (*files, *(name for name in folders if Path(place, name).is_symlink())):
            yield Path(place, name)
