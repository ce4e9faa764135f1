"""Compiled Core ML models: an ``.mlmodelc`` folder, or a ``model.mil`` on its own, opened as a :class:`Package`.

A compiled mlprogram is ``model.mil`` (text), ``weights/`` and ``coremldata.bin``; a compiled neural network is
Espresso's ``model.espresso.net`` (JSON), ``.shape`` and ``.weights``; a pipeline nests ``model0``, ``model1``, …
``coremldata.bin`` has no published layout: a kind (the number of the model's field in Core ML's protobuf), some
counters and strings, and somewhere, after its length in eight bytes, the serialised ModelDescription; for the small
kinds (``spec``) the whole Model. What cannot be found becomes a note, and an mlprogram's ports are then its program's.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError
from tlkit.formats.base import sniff
from tlkit.formats.coreml import legacy
from tlkit.formats.coreml.package import LARGEST, Package
from tlkit.formats.files.mapped import read_json, read_whole
from tlkit.formats.files.paths import inside
from tlkit.mil import coreml_proto
from tlkit.mil.program import Function, NamedType, Program, StateType, TensorType
from tlkit.mil.text import api as text

_LENGTH = re.compile(rb"(?=.{5}\x00{3}[\x0a\x52\x5a\xa2])", re.DOTALL)
_WHOLE_MODEL = re.compile(rb"\x04\x00{7}spec")
_VERSION = re.compile(rb"\x07\x00{7}generic(.)\x00{7}", re.DOTALL)
_PIPELINES = {200: "pipelineClassifier", 201: "pipelineRegressor", 202: "pipeline"}
_FILES = ("metadata.json", "coremldata.bin", "model.mil", "model.espresso.net", "model.espresso.weights")
_DEPTH = 8  # pipelines within pipelines
_PLACES = 10_000  # where a description could begin
_DAMAGED = "the file is damaged: fetch or compile it again"
_TELLING = ("computePrecision", "storagePrecision", "availability", "generatedClassName")


@dataclass(frozen=True)
class CompiledPackage(Package):
    """A compiled model. ``network`` is what the Espresso files of it and of its stages list, as ``layers``
    gives it; ``inner`` are a pipeline's stages."""

    network: tuple[tuple[str, str, list[str], list[str]], ...] = field(default=())
    inner: tuple[CompiledPackage, ...] = field(default=())

    def stages(self) -> Iterator[Package]:
        """Yield the models of a pipeline, each from its own folder."""
        yield from self.inner

    @cached_property
    def program(self) -> Program | None:
        """The MIL program, or None where the model is not an mlprogram."""
        if self.model.WhichOneof("Type") != "mlProgram":
            return None
        return _read_program(self.file, self._open_blob)

    def layers(self) -> Iterator[tuple[str, str, list[str], list[str]]]:
        """Yield name, kind, inputs and outputs of each layer, for a neural network."""
        yield from self.network
        yield from legacy.layers(self.model)

    @cached_property
    def faults(self) -> tuple[LoadError, ...]:
        """What is wrong with the weight files, one error a file."""
        weights = self.root / "model.espresso.weights"
        if (self.root / "model.espresso.net").is_file() and not weights.is_file():
            return (LoadError(f"{weights}: the weight file is missing", "fetch or copy the whole folder"),)
        return super().faults


def open_compiled(path: Path) -> CompiledPackage:
    """Open an ``.mlmodelc`` folder or a MIL text; LoadError says what is missing or damaged."""
    if path.is_file():
        package = CompiledPackage(path, path, _model_message("mlProgram"))
        _describe_ports(package)
        return package
    return _open_folder(path, 0)


def _open_folder(root: Path, depth: int) -> CompiledPackage:
    if depth > _DEPTH:
        raise LoadError(f"{root}: pipelines nested deeper than {_DEPTH} levels", "the folder is damaged")
    for name in _FILES:
        inside(root, root, name)
    summary = _metadata(root)
    model, note = _read_model(root, summary)
    stages = _stages(root, model, depth)
    network = tuple(layer for stage in stages for layer in stage.network) or tuple(_espresso(root))
    main = next((f for f in (root / "model.mil", root / "model.espresso.net") if f.is_file()), root / "coremldata.bin")
    notes = tuple(note for stage in stages for note in stage.notes) + ((note,) if note else ())
    extra = {key: summary[key] for key in _TELLING if key in summary}
    package = CompiledPackage(root, main, model, notes, extra, network, tuple(stages))
    if not model.description.ListFields() and main.name == "model.mil":
        _describe_ports(package)
    return package


