"""Every byte of tensor data is a tensor's, or named as left out: counted by other readers, over real and odd files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnx
import pytest

from tests.formats.generated import generated, needs_faults
from tests.real_models import MODELS, needs_models
from tlkit.errors import TlkitError
from tlkit.formats.base.tensors import TensorFile
from tlkit.formats.describe import open_tensors
from tlkit.mil import coreml_proto

RECORD = 64  # bytes of a weight file's header, and of each of its records
WIDTHS = {"float_data": 4, "int64_data": 8, "double_data": 8, "uint64_data": 8}


def covered(found: TensorFile) -> tuple[dict[str, list[tuple[int, int]]], int]:
    """The spans of files that tensors have, and the bytes of tensors that are not in a file as they are."""
    spans: dict[str, list[tuple[int, int]]] = {}
    loose: dict[str, int] = {}
    for entry in found.entries():
        if entry.offset is None:
            loose[entry.storage or entry.name] = entry.nbytes
        else:
            spans.setdefault(entry.file, []).append((entry.offset, entry.offset + entry.nbytes))
    return spans, sum(loose.values())


def accounted(found: TensorFile) -> int:
    """How many bytes are given, each once, or left out by name."""
    spans, total = covered(found)
    for parts in spans.values():
        last = 0
        for start, end in sorted(parts):
            total += max(end - max(start, last), 0)
            last = max(last, end)
    return total + sum(item.bytes or 0 for item in found.left_out)


def messages(value: Any, name: str) -> Iterator[Any]:
    """Every message of a kind inside a protobuf message, through repeated fields and maps."""
    if value.DESCRIPTOR.name == name:
        yield value
        return
    for field, held in value.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for item in held if not hasattr(held, "ListFields") else (held,):
                yield from messages(item, name)


def in_onnx(path: Path) -> int:
    """The bytes of all tensors of numbers in an ONNX model and in the files beside it that they name."""
    total, beside = 0, set()
    for tensor in messages(onnx.load(path, load_external_data=False), "TensorProto"):
        kept = {item.key: item.value for item in tensor.external_data}
        if kept:
            beside.add(path.parent / kept["location"])
        elif tensor.data_type != onnx.TensorProto.STRING:
            typed = sum(len(getattr(tensor, name)) * width for name, width in WIDTHS.items())
            width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
            packed = tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4, onnx.TensorProto.FLOAT4E2M1)
            total += (
                len(tensor.raw_data) or typed or (len(tensor.int32_data) if packed else width * len(tensor.int32_data))
            )
    return total + sum(file.stat().st_size for file in beside if file.is_file())


def in_mlmodel(path: Path) -> int:
    """The bytes of all weights, scales and tables of a model of before mlprograms."""
    model = coreml_proto.module("Model_pb2").Model()
    model.ParseFromString(path.read_bytes())
    total = 0
    for weight in messages(model, "WeightParams"):
        linear, table = weight.quantization.linearQuantization, weight.quantization.lookupTableQuantization
        numbers = len(weight.floatValue) + len(linear.scale) + len(linear.bias) + len(table.floatValue)
        total += 4 * numbers + len(weight.float16Value) + len(weight.rawValue) + len(weight.int8RawValue)
    return total


@needs_models
@pytest.mark.parametrize("path", sorted(MODELS.glob("mlmodel/*.mlmodel")), ids=lambda path: path.stem)
def test_weights_of_old_models_are_all_there(path: Path) -> None:
    assert accounted(open_tensors(path)) == in_mlmodel(path)


@needs_models
@pytest.mark.parametrize("path", sorted(MODELS.glob("mlp*/*.mlp*")) + sorted(MODELS.glob("mlmodelc/*")), ids=str)
def test_weight_files_hold_no_more_than_tensors_records_and_zeros(path: Path) -> None:
    found = open_tensors(path)
    spans, loose = covered(found)
    files = [file for file in path.rglob("*") if file.parent.name == "weights" or file.name.endswith(".weights")]
    rest = 0
    for file in files:
        data = np.frombuffer(file.read_bytes(), np.uint8).copy()
        for start, end in spans.get(str(file), ()):
            data[start:end] = 0
        rest += int(np.count_nonzero(data))
    inside = in_mlmodel(next(path.rglob("*.mlmodel"))) if any(path.rglob("*.mlmodel")) else 0
    assert rest <= sum(item.bytes or 0 for item in found.left_out) + RECORD * (len(found.entries()) + 1)
    assert inside <= loose


@needs_models
def test_arrays_and_graphs_are_all_there() -> None:
    for path in (MODELS / "oracle").glob("*.npz"):
        assert accounted(open_tensors(path)) == sum(array.nbytes for array in np.load(path).values())
    for path in (MODELS / "oracle").glob("*.onnx"):
        assert accounted(open_tensors(path)) >= in_onnx(path)


@needs_faults
def test_odd_safetensors_and_gguf_files_are_accounted_for() -> None:
    seen = 0
    for path in (*generated("st").glob("*.safetensors"), *generated("gguf").glob("*.gguf")):
        if path.stat().st_size > 1 << 20:
            continue  # 400,000 tensors of a byte each, which take a minute
        try:
            found = open_tensors(path)
        except TlkitError:
            continue  # refused by name
        if path.suffix == ".gguf":
            try:
                reader = gguf.GGUFReader(path)
            except Exception:  # what the package does not read at all
                continue
            files = found.shards or (path,)
            total = sum(len(part.data) - part.data_offset for part in map(gguf.GGUFReader, files) if part.tensors)
            room = reader.alignment * len(found.entries())
        else:
            total, room = path.stat().st_size - 8 - int.from_bytes(path.read_bytes()[:8], "little"), 0
        assert 0 <= total - accounted(found) <= room, path.name
        seen += 1
    assert seen > 35


@needs_faults
def test_odd_onnx_files_are_accounted_for() -> None:
    seen = 0
    for path in generated("onnx").rglob("*.onnx"):
        try:
            found, total = open_tensors(path), in_onnx(path)
        except TlkitError:
            continue
        assert accounted(found) >= total, path.name
        seen += 1
    assert seen > 12


@needs_models
def test_a_zipped_package_is_accounted_for_as_the_folder_is(tmp_path: Path) -> None:
    package = MODELS / "mlpackage/cifar10_netmps4.mlpackage"
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in package.rglob("*"):
            archive.write(file, f"x.mlpackage/{file.relative_to(package)}")
    assert accounted(open_tensors(tmp_path / "x.zip")) == accounted(open_tensors(package))
