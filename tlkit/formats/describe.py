"""Describe any model file: recognise its format by content, then ask that format's reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError, UsageError
from tlkit.formats.base import sniff
from tlkit.formats.base.sniff import COREML, Format
from tlkit.formats.base.tensors import TensorEntry, TensorFile
from tlkit.types import Metadata, ModelInfo, TensorSpec

FORMATS = {
    "coreml": Format.MLMODEL,
    "safetensors": Format.SAFETENSORS,
    "gguf": Format.GGUF,
    "pytorch": Format.PYTORCH,
    "onnx": Format.ONNX,
    "numpy": Format.NUMPY,
}
"""The values of ``--format``, which overrides what a file's content suggests."""

_PYTORCH = (Format.PYTORCH, Format.TORCHSCRIPT, Format.TORCH_EXPORT, Format.PICKLE)
_UNREAD = {
    Format.AIMODEL: "Apple's Core AI tools (coreai-core) read it; give tlkit the PyTorch model it was made from",
    Format.TFLITE: "convert it to ONNX with tf2onnx, or start from its source",
    Format.SAVED_MODEL: "convert it with coremltools, or start from its source",
    Format.HDF5: "load it with Keras and save its weights as .npz",
    Format.KERAS: "load it with Keras and save its weights as .npz",
    Format.ZIP: "unzip it and name what is inside",
    Format.IMAGE: "name a model file; an image goes to `tlkit run --input`",
}
_GGUF_SHOWN = (
    "general.architecture",
    "general.name",
    "general.description",
    "general.author",
    "general.license",
    "general.alignment",
    "general.file_type",
    "general.quantization_version",
)
_NUMPY_NAMES = {"F32": "float32", "F16": "float16", "F64": "float64", "I32": "int32", "I64": "int64", "BOOL": "bool"}


def find_format(path: Path, wanted: str | None = None) -> Format:
    """Return the format of ``path``, or the one named ``wanted``; LoadError for a git-lfs pointer or an unread
    format."""
    if wanted is not None and wanted not in FORMATS:
        raise UsageError(f"unknown format '{wanted}'", f"formats are {', '.join(FORMATS)}")
    found = sniff.detect(path) if wanted is None or path.is_dir() else FORMATS[wanted]
    if found is Format.LFS_POINTER:
        raise LoadError(f"{path}: {sniff.lfs_text(path)}", "run `git lfs pull` in its repository")
    if found is Format.ZIP:
        from tlkit.formats.base.strangers import zip_stranger  # late: few files are zips that are not models

        if (inside := zip_stranger(path)) is not None:
            raise LoadError(f"{path}: {inside[0]}", inside[1])
    if found in _UNREAD:
        raise LoadError(f"{path}: {found}, which tlkit does not read", _UNREAD[found])
    return found


def open_tensors(path: Path, wanted: str | None = None, stage: int | str | None = None) -> TensorFile:
    """Open the tensors of any model file; LoadError where it is damaged. ``wanted`` is one of FORMATS; ``stage`` is one
    of a Core ML pipeline's, whose tensors are then all."""
    found = find_format(path, wanted)
    if found is Format.SAFETENSORS:
        from tlkit.formats.safetensors.read import SafeTensorsFile

        return SafeTensorsFile(path)
    if found is Format.GGUF:
        from tlkit.formats.gguf.read import GGUFFile

        return GGUFFile(path)
    if found in _PYTORCH:
        from tlkit.formats.torch.sharded import open_pytorch

        return open_pytorch(path)
    if found is Format.ONNX:
        from tlkit.formats.onnx import OnnxFile

        return OnnxFile(path)
    if found is Format.NUMPY:
        from tlkit.formats.numpy_files import NumpyFile

        return NumpyFile(path)
    from tlkit.formats.coreml.open import open_package
    from tlkit.formats.coreml.tensors import CoreMLTensors

    package = open_package(path)
    if found is Format.ZIPPED_MLPACKAGE:
        from tlkit.formats.coreml.zipped import ZippedPackage, unpack

        assert isinstance(package, ZippedPackage)
        unpacked = open_package(unpack(package))
        tensors = CoreMLTensors(unpacked if stage is None else unpacked.stage(stage), keep=package)
        tensors.left_out = (
            package if stage is None else package.stage(stage)
        ).left_out  # what is not unpacked counts, too
        return tensors
    return CoreMLTensors(package if stage is None else package.stage(stage))


def describe(path: Path, wanted: str | None = None) -> ModelInfo:
    """Describe the model at ``path``, whatever its format."""
    if find_format(path, wanted) in COREML:
        from tlkit.formats.coreml.describe import describe as describe_coreml

        return describe_coreml(path)
    return describe_tensors(open_tensors(path, wanted))


def describe_tensors(file: TensorFile) -> ModelInfo:
    """Describe an opened file of tensors (of any format but Core ML's, which ``coreml/describe.py`` describes)."""
    describers = {"SafeTensors": _safetensors, "GGUF": _gguf, "PyTorch": _pytorch, "ONNX": _onnx}
    info = describers.get(file.format, _numpy)(file)
    shares = _shares(file.entries())
    found = replace(
        info,
        parameters=sum(shares.values()),
        weights=shares,
        sizes=_sizes(file),
        notes=tuple(file.notes),
        left_out=tuple(file.left_out),
        details={key: value for key, value in info.details.items() if value not in (None, "", [], {}, ())},
    )
    if not found.metadata.quantization:
        found = replace(found, metadata=replace(found.metadata, quantization=next(iter(shares), "")))
    return found


