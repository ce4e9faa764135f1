"""Compiled Core ML models: an ``.mlmodelc`` folder or a single ``model.mil``, opened as a :class:`Package`.

A compiled mlprogram is ``model.mil`` (text), ``weights/`` and ``coremldata.bin``; a compiled neural network is
Espresso's ``model.espresso.net`` (JSON), ``.shape`` and ``.weights``; a pipeline nests ``model0``, ``model1``, … A
missing description becomes a note, and an mlprogram's ports are then those of its program.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError
from tlkit.formats.base import sniff
from tlkit.formats.coreml import coremldata, legacy
from tlkit.formats.coreml.espresso.network import NET, Network, describe_ports, read_network
from tlkit.formats.coreml.espresso.weights import EspressoWeights
from tlkit.formats.coreml.package import LARGEST, Package
from tlkit.formats.coreml.weights import Weight
from tlkit.formats.files.mapped import read_json, read_whole
from tlkit.formats.files.paths import inside
from tlkit.mil.program import BlobRef, Function, NamedType, Program, StateType, TensorType
from tlkit.mil.text import api as text
from tlkit.types import LeftOut

_PIPELINES = ("pipelineClassifier", "pipelineRegressor", "pipeline")
_NETWORKS = ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor")
_FILES = ("metadata.json", "coremldata.bin", "model.mil")
_DEPTH = 8  # pipelines within pipelines
_DAMAGED = "the file is damaged: fetch or compile it again"
_WHOLE = "fetch or copy the whole folder"
_TELLING = ("computePrecision", "storagePrecision", "availability", "generatedClassName")


@dataclass(frozen=True)
class CompiledPackage(Package):
    """A compiled model. ``network`` is its Espresso network; ``inner`` are a pipeline's stages, ``top`` is the folder
    that the user named."""

    network: Network | None = field(default=None)
    inner: tuple[CompiledPackage, ...] = field(default=())
    top: Path | None = field(default=None)

    def stages(self) -> Iterator[Package]:
        """Yield the models of a pipeline, each from its own folder."""
        yield from self.inner

    def _rest(self, first: int) -> Package:
        return replace(self, model=legacy.rest(self.model, first), inner=self.inner[first:], notes=(), part=True)

    @cached_property
    def program(self) -> Program | None:
        """The MIL program, or None where the model is not an mlprogram."""
        if self.model.WhichOneof("Type") != "mlProgram":
            return None
        if self.file.name == "coremldata.bin":
            raise LoadError(f"{self.root / 'model.mil'}: the program of this mlprogram is missing", _WHOLE)
        return _read_program(self.file, self._open_blob)

    def layers(self) -> Iterator[tuple[str, str, list[str], list[str]]]:
        """Yield name, kind, inputs and outputs of each layer, for a neural network."""
        for stage in self.inner:
            yield from stage.layers()
        for layer in self.network.layers if self.network else ():
            yield layer.name, layer.kind, list(layer.inputs), list(layer.outputs)
        yield from () if self.inner else legacy.layers(self.model)

    @cached_property
    def espresso(self) -> EspressoWeights | None:
        """The weights of the Espresso network, without their bytes where :attr:`faults` has a problem of their file;
        None where the model has no such network."""
        return EspressoWeights(self.network, present=not self.faults) if self.network else None

    @cached_property
    def output_values(self) -> tuple[str, ...]:
        """The values of the network that are the outputs, in their order; empty where that is not known."""
        file = self.root / "coremldata.bin"
        return coremldata.output_values(read_whole(file, LARGEST)) if file.is_file() else ()

    def held_weights(self) -> Iterator[tuple[Weight, Any]]:
        """Yield the weights of a model that is not an mlprogram, each with what holds it: a message or a blob."""
        if self.espresso and self.network:
            file = str(self.network.weights.relative_to(self.root))
            for blob in self.espresso.blobs:
                kind = "INT8" if blob.scale else blob.dtype
                yield Weight(blob.name, kind, blob.shape, blob.stored, file, blob.offset), blob
        yield from super().held_weights()

    @cached_property
    def faults(self) -> tuple[LoadError, ...]:
        """The problems of the weight files, one error per file."""
        net = self.root / NET
        if self.model.WhichOneof("Type") in _NETWORKS and not net.is_file():
            return (LoadError(f"{net}: the network is missing", _WHOLE),)
        if self.network is None:
            return (*self._unread(), *super().faults)
        weights = self.network.weights
        if not weights.is_file():
            return (LoadError(f"{weights}: the weight file is missing", _WHOLE),)
        if sniff.is_pointer(weights):
            return (LoadError(f"{weights}: {sniff.lfs_text(weights)}", "run `git lfs pull` in its repository"),)
        try:
            EspressoWeights(self.network).check()
        except LoadError as error:
            return (error,)
        return super().faults

    def _unread(self) -> tuple[LoadError, ...]:
        """Return the problem of a model of a small kind (a tree, a linear model) that is not in the form that is known:
        its body is empty, and would compute nothing."""
        kind, file = self.model.WhichOneof("Type") or "", self.root / "coremldata.bin"
        if kind in ("", "mlProgram", *_PIPELINES, *_NETWORKS) or not file.is_file():
            return ()
        form = coremldata.variant(read_whole(file, LARGEST))
        if form.startswith("spec"):
            return ()
        said = f"{file}: a compiled {kind} of the form '{form}', which is not published: only its description is read"
        return (LoadError(said, "run the .mlmodel that it was compiled from"),)

    @cached_property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The weights that could not be read, and bytes that nothing names, in all stages."""
        own = super().left_out
        if self.espresso and not self.faults:
            own = (*self.espresso.left_out, *own)
        folder = str(self.root.relative_to(self.top or self.root))
        named = own if folder == "." else [replace(item, name=f"{folder}/{item.name}") for item in own]
        return (*named, *(item for stage in self.inner for item in stage.left_out))

    def _named(self, references: Iterable[BlobRef]) -> Iterator[str]:
        yield from super()._named(references)
        if self.network:
            yield os.path.relpath(self.network.weights, self.root)


