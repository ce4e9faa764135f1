"""A program in f16 made one in f32: types, constants and casts; its ports keep their types, by casts at its edges.

No bit comes back that f16 has cut off the weights: what changes is that the arithmetic no longer rounds to f16.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.errors import UsageError
from tlkit.formats.coreml.edit.dtypes import set_input_dtype, set_output_dtype
from tlkit.formats.coreml.edit.message import FLOAT16, GRAYSCALE_FLOAT16, Interface, every_block, interfaces
from tlkit.formats.coreml.package import Package
from tlkit.mil.blob import BlobFile, BlobWriter
from tlkit.mil.types import DType

_FP16, _FP32, _ARRAY_FLOAT32 = 10, 11, 65568  # MIL's DataType, FeatureTypes' ArrayDataType
WEIGHTS = "@model_path/weights/weight.bin"
"""The one weight file of what is written, as the program calls it."""


def is_half(model: Any) -> bool:
    """Whether any operation of the mlprogram ``model`` gives f16."""
    blocks = (block for target in interfaces(model) for body in target.blocks() for block in every_block(body))
    kinds = (item.type for block in blocks for operation in block.operations for item in operation.outputs)
    return any(kind.tensorType.dataType == _FP16 for kind in kinds)


def widen(package: Package, model: Any, weights: Path) -> None:
    """Make ``model`` (a copy of the package's message) compute in f32, its constants rewritten to the file ``weights``.

    Raises UsageError for what has to be f16: states, and images of that type.
    """
    targets = interfaces(model)
    ports = [(target, kind, name) for target in targets for kind, name in _half_ports(target)]
    for target, kind, name in ports:  # for now; casts take them back
        feature = target.port(kind, name)
        assert feature is not None
        feature.type.multiArrayType.dataType = _ARRAY_FLOAT32
    with _Widener(package, weights) as widener:
        for function in model.mlProgram.functions.values():
            for item in function.inputs:
                _widen_type(item.type)
            for body in function.block_specializations.values():
                for block in every_block(body):
                    widener.widen_block(block)
    for target, kind, name in ports:
        (set_input_dtype if kind == "input" else set_output_dtype)(target, name, "float16")


def _half_ports(target: Interface) -> Iterator[tuple[str, str]]:
    for kind in ("input", "output", "state"):
        for feature in getattr(target.description, kind):
            which = feature.type.WhichOneof("Type")
            if which == "stateType":
                raise UsageError(f"the state '{feature.name}' has to be f16", "leave the precision as it is")
            if which == "imageType" and feature.type.imageType.colorSpace == GRAYSCALE_FLOAT16:
                raise UsageError(f"the image '{feature.name}' has to be f16", "leave the precision as it is")
            if which == "multiArrayType" and feature.type.multiArrayType.dataType == FLOAT16:
                yield kind, feature.name


class _Widener:
    """The constants of a program on their way to a new weight file: each is read and written once."""

    def __init__(self, package: Package, weights: Path) -> None:
        self._package, self._path = package, weights
        self._files: dict[str, BlobFile] = {}
        self._moved: dict[tuple[str, int], int] = {}

    def __enter__(self) -> _Widener:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("wb")
        self._writer = BlobWriter(self._file)
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close() if error[0] else self._writer.close()

    def widen_block(self, block: Any) -> None:
        for item in block.inputs:
            _widen_type(item.type)
        for operation in block.operations:
            for item in operation.outputs:
                _widen_type(item.type)
            for value in operation.attributes.values():
                self._widen_value(value)
            for given in operation.inputs.values():
                for argument in given.arguments:
                    if argument.WhichOneof("binding") == "value":
                        self._widen_value(argument.value)

    def _widen_value(self, value: Any) -> None:
        half = value.type.tensorType.dataType == _FP16
        if value.WhichOneof("value") == "blobFileValue":
            found = value.blobFileValue
            found.offset = self._moved_to(found.fileName, found.offset)
            found.fileName = WEIGHTS
        else:
            _widen_immediate(value.immediateValue, half)
        _widen_type(value.type)

    def _moved_to(self, name: str, offset: int) -> int:
        if (name, offset) not in self._moved:
            if name not in self._files:
                self._files[name] = BlobFile(self._package.blob_path(name))
            file = self._files[name]
            record = file.record(offset)
            data, dtype = file.data(record), record.dtype
            if dtype is DType.FP16:
                wide = np.frombuffer(data, "<f2").astype("<f4")
                self._moved[name, offset] = self._writer.add(DType.FP32, wide.data)
            else:
                padding = record.nbytes * 8 - record.count * dtype.bits if dtype.bits < 8 else 0
                self._moved[name, offset] = self._writer.add(dtype, data, padding)
            file.release()
        return self._moved[name, offset]


def _widen_type(kind: Any) -> None:
    which = kind.WhichOneof("type")
    if which == "tensorType" and kind.tensorType.dataType == _FP16:
        kind.tensorType.dataType = _FP32
    elif which == "listType":
        _widen_type(kind.listType.type)
    elif which == "tupleType":
        for part in kind.tupleType.types:
            _widen_type(part)
    elif which == "dictionaryType":
        _widen_type(kind.dictionaryType.keyType)
        _widen_type(kind.dictionaryType.valueType)


def _widen_immediate(immediate: Any, half: bool) -> None:
    which = immediate.WhichOneof("value")
    if which in ("tuple", "list"):
        for part in getattr(immediate, which).values:
            _widen_immediate(part.immediateValue, part.type.tensorType.dataType == _FP16)
            _widen_type(part.type)
    if which != "tensor":
        return
    tensor = immediate.tensor
    if half and tensor.WhichOneof("value") == "bytes":
        numbers = np.frombuffer(tensor.bytes.values, "<f2").astype(np.float32).tolist()
        tensor.floats.values.extend(numbers)  # which unsets the bytes
    elif tensor.WhichOneof("value") == "strings" and list(tensor.strings.values) == ["fp16"]:
        tensor.strings.values[0] = "fp32"  # what a cast makes