def _unique(entries: Sequence[TensorEntry]) -> list[TensorEntry]:
    """Drop tensors that are another tensor under a second name."""
    seen: set[Any] = set()
    kept = []
    for entry in entries:
        # Without an offset only the name tells one tensor from another.
        place = (entry.file, entry.offset if entry.offset is not None else entry.name, entry.dtype, entry.shape)
        if not entry.storage or place not in seen:
            kept.append(entry)
        seen.add(place)
    return kept


def _shares(entries: Sequence[TensorEntry]) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for entry in _unique(entries):
        counted[entry.dtype] += entry.elements
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _sizes(file: TensorFile) -> dict[str, int]:
    files = file.shards or [file.path]
    sizes = [item.stat().st_size for item in files if item.is_file()]
    return {f"{len(sizes)} files": sum(sizes)} if len(sizes) > 1 else {"model": sum(sizes)}


def _shared(entries: Sequence[TensorEntry]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for entry in entries:
        if entry.storage:
            groups.setdefault(entry.storage, []).append(entry.name)
    return [names for names in groups.values() if len(names) > 1]


def _text(metadata: Mapping[str, Any], *keys: str) -> str:
    return next((str(metadata[key]) for key in keys if isinstance(metadata.get(key), str | int | float)), "")


def _safetensors(file: Any) -> ModelInfo:
    from tlkit.formats.gguf.model.architectures import ARCHITECTURES
    from tlkit.formats.gguf.model.tokenizer_files import TokenizerFiles
    from tlkit.formats.safetensors.read import folder_config

    config = folder_config(file.path)
    row = ARCHITECTURES.get(str(config.get("model_type", "")))
    folder = file.path if file.path.is_dir() else file.path.parent
    architectures = config.get("architectures")
    names = [name for name in architectures if isinstance(name, str)] if isinstance(architectures, list) else []
    known = ("hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings", "torch_dtype", "dtype")
    details: dict[str, Any] = {
        "files": len(file.shards) if len(file.shards) > 1 else None,
        "architecture": ", ".join(names) or _text(config, "model_type"),
        "quantized": str(file.scheme) if file.scheme else "",
        "llama_cpp": row.name if row and TokenizerFiles(folder).there else "",
        "config": {key: config[key] for key in known if isinstance(config.get(key), str | int | float)},
    }
    metadata = Metadata(
        "SafeTensors",
        "",
        author=_text(file.metadata, "modelspec.author", "author"),
        description=_text(file.metadata, "modelspec.description", "description"),
        license=_text(file.metadata, "modelspec.license", "license"),
        user=dict(file.metadata),
    )
    return ModelInfo(str(file.path), metadata, "weights", details=details)


def _gguf(file: Any) -> ModelInfo:
    from tlkit.formats.gguf.describe import describe_gguf, quantization

    details, known = describe_gguf(file), file.metadata
    shown = {
        key: str(value)
        for key, value in known.items()
        if isinstance(value, str | int | float) and key.startswith("general.") and key not in _GGUF_SHOWN
    }
    metadata = Metadata(
        "GGUF",
        quantization(file),
        author=_text(known, "general.author", "general.organization"),
        description=_text(known, "general.description", "general.name"),
        license=_text(known, "general.license"),
        version=_text(known, "general.version"),
        user=shown,
    )
    return ModelInfo(str(file.path), metadata, details.get("architecture", "weights"), details=details)


def _pytorch(file: Any) -> ModelInfo:
    from tlkit.formats.torch.pickle import unexpected

    details = dict(file.details)
    inputs, outputs = (tuple(_spec(port) for port in details.pop(key, ())) for key in ("inputs", "outputs"))
    operations = details.pop("operations", {})
    foreign = unexpected(file.imports)
    details |= {"imports": list(file.imports), "unexpected_imports": list(foreign), "shared": _shared(file.entries())}
    details["holds"] = dict(file.metadata) if file.kind in ("checkpoint", "pickle") else {}
    return ModelInfo(
        str(file.path),
        Metadata("PyTorch", ""),
        file.kind,
        inputs,
        outputs,
        operations=dict(sorted(operations.items(), key=lambda item: -item[1])),
        details=details,
    )


def _spec(port: Mapping[str, Any]) -> TensorSpec:
    dims, dtype = port["shape"], port["dtype"]
    ranges = tuple((dim, dim) if isinstance(dim, int) else (1, None) for dim in dims)
    shape = tuple(dim if isinstance(dim, int) else 1 for dim in dims)
    flexible = any(not isinstance(dim, int) for dim in dims)
    return TensorSpec(port["name"], _NUMPY_NAMES.get(dtype, dtype.lower()), shape, ranges=ranges if flexible else ())


def _onnx(file: Any) -> ModelInfo:
    inputs, outputs = (
        tuple(_spec({"name": name, "dtype": dtype, "shape": shape}) for name, dtype, shape in ports)
        for ports in (file.inputs, file.outputs)
    )
    details = {"producer": file.producer, "ir_version": file.ir_version, "opsets": file.opsets}
    description = _text(file.metadata, "doc")
    user = {key: str(value) for key, value in file.metadata.items() if key != "doc" and value is not None}
    return ModelInfo(
        str(file.path),
        Metadata("ONNX", "", description=description, user=user),
        "graph",
        inputs,
        outputs,
        opset=f"ai.onnx {file.opsets['ai.onnx']}" if "ai.onnx" in file.opsets else "",
        operations=dict(file.operations.most_common()),
        details=details,
    )


def _numpy(file: Any) -> ModelInfo:
    return ModelInfo(str(file.path), Metadata("NumPy", ""), "arrays")
