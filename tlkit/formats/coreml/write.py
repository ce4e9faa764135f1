"""Write Core ML models: a package from its message and program, or a changed message beside existing weights."""

from __future__ import annotations

import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError
from tlkit.formats.coreml.features import GRAYSCALE_FLOAT16, PORTS, interfaces
from tlkit.formats.coreml.package import Package
from tlkit.formats.files.paths import inside
from tlkit.mil.opsets import system_of, version_of
from tlkit.mil.program import Program
from tlkit.mil.types import DType
from tlkit.mil.write import WEIGHTS, weight_file, write_program

_FOLDER = "com.apple.CoreML"
_MODEL = "model.mlmodel"
_MANIFEST = "Manifest.json"
_MOST = 10_000  # files of a package that are copied; most have three


def write_package(path: Path, model: Any, program: Program, more: Mapping[str, str] | None = None) -> Package:
    """Write a new package at ``path``: ``model`` (whose program is replaced) with ``program`` and all its weights.

    Each weight is written once, whatever functions and files it comes from, and none is held in memory as a whole.
    ``more`` are further items: texts by their file names.
    """
    folder = path / "Data" / _FOLDER
    folder.mkdir(parents=True)
    with weight_file(folder) as weights:
        write_program(program, model.mlProgram, weights)
    (folder / _MODEL).write_bytes(model.SerializeToString())
    items = [(_MODEL, "CoreML Model Specification")]
    if weights.used:
        items.append((WEIGHTS.split("/")[0], "CoreML Model Weights"))
    (path / _MANIFEST).write_text(json.dumps(_manifest(items), indent=4))
    add_texts(path, more or {})
    return Package(path, folder / _MODEL, model)


def add_texts(path: Path, texts: Mapping[str, str]) -> None:
    """Add files of text, by their names, to a new package at ``path``."""
    if not texts:
        return
    manifest = json.loads((path / _MANIFEST).read_bytes())
    for name, text in texts.items():
        beside_model(path, name).write_text(text, encoding="utf-8")
        manifest["itemInfoEntries"] |= _entries([(name, "Language Model Description")])
    (path / _MANIFEST).write_text(json.dumps(manifest, indent=4))


def beside_model(package: Path, name: str) -> Path:
    """Return where the file ``name`` lies in a package that has it as an item of its own."""
    return package / "Data" / _FOLDER / name


def _manifest(items: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the content of a package's Manifest.json, the model first."""
    entries = _entries(items)
    return {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": next(iter(entries))}


def _entries(items: list[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Return a manifest's entries by identifiers, which are arbitrary but distinct."""
    return {
        # Made from names, not drawn: the same model gives the same file.
        str(uuid.uuid5(uuid.NAMESPACE_URL, name)).upper(): {
            "author": _FOLDER,
            "description": text,
            "name": name,
            "path": f"{_FOLDER}/{name}",
        }
        for name, text in items
    }


def write_beside(package: Package, model: Any, path: Path) -> None:
    """Write ``model`` to ``path`` in the form of ``package``: as a file, or as a folder with all its other files.

    Weights and other files are hard-linked where the file system allows, so that copying a large model costs nothing;
    that is safe since tlkit never writes into an existing file. Symbolic links inside the package are replaced by their
    targets; LoadError for one that leads out of it, or back to a folder that contains it.
    """
    data = model.SerializeToString()
    if not package.root.is_dir():
        path.write_bytes(data)
        return
    _copy_folder(package, package.root, path, (), iter(range(_MOST)))
    (path / package.file.relative_to(package.root)).write_bytes(data)


def _copy_folder(package: Package, folder: Path, place: Path, above: tuple[Path, ...], numbers: Iterator[int]) -> None:
    """Copy ``folder`` to ``place``, except the model's own file.

    ``above`` are the real folders that contain it; ``numbers`` yields once for each file that may still be copied.
    """
    above = (*above, folder.resolve())
    if above[-1] in above[:-1]:
        raise LoadError(f"{folder}: a link that leads back to a folder around it", "the package is damaged")
    place.mkdir()
    for item in sorted(folder.iterdir()):
        if next(numbers, None) is None:
            raise LoadError(f"{package.root}: more than {_MOST} files, counted through its links", "do not trust it")
        source = inside(package.root, folder, item.name)
        if source.is_dir():
            _copy_folder(package, source, place / item.name, above, numbers)
        elif source != package.file:
            _link(source, place / item.name)


def _link(source: Path, goal: Path) -> None:
    real = source.resolve()
    if not real.is_file():
        raise LoadError(f"{source}: not a regular file", "the package is damaged: fetch it again")
    found, folder = real.stat(), goal.parent.stat()
    # What the umask allows is seen in the mode of the folder, which is new. A link has its file's owner and mode.
    mode = stat.S_IMODE(found.st_mode) & folder.st_mode & 0o666 | stat.S_IRUSR | stat.S_IWUSR
    # The manifest is a file of its own: coremltools writes into it wherever it opens a package.
    if (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.geteuid(), mode) and source.name != _MANIFEST:
        with suppress(OSError):  # another file system, or one without links
            os.link(real, goal)
            return
    shutil.copyfile(real, goal)
    goal.chmod(mode)


def oldest_version(model: Any) -> tuple[int, str]:
    """Return the lowest specification version that ``model`` may have, and the feature that requires it."""
    program = model.WhichOneof("Type") == "mlProgram"
    # Specification versions: 6 is iOS15's, 7 iOS16's, 9 iOS18's.
    asks = [(6, "an mlprogram") if program else (1, "any model")]
    if model.description.functions:
        asks.append((9, "several functions"))
    for target in interfaces(model):
        asks += [_port_asks(feature) for kind in PORTS for feature in getattr(target.description, kind)]
        if program and target.function in model.mlProgram.functions:
            opset = model.mlProgram.functions[target.function].opset
            asks.append((version_of(opset), f"operations of {system_of(opset)}"))
    return max(asks, key=lambda item: item[0])


def _port_asks(feature: Any) -> tuple[int, str]:
    kind = feature.type.WhichOneof("Type")
    if kind == "stateType":
        return 9, f"the state '{feature.name}'"
    if kind == "multiArrayType" and feature.type.multiArrayType.dataType == DType.FP16.array_number:
        return 7, f"the f16 port '{feature.name}'"
    if kind == "imageType" and feature.type.imageType.colorSpace == GRAYSCALE_FLOAT16:
        return 7, f"the f16 image '{feature.name}'"
    return 1, "any model"
