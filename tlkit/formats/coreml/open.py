"""Open a Core ML model in any form: package, model file, zip archive, compiled folder or MIL text."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from tlkit.errors import LoadError
from tlkit.formats.base import sniff
from tlkit.formats.coreml.package import LARGEST, Package, root_model
from tlkit.formats.files.mapped import Mapped, read_whole
from tlkit.formats.files.paths import inside
from tlkit.formats.files.wire import WireError, fields
from tlkit.mil import proto

_SUFFIXES = (".mlmodel", ".mlpackage", ".mlmodelc")
_FIELDS = 10_000  # at the top of a Model; it has four or so


def open_package(path: Path) -> Package:
    """Open a ``.mlpackage``, a ``.mlmodel``, an ``.mlmodelc`` or a MIL text; LoadError says what is wrong with it."""
    # What is missing is refused where it is opened.
    found = sniff.detect(path) if path.exists() else None
    if found is sniff.Format.ZIPPED_MLPACKAGE:
        from tlkit.formats.coreml.zipped import open_zipped  # late: the other forms need no zip reader

        return open_zipped(path)
    held = next((path / name for name in sniff.HELD if (path / name).exists()), None)
    if found is sniff.Format.MLMODELC and held is not None:
        inside(path, path, held.name)
        path, found = held, sniff.detect(held)
        if found not in (sniff.Format.MLPACKAGE, sniff.Format.MLMODEL):
            raise LoadError(f"{held}: {found}, where a package or a .mlmodel should be", "compile the model again")
    if found in (sniff.Format.MLMODELC, sniff.Format.MIL_TEXT):
        from tlkit.formats.coreml.mlmodelc import open_compiled  # late: the others need no reader of MIL text

        return open_compiled(path)
    file = root_model(path) if path.is_dir() else path
    if sniff.detect(file) is sniff.Format.LFS_POINTER:
        raise LoadError(f"{file}: {sniff.lfs_text(file)}", "run `git lfs pull` in its repository")
    try:
        _check_fields(file)
        return Package(path, file, proto.parse_model(read_whole(file, LARGEST)))
    except LoadError as error:
        if str(file) in error.message:
            raise
        raise LoadError(f"{file}: {error.message}", error.hint) from None


def open_linked(package: Package) -> Package:
    """Open the model that a ``linkedModel`` names, in the folder that holds the package or below it.

    Relative search paths begin where the model lies; ``$BUNDLE_MAIN`` is the folder that holds the package. The file
    may be there compiled or not. LoadError where it is not, or lies elsewhere.
    """
    from tlkit.formats.coreml.mlmodelc import CompiledPackage  # late, as above

    link = package.model.linkedModel.linkedModelFile
    name, paths = link.linkedModelFileName.defaultValue, link.linkedModelSearchPath.defaultValue
    home = ((package.top if isinstance(package, CompiledPackage) else None) or package.root).resolve().parent
    if not name:
        raise LoadError(f"{package.root}: it links to no file", "the file is damaged: fetch it again")
    for path in paths.split(":"):
        if path.startswith("$") and path != "$BUNDLE_MAIN":
            continue
        main = path == "$BUNDLE_MAIN"
        for base in (home,) if main else (package.root.parent, package.base):
            found = inside(home, base, name if main or not path else f"{path}/{name}")
            for candidate in (found, *(found.with_suffix(suffix) for suffix in _SUFFIXES)):
                if candidate.exists():
                    return open_package(inside(home, candidate.parent, candidate.name))
    raise LoadError(f"{package.root}: it links to '{name}', which is not there", f"put that model into {home}")


def _check_fields(file: Path) -> None:
    """Refuse what is not protobuf by its outermost fields, before reading all of it."""
    mapped, hint = Mapped(file), "fetch or convert the file again"
    try:
        outermost = sum(1 for _ in islice(fields(mapped.view, 0, mapped.size), _FIELDS))
    except WireError as error:
        raise LoadError(f"the model's protobuf is damaged: {error.message}", hint) from None
    if mapped.size > LARGEST or outermost == _FIELDS:
        raise LoadError("the model's protobuf is larger than 2 GiB, which protobuf does not allow", hint)
