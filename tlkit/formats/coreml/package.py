"""Open a Core ML model on disk, a ``.mlpackage`` folder or a ``.mlmodel`` file, without ever changing it.

(coremltools can rewrite a package's Manifest.json on opening it; this does not.) Every path that a package names is
resolved and must stay inside the package.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError, UsageError, contradictions
from tlkit.formats.base import sniff
from tlkit.formats.coreml import legacy
from tlkit.formats.coreml.weights import Weight, blob_references, program_weights, strays, unnamed
from tlkit.formats.files.mapped import read_json
from tlkit.formats.files.paths import inside
from tlkit.mil import proto
from tlkit.mil.blob import BlobFile
from tlkit.mil.program import BlobRef, Program
from tlkit.types import LeftOut

LARGEST = (1 << 31) - 1
"""Bytes that a message of protobuf can have at most."""

_MODEL_PATH = "@model_path/"
_MANIFEST = 1 << 20  # bytes; they have one or two thousand


@dataclass(frozen=True)
class Package:
    """A Core ML model: where it is, its ``Model`` message and the file that held it.

    ``root`` is the path that the user gave; ``base`` the folder that ``@model_path/`` stands for in the program.
    ``notes`` say what could not be read, ``extra`` holds details specific to the format.
    ``part`` marks a stage of a pipeline whose files it shares.
    """

    root: Path
    file: Path
    model: Any
    notes: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    part: bool = False

    @property
    def base(self) -> Path:
        """The folder that the program's weight paths start from."""
        return self.file.parent

    @cached_property
    def program(self) -> Program | None:
        """The MIL program, or None where the model is not an mlprogram. A missing weight file is not an error yet."""
        if self.model.WhichOneof("Type") != "mlProgram":
            return None
        with blamed_on(self.file):
            return proto.read_program(self.model.mlProgram, self._open_blob)

    @cached_property
    def weights(self) -> tuple[Weight, ...]:
        """The weights of the model itself, one row each; a pipeline's stages have theirs."""
        return tuple(program_weights(self.program) if self.program else (weight for weight, _ in self.held_weights()))

    def held_weights(self) -> Iterator[tuple[Weight, Any]]:
        """Yield the weights of a model that is not an mlprogram, each with the message that holds it."""
        return legacy.weight_messages(self.model)

    @property
    def default_function(self) -> str | None:
        """The default function named in the description of a package with several."""
        return self.model.description.defaultFunctionName or None

    def stages(self) -> Iterator[Package]:
        """Yield the models of a pipeline, in order, each as a package in the same place."""
        yield from self._stages

    @cached_property
    def _stages(self) -> tuple[Package, ...]:
        return tuple(
            replace(self, model=message, notes=(), extra={}, part=True) for message in legacy.inner(self.model)
        )

    def stage(self, wanted: int | str) -> Package:
        """Return one stage of a pipeline, by its number (from 0) or name, or with ``..`` after that the pipeline of it
        and the stages after it; UsageError where there is no such stage."""
        stages, names = tuple(self.stages()), legacy.stage_names(self.model)
        on = str(wanted).endswith("..") and wanted not in names
        wanted = str(wanted).removesuffix("..") if on else wanted
        number = int(wanted) if str(wanted).isdecimal() else names.index(str(wanted)) if wanted in names else -1
        if not stages:
            raise UsageError(f"{self.root}: not a pipeline, so it has no stages", "leave --stage out")
        if not 0 <= number < len(stages):
            known = ", ".join(names) or "its stages have no names"
            raise UsageError(f"{self.root}: no stage {wanted}", f"stages are 0 to {len(stages) - 1} ({known})")
        return self._rest(number) if on else stages[number]

    def _rest(self, first: int) -> Package:
        """Return the pipeline of the stages from ``first`` on."""
        return replace(self, model=legacy.rest(self.model, first), notes=(), extra={}, part=True)

    def leaves(self) -> Iterator[Package]:
        """Yield the models that compute: the model itself, or a pipeline's stages, including those of nested
        pipelines."""
        inner = tuple(self.stages())
        for stage in inner:
            yield from stage.leaves()
        if not inner:
            yield self

    def layers(self) -> Iterator[tuple[str, str, list[str], list[str]]]:
        """Yield name, kind, inputs and outputs of each layer, for a neural network."""
        return legacy.layers(self.model)

    def blob_path(self, name: str) -> Path:
        """Return the path of the weight file that the program calls ``name``; LoadError if it leaves the package."""
        # Of a model file without a package, its own folder is what must not be left.
        return inside(self.root if self.root.is_dir() else self.base, self.base, name.removeprefix(_MODEL_PATH))

    def _open_blob(self, name: str) -> BlobFile | None:
        try:
            return BlobFile(self.blob_path(name)) if self.blob_path(name).is_file() else None
        except LoadError:
            return None  # the program can be read without it: `faults` says what is wrong

    @cached_property
    def _references(self) -> tuple[BlobRef, ...]:
        """Every place in a weight file that the model's own program names."""
        return tuple(blob_references(self.program)) if self.program else ()

    @cached_property
    def faults(self) -> tuple[LoadError, ...]:
        """The problems of the weight files (missing, a git-lfs pointer, truncated), one error per file."""
        found: dict[str, LoadError] = {error.message: error for stage in self.stages() for error in stage.faults}
        for ref in self._references:
            if ref.file_name not in found:
                try:
                    # Reading its record checks that the weight lies in the file.
                    (ref.file or self._weights(ref.file_name)).record(ref.offset)
                except LoadError as error:
                    found[ref.file_name] = error
        return tuple(found.values())

    @cached_property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Bytes of the weight files that no constant of the program names, except padding, and weight files that no
        program names; of all stages."""
        if self.part:  # the files are the pipeline's: what this stage does not name is others'
            return ()
        references = [ref for leaf in self.leaves() for ref in leaf._references]
        return (*unnamed(references), *strays(self._files(), self._named(references)))

    def _named(self, references: Iterable[BlobRef]) -> Iterator[str]:
        """Yield the paths, in the package, of the weight files that the programs name."""
        for name in {ref.file_name for ref in references}:
            try:
                yield os.path.relpath(self.blob_path(name), self.root)
            except LoadError:  # `faults` says what is wrong
                continue

    def _files(self) -> dict[str, int]:
        """Return the bytes of each file in the package, by its path there; nothing for a single file."""
        inner = {stage.root for stage in self.stages()} - {self.root}
        found = {}
        for folder, folders, names in os.walk(self.root) if self.root.is_dir() else ():
            folders[:] = [name for name in folders if Path(folder, name) not in inner]
            for name in names:
                path = Path(folder, name)
                if path.is_file():
                    found[os.path.relpath(path, self.root)] = path.stat().st_size
        return found

    def _weights(self, name: str) -> BlobFile:
        path = self.blob_path(name)
        if not path.is_file():
            raise LoadError(f"{path}: the weight file is missing", "fetch or copy the whole package, weights and all")
        if sniff.detect(path) is sniff.Format.LFS_POINTER:
            raise LoadError(f"{path}: {sniff.lfs_text(path)}", "run `git lfs pull` in its repository")
        return BlobFile(path)

    def require_weights(self) -> None:
        """Raise the first of :meth:`faults`, if any."""
        for error in self.faults:
            raise error


@contextmanager
def blamed_on(file: Path) -> Iterator[None]:
    """Turn exceptions that a damaged model causes in the body into a LoadError that names ``file``."""
    try:
        with contradictions("the model contradicts itself", "the file is damaged: fetch it again"):
            yield
    except LoadError as error:
        if str(file) in error.message:
            raise
        raise LoadError(f"{file}: {error.message}", error.hint) from error.__cause__


def root_model(path: Path) -> Path:
    """Return the model file named in the manifest of the package ``path``; LoadError unless it lies in the package."""
    manifest = path / "Manifest.json"
    if not inside(path, path, manifest.name).is_file():
        raise LoadError(f"{path}: a folder without a Manifest.json is not a .mlpackage", "name a model file or package")
    try:
        content = read_json(manifest, _MANIFEST)
        entry = content["itemInfoEntries"][content["rootModelIdentifier"]]["path"]
    except (LookupError, TypeError):
        raise LoadError(f"{manifest}: it names no root model", "the package is damaged: fetch it again") from None
    return inside(path, path / "Data", str(entry))
