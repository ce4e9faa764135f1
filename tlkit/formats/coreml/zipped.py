"""A Core ML package in a zip archive: described in place, and unpacked to a temporary folder only to run it."""

from __future__ import annotations

import posixpath
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError
from tlkit.formats.coreml import legacy
from tlkit.formats.coreml.package import Package, blamed_on
from tlkit.formats.coreml.weights import blob_constants, blob_references, strays, unnamed_in
from tlkit.formats.files.mapped import DAMAGED, Mapped, parse_json, without_mark
from tlkit.formats.files.paths import inside
from tlkit.formats.files.zip import Zip, leads_out
from tlkit.host.scratch import scratch_folder
from tlkit.mil import proto
from tlkit.mil.program import Program
from tlkit.types import LeftOut

_MODEL_LIMIT = 1 << 30  # bytes of a compressed model.mlmodel: legacy kinds keep their weights in it
_UNPACK_LIMIT = 1 << 37  # bytes of all files


@dataclass(frozen=True)
class ZippedPackage(Package):
    """A package in an archive. ``prefix`` is the package's folder in it; its weights are not read.

    ``member`` is the root model, ``listed`` are the paths that the manifest names, below ``Data``.
    """

    archive: Zip | None = None
    prefix: str = ""
    member: str = ""
    listed: tuple[str, ...] = ()

    @cached_property
    def program(self) -> Program | None:
        """The MIL program without its weight files, or None where the model is not an mlprogram."""
        if self.model.WhichOneof("Type") != "mlProgram":
            return None
        with blamed_on(self.file):
            return proto.read_program(self.model.mlProgram, lambda name: None)

    @cached_property
    def faults(self) -> tuple[LoadError, ...]:
        """Return one error for each weight file that the archive lacks."""
        assert self.archive is not None
        programs = (leaf.program for leaf in self.leaves())
        names = {ref.file_name for program in programs if program for ref in blob_references(program)}
        folder = posixpath.dirname(self.member)
        missing = [n for n in sorted(names) if f"{folder}/{n.removeprefix('@model_path/')}" not in self.archive]
        return tuple(LoadError(f"{self.root}: it lacks the weights '{name}'", DAMAGED) for name in missing)

    @cached_property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Bytes of the weight files, by the archive's list, that no constant names, and files that no program names."""
        assert self.archive is not None
        if self.part:
            return ()
        constants = [pair for leaf in self.leaves() if leaf.program for pair in blob_constants(leaf.program)]
        folder = posixpath.dirname(self.member)
        members = {ref.file_name: f"{folder}/{ref.file_name.removeprefix('@model_path/')}" for ref, _ in constants}
        sizes = {name: self.archive.size(member) for name, member in members.items() if member in self.archive}
        inside = (name for name in self.archive.names if name.startswith(self.prefix) and not name.endswith("/"))
        others = {name.removeprefix(self.prefix): self.archive.size(name) for name in inside}
        used = [member.removeprefix(self.prefix) for member in members.values()]
        return (*unnamed_in(sizes, constants), *strays(others, used))

    def stages(self) -> Iterator[ZippedPackage]:
        """Yield the models of a pipeline, in order, each as a package in the same archive."""
        for message in legacy.inner(self.model):
            yield replace(self, model=message, part=True)

    def blob_path(self, name: str) -> Path:
        """Return the archive itself: its members have no paths of their own."""
        return self.root


def open_zipped(path: Path) -> ZippedPackage:
    """Open the package in the archive ``path``; LoadError where there is none, or several."""
    archive = Zip(Mapped(path))
    found = [name for name in archive.names if posixpath.basename(name) == "Manifest.json"]
    found = [name for name in found if name == "Manifest.json" or posixpath.dirname(name).endswith(".mlpackage")]
    # macOS' zip adds a second file for each, of what its file system knows about it.
    found = [name for name in found if not name.startswith("__MACOSX/")]
    if len(found) != 1:
        raise LoadError(f"{path}: it holds {len(found)} Core ML packages", "unzip it and name one of them")
    prefix = found[0].removesuffix("Manifest.json")
    manifest = parse_json(without_mark(bytes(archive.read(found[0]))), f"{path}: {found[0]}")
    try:
        entry = str(manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"])
        listed = tuple(str(item["path"]) for item in manifest["itemInfoEntries"].values())
    except (KeyError, TypeError, AttributeError):
        raise LoadError(f"{path}: its Manifest.json names no root model", DAMAGED) from None
    member = f"{prefix}Data/{entry}"
    if leads_out(entry) or member not in archive:
        raise LoadError(
            f"{path}: its Manifest.json names '{entry[:100]}', which is not in it", "do not trust this file"
        )
    with blamed_on(path):
        model: Any = proto.parse_model(bytes(archive.read(member, _MODEL_LIMIT)))
    return ZippedPackage(path, path, model, archive=archive, prefix=prefix, member=member, listed=listed)


def unpack(package: ZippedPackage) -> Path:
    """Unpack the files of the package into a temporary folder, which is removed at exit; return its path."""
    assert package.archive is not None
    archive, prefix = package.archive, package.prefix
    names = sorted(_referred(package))
    archive.require_distinct(names)
    total = archive.check_total(names)
    folder = scratch_folder("tlkit-unpacked-", archive)
    if total > min(_UNPACK_LIMIT, shutil.disk_usage(folder).free):
        raise LoadError(f"{package.root}: it expands to {total:,} bytes, too many to unpack here", "unzip it elsewhere")
    root = folder / "model.mlpackage"
    for name in names:
        target = inside(root, root, name.removeprefix(prefix))
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:  # never one that is there: on some systems two names are one file
            for piece in archive.pieces(name):
                file.write(piece)
    return root


def _referred(package: ZippedPackage) -> Iterator[str]:
    """Yield the members of the package: its manifest, the files that it lists, and the program's weights."""
    archive, prefix = package.archive, package.prefix
    assert archive is not None
    folder = posixpath.dirname(package.member)
    programs = [leaf.program for leaf in package.leaves()]
    blobs = {
        ref.file_name.removeprefix("@model_path/")
        for program in programs
        if program
        for ref in blob_references(program)
    }
    wanted = {f"{prefix}Manifest.json", package.member}
    wanted |= {f"{prefix}Data/{path}" for path in package.listed}
    wanted |= {f"{folder}/{name}" for name in blobs}
    yield from (name for name in wanted if name in archive and not name.endswith("/"))