def open_compiled(path: Path) -> CompiledPackage:
    """Open an ``.mlmodelc`` folder or MIL text; LoadError says what is missing or damaged."""
    if path.is_file():
        package = CompiledPackage(path, path, coremldata.empty_model("mlProgram"))
        _describe_ports(package)
        return package
    return _open_folder(path, path, 0)


def _open_folder(root: Path, top: Path, depth: int) -> CompiledPackage:
    if depth > _DEPTH:
        raise LoadError(f"{root}: pipelines nested deeper than {_DEPTH} levels", "the folder is damaged")
    for name in _FILES:
        inside(root, root, name)
    summary = _metadata(root)
    model, note = _read_model(root, summary)
    stages = _stages(root, top, model, depth)
    network = read_network(root)
    main = next((f for f in (root / "model.mil", root / NET) if f.is_file()), root / "coremldata.bin")
    own = (note, network.note if network else "")
    notes = tuple(note for stage in stages for note in stage.notes) + tuple(filter(None, own))
    extra = {key: summary[key] for key in _TELLING if key in summary}
    package = CompiledPackage(root, main, model, notes, extra, network=network, inner=tuple(stages), top=top)
    if not model.description.ListFields() and main.name == "model.mil":
        _describe_ports(package)
    if network and not model.description.ListFields():
        describe_ports(model.description, network)
    return package


def _read_model(root: Path, summary: Mapping[str, Any]) -> tuple[Any, str]:
    """Return a Model message with the folder's kind and description, and a note where they cannot be read."""
    file = root / "coremldata.bin"
    guess = _guess(root, summary)
    model, problem = None, "the model's description is missing"
    if file.is_file():
        data = read_whole(file, LARGEST)
        model, problem = coremldata.decode(data, guess), "it holds no model description"
        if data.startswith(sniff.LFS_MAGIC):
            problem = sniff.lfs_text(file)
    note = "" if model else f"{file}: {problem}"
    model = model or coremldata.empty_model(guess)
    version = summary.get("specificationVersion")
    if isinstance(version, int) and 0 < version < 1000:
        model.specificationVersion = version
    return model, note