def _read_model(root: Path, summary: Mapping[str, Any]) -> tuple[Any, str]:
    """Return a Model message with the folder's kind and description, and a note where they are not to be had."""
    file = root / "coremldata.bin"
    guess = "mlProgram" if (root / "model.mil").is_file() else "neuralNetwork"
    model, problem = None, "the model's description is missing"
    if file.is_file():
        data = read_whole(file, LARGEST)
        model, problem = _decode(data, guess), "it holds no model description"
        if data.startswith(sniff.LFS_MAGIC):
            problem = sniff.lfs_text(file)
    note = "" if model else f"{file}: {problem}"
    model = model or _model_message(guess)
    version = summary.get("specificationVersion")
    if isinstance(version, int) and 0 < version < 1000:
        model.specificationVersion = version
    return model, note


def _decode(data: bytes, guess: str) -> Any | None:
    """Return the Model that ``coremldata.bin`` describes (its body empty, but for the small kinds), or None."""
    whole = _WHOLE_MODEL.search(data, 0, 4096)
    if whole:
        return _parsed("Model", data[whole.end() :])
    description = _find_description(data)
    if description is None:
        return None
    fields = coreml_proto.module("Model_pb2").Model.DESCRIPTOR.fields_by_number
    number = struct.unpack_from("<I", data)[0]
    kind = fields[number].name if number in fields and number >= 200 else guess
    model = _model_message(kind)
    model.description.CopyFrom(description)
    version = _VERSION.search(data, 0, 4096)
    if version:
        model.specificationVersion = version[1][0]
    return model


def _find_description(data: bytes) -> Any | None:
    """Try the places that could be a length followed by a description; the work is bounded."""
    budget = 8 * len(data)
    for match in islice(_LENGTH.finditer(data), _PLACES):
        start = match.start() + 8
        (size,) = struct.unpack_from("<Q", data, match.start())
        if size < 8 or size > len(data) - start:
            continue
        budget -= size
        if budget < 0:
            return None
        found = _parsed("ModelDescription", data[start : start + size])
        if found is not None and _is_description(found):
            return found
    return None


def _is_description(message: Any) -> bool:
    ports = [*message.input, *message.output, *(port for f in message.functions for port in (*f.input, *f.output))]
    return bool(ports) and all(port.name and port.type.WhichOneof("Type") for port in ports)


def _parsed(name: str, data: bytes) -> Any | None:
    from google.protobuf.message import DecodeError

    message = getattr(coreml_proto.module("Model_pb2"), name)()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return None
    return message


def _model_message(kind: str) -> Any:
    model = coreml_proto.module("Model_pb2").Model()
    getattr(model, kind).SetInParent()
    return model


def _stages(root: Path, model: Any, depth: int) -> list[CompiledPackage]:
    """Open the models inside a pipeline and put them into its message, where a pipeline's stages are looked for."""
    if model.WhichOneof("Type") not in _PIPELINES.values():
        return []
    folders = sorted(
        (p for p in root.glob("model[0-9]*") if p.is_dir() and p.name[5:].isdigit()), key=lambda p: int(p.name[5:])
    )
    stages = [_open_folder(inside(root, root, folder.name), depth + 1) for folder in folders]
    inner = getattr(model, model.WhichOneof("Type"))
    pipeline = inner if model.WhichOneof("Type") == "pipeline" else inner.pipeline
    for stage in stages:
        pipeline.models.add().CopyFrom(stage.model)
        model.specificationVersion = max(model.specificationVersion, stage.model.specificationVersion)
    return stages


def _espresso(root: Path) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Yield the layers that ``model.espresso.net`` lists."""
    net = root / "model.espresso.net"
    layers = _json(net).get("layers") if net.is_file() else ()
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, dict):
            inputs, outputs = (_split(layer.get(key)) for key in ("bottom", "top"))
            yield str(layer.get("name", "")), str(layer.get("type", "unknown")), inputs, outputs


def _split(names: Any) -> list[str]:
    return [name for name in names.split(",") if name] if isinstance(names, str) else []


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
    dims = [min(dim or 1, 2**63 - 1) for dim in kind.shape or ()]
    array.shape.extend(dims)
    if None in (kind.shape or ()):
        for dim in kind.shape or ():
            array.shapeRange.sizeRanges.add(lowerBound=dim or 1, upperBound=-1 if dim is None else dim)