def _guess(root: Path, summary: Mapping[str, Any]) -> str:
    """Return the kind that a folder's other files suggest, or ""."""
    said = summary.get("modelType")
    name = str(said.get("name", "") if isinstance(said, dict) else "").removeprefix("MLModelType_")
    if name in coremldata.kinds():
        return name
    signs = {"model.mil": "mlProgram", NET: "neuralNetwork", "model0/coremldata.bin": "pipeline"}
    return next((kind for file, kind in signs.items() if (root / file).is_file()), "")


def _stages(root: Path, top: Path, model: Any, depth: int) -> list[CompiledPackage]:
    """Open the models inside a pipeline and add them to its message, where callers look for the stages."""
    if model.WhichOneof("Type") not in _PIPELINES:
        return []
    # By number: model10 comes after model2.
    folders = sorted(
        (p for p in root.glob("model[0-9]*") if p.is_dir() and p.name[5:].isdigit()), key=lambda p: int(p.name[5:])
    )
    stages = [_open_folder(inside(root, root, folder.name), top, depth + 1) for folder in folders]
    inner = getattr(model, model.WhichOneof("Type"))
    pipeline = inner if model.WhichOneof("Type") == "pipeline" else inner.pipeline
    for stage in stages:
        pipeline.models.add().CopyFrom(stage.model)
        model.specificationVersion = max(model.specificationVersion, stage.model.specificationVersion)
    return stages


def _metadata(root: Path) -> Mapping[str, Any]:
    file = root / "metadata.json"
    return _json(file) if file.is_file() else {}


def _json(file: Path) -> Mapping[str, Any]:
    """Return the object a JSON file holds, or the first one of its list."""
    content = read_json(file)
    first = content[0] if isinstance(content, list) and content else content
    return first if isinstance(first, dict) else {}


def _read_program(file: Path, open_blob: Any) -> Program:
    data = read_whole(file, LARGEST)
    if data.startswith(sniff.LFS_MAGIC):
        raise LoadError(f"{file}: {sniff.lfs_text(file)}", "run `git lfs pull` in its repository")
    try:
        content = data.decode()
    except UnicodeDecodeError:
        raise LoadError(f"{file}: not text in UTF-8", _DAMAGED) from None
    return text.parse_program(content, open_blob, str(file))


def _describe_ports(package: CompiledPackage) -> None:
    """Fill the description's ports from the program, for a text that comes without ``coremldata.bin``."""
    program = package.program
    if program is None or not program.functions:
        return
    description = package.model.description
    function = program.functions.get("main") or next(iter(program.functions.values()))
    function_ports(description, function)


def function_ports(description: Any, function: Function) -> None:
    """Fill a description's ports with a function's inputs, states and outputs, as arrays."""
    for item in function.inputs:
        _add_port(description.state if isinstance(item.type, StateType) else description.input, item)
    types = _types(function)
    for name in function.block.outputs:
        if name in types:
            _add_port(description.output, NamedType(name, types[name]))


def _types(function: Function) -> dict[str, Any]:
    made = (out for operation in function.block.operations for out in operation.outputs)
    return {item.name: item.type for item in (*function.inputs, *made)}


def _add_port(ports: Any, item: NamedType) -> None:
    port = ports.add(name=item.name)
    kind = item.type.wrapped if isinstance(item.type, StateType) else item.type
    if not isinstance(kind, TensorType):
        return
    array = port.type.stateType.arrayType if isinstance(item.type, StateType) else port.type.multiArrayType
    array.dataType = kind.dtype.array_number
    # The description's numbers are signed, of 64 bits.
    dims = [min(dim or 1, 2**63 - 1) for dim in kind.shape or ()]
    array.shape.extend(dims)
    if None in (kind.shape or ()):
        for dim in kind.shape or ():
            array.shapeRange.sizeRanges.add(lowerBound=dim or 1, upperBound=-1 if dim is None else dim)
