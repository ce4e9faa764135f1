"""Core ML packages written byte by byte, for tests of what reads, describes and runs them.

Nothing of tlkit's readers is used: messages come from coremltools' generated protobuf modules, weight files are packed
here from the layout that MILBlob publishes.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.mil import coreml_proto

MIL, FEATURES = coreml_proto.module("MIL_pb2"), coreml_proto.module("FeatureTypes_pb2")
MODEL = coreml_proto.module("Model_pb2")
TYPES = {"fp16": MIL.FLOAT16, "fp32": MIL.FLOAT32, "int32": MIL.INT32, "string": MIL.STRING, "int64": MIL.INT64}
TYPES |= {
    "uint4": MIL.UINT4,
    "int4": MIL.INT4,
    "int8": MIL.INT8,
    "uint8": MIL.UINT8,
    "uint1": MIL.UINT1,
    "bool": MIL.BOOL,
}
ARRAYS = FEATURES.ArrayFeatureType
_BLOB_CODES = {"fp16": 1, "fp32": 2, "uint8": 3, "int8": 4, "int4": 8, "uint1": 9, "uint4": 11}


class Weights:
    """A version 2 weight file in the making."""

    def __init__(self) -> None:
        self._data = bytearray(64)
        self._count = 0

    def add(self, dtype: str, payload: bytes) -> int:
        """Append a record; return the offset of its descriptor."""
        offset = len(self._data)
        self._data += struct.pack("<IIQQQ", 0xDEADBEEF, _BLOB_CODES[dtype], len(payload), offset + 64, 0).ljust(
            64, b"\0"
        )
        self._data += payload + b"\0" * (-len(payload) % 64)
        self._count += 1
        return offset

    def done(self) -> bytes:
        struct.pack_into("<II", self._data, 0, self._count, 2)
        return bytes(self._data)


def tensor_type(dtype: str, *shape: int) -> Any:
    kind = MIL.ValueType()
    kind.tensorType.dataType = TYPES[dtype]
    kind.tensorType.rank = len(shape)
    for size in shape:
        kind.tensorType.dimensions.add().constant.size = size
    return kind


def stored(dtype: str, offset: int, *shape: int) -> Any:
    value = MIL.Value(type=tensor_type(dtype, *shape))
    value.blobFileValue.fileName = "@model_path/weights/weight.bin"
    value.blobFileValue.offset = offset
    return value


def immediate(dtype: str, data: Any) -> Any:
    array = np.asarray(data)
    value = MIL.Value(type=tensor_type(dtype, *array.shape))
    tensor = value.immediateValue.tensor
    if dtype == "string":
        tensor.strings.values.extend(array.ravel().tolist())
    elif dtype == "fp16":
        tensor.bytes.values = array.astype("<f2").tobytes()
    elif dtype == "bool":
        tensor.bools.values.extend(array.ravel().astype(bool).tolist())
    elif dtype == "fp32":
        tensor.floats.values.extend(array.ravel().tolist())
    else:
        tensor.ints.values.extend(array.ravel().tolist())
    return value


def string_list(items: list[str]) -> Any:
    value = MIL.Value()
    value.type.listType.type.CopyFrom(tensor_type("string"))
    value.type.listType.length.constant.size = len(items)
    for item in items:
        value.immediateValue.list.values.add().CopyFrom(immediate("string", item))
    return value


class Body:
    """The ``main`` function of a program in the making."""

    def __init__(self, opset: str = "CoreML7") -> None:
        self.message = MIL.Program(version=1)
        self._function = self.message.functions["main"]
        self._function.opset = opset
        self.block = self._function.block_specializations[opset]

    def input(self, name: str, kind: Any) -> None:
        self._function.inputs.add(name=name).type.CopyFrom(kind)

    def const(self, name: str, value: Any) -> str:
        operation = self.block.operations.add(type="const")
        operation.attributes["name"].CopyFrom(immediate("string", name))
        operation.attributes["val"].CopyFrom(value)
        operation.outputs.add(name=name).type.CopyFrom(value.type)
        return name

    def op(
        self, kind: str, outputs: dict[str, Any], inputs: dict[str, str], attributes: dict[str, Any] | None = None
    ) -> None:
        operation = self.block.operations.add(type=kind)
        operation.attributes["name"].CopyFrom(immediate("string", next(iter(outputs))))
        for key, value in (attributes or {}).items():
            operation.attributes[key].CopyFrom(value)
        for key, name in inputs.items():
            operation.inputs[key].arguments.add(name=name)
        for name, type_ in outputs.items():
            operation.outputs.add(name=name).type.CopyFrom(type_)

    def returns(self, *names: str) -> None:
        self.block.outputs.extend(names)


def write(folder: Path, model: Any, weights: bytes | None = None) -> Path:
    """Write ``folder`` as a .mlpackage around ``model``."""
    data = folder / "Data/com.apple.CoreML"
    data.mkdir(parents=True)
    (data / "model.mlmodel").write_bytes(model.SerializeToString())
    common = {"author": "com.apple.CoreML", "description": "part of a test"}
    entries = {"A": {"name": "model.mlmodel", "path": "com.apple.CoreML/model.mlmodel", **common}}
    if weights is not None:
        (data / "weights").mkdir()
        (data / "weights/weight.bin").write_bytes(weights)
        entries["B"] = {"name": "weights", "path": "com.apple.CoreML/weights", **common}
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": "A"}
    (folder / "Manifest.json").write_text(json.dumps(manifest))
    return folder


def array_feature(feature: Any, name: str, dtype: int, *shape: int) -> Any:
    feature.name = name
    feature.type.multiArrayType.dataType = dtype
    feature.type.multiArrayType.shape.extend(shape)
    return feature


LABELS = ["zero", "one", "two"]
MATRIX = np.arange(12, dtype=np.float16).reshape(3, 4) / 8
BIAS = np.array([0.5, -0.5, 0.25], np.float16)


def linear(folder: Path) -> Path:
    """``y = MATRIX x + BIAS``: f16 between f32 ports, ``x`` 1x4, the matrix in the weight file."""
    weights = Weights()
    offset = weights.add("fp16", MATRIX.tobytes())
    body = Body()
    body.input("x", tensor_type("fp32", 1, 4))
    _linear(body, offset)
    body.op(
        "cast", {"y": tensor_type("fp32", 1, 3)}, {"x": "z", "dtype": body.const("to32", immediate("string", "fp32"))}
    )
    body.returns("y")
    model = MODEL.Model(specificationVersion=8)
    array_feature(model.description.input.add(), "x", ARRAYS.FLOAT32, 1, 4)
    array_feature(model.description.output.add(), "y", ARRAYS.FLOAT32, 1, 3)
    model.mlProgram.CopyFrom(body.message)
    return write(folder, model, weights.done())


def classifier(folder: Path) -> Path:
    """Softmax over :func:`linear` of a 2x2 grey image's pixels / 255, with :data:`LABELS`."""
    weights = Weights()
    offset = weights.add("fp16", MATRIX.tobytes())
    body = Body()
    body.input("image", tensor_type("fp32", 1, 1, 2, 2))
    body.op(
        "mul",
        {"scaled": tensor_type("fp32", 1, 1, 2, 2)},
        {"x": "image", "y": body.const("scale", immediate("fp32", 1 / 255))},
    )
    body.op(
        "reshape",
        {"x": tensor_type("fp32", 1, 4)},
        {"x": "scaled", "shape": body.const("shape", immediate("int32", [1, 4]))},
    )
    _linear(body, offset)
    body.op("softmax", {"p": tensor_type("fp16", 1, 3)}, {"x": "z", "axis": body.const("axis", immediate("int32", -1))})
    body.op(
        "cast", {"q": tensor_type("fp32", 1, 3)}, {"x": "p", "dtype": body.const("to32", immediate("string", "fp32"))}
    )
    dictionary = MIL.ValueType()
    dictionary.dictionaryType.keyType.CopyFrom(tensor_type("string"))
    dictionary.dictionaryType.valueType.CopyFrom(tensor_type("fp32"))
    body.op(
        "classify",
        {"label": tensor_type("string"), "label_probs": dictionary},
        {"probabilities": "q", "classes": body.const("classes", string_list(LABELS))},
    )
    body.returns("label", "label_probs")
    model = MODEL.Model(specificationVersion=8)
    image = model.description.input.add(name="image").type.imageType
    image.width = image.height = 2
    image.colorSpace = FEATURES.ImageFeatureType.GRAYSCALE
    model.description.output.add(name="label").type.stringType.SetInParent()
    model.description.output.add(name="label_probs").type.dictionaryType.stringKeyType.SetInParent()
    model.description.predictedFeatureName = "label"
    model.description.predictedProbabilitiesName = "label_probs"
    metadata = model.description.metadata
    metadata.author, metadata.shortDescription, metadata.license = "A. Author", "Three classes", "MIT"
    metadata.userDefined["com.github.apple.coremltools.version"] = "9.0"
    metadata.userDefined["com.github.apple.coremltools.source"] = "torch==2.13.0"
    metadata.userDefined["note"] = "kept"
    model.mlProgram.CopyFrom(body.message)
    return write(folder, model, weights.done())


def relu(path: Path, dims: tuple[int | None, ...], shape: tuple[int, ...], dtype: str = "fp32", **ports: Any) -> Path:
    """``y = relu(x)``; a None in ``dims`` is a length that the program leaves open."""
    kind = tensor_type(dtype, *(size or 1 for size in dims))
    for dimension, size in zip(kind.tensorType.dimensions, dims, strict=True):
        if size is None:
            dimension.unknown.SetInParent()
    body = Body(ports.get("opset", "CoreML7"))
    body.input("x", kind)
    body.op("relu", {"y": kind}, {"x": "x"})
    body.returns("y")
    model = MODEL.Model(specificationVersion=ports.get("version", 8))
    number = {"fp16": ARRAYS.FLOAT16, "fp32": ARRAYS.FLOAT32}[dtype]
    array_feature(model.description.input.add(), "x", number, *shape)
    array_feature(model.description.output.add(), "y", number)
    model.mlProgram.CopyFrom(body.message)
    return write(path, model)


def stack(folder: Path, layers: int, width: int) -> Path:
    """``layers`` products with f16 matrices [width, width], each over a relu; ``x`` and ``y`` are 1 x width in f16."""
    weights, body, rng = Weights(), Body(), np.random.default_rng(0)
    body.input("x", tensor_type("fp16", 1, width))
    last = "x"
    for place in range(layers):
        matrix = (rng.standard_normal((width, width), np.float32) * np.sqrt(2 / width)).astype(np.float16)
        weight = body.const(f"w{place}", stored("fp16", weights.add("fp16", matrix.tobytes()), width, width))
        body.op("linear", {f"z{place}": tensor_type("fp16", 1, width)}, {"x": last, "weight": weight})
        last = "y" if place == layers - 1 else f"r{place}"
        body.op("relu", {last: tensor_type("fp16", 1, width)}, {"x": f"z{place}"})
    body.returns("y")
    model = MODEL.Model(specificationVersion=8)
    array_feature(model.description.input.add(), "x", ARRAYS.FLOAT16, 1, width)
    array_feature(model.description.output.add(), "y", ARRAYS.FLOAT16, 1, width)
    model.mlProgram.CopyFrom(body.message)
    return write(folder, model, weights.done())


def ceil_pool(path: Path) -> Path:
    """``y``: the averages of 2x2 windows of ``x`` 1x1x7x7, three apart, the last of which hang over the end."""
    body = Body()
    body.input("x", tensor_type("fp32", 1, 1, 7, 7))
    settings = {"kernel_sizes": immediate("int32", [2, 2]), "strides": immediate("int32", [3, 3])}
    settings |= {"pad_type": immediate("string", "valid"), "pad": immediate("int32", [0, 0, 0, 0])}
    settings |= {"exclude_padding_from_average": immediate("bool", False), "ceil_mode": immediate("bool", True)}
    constants = {name: body.const(name, value) for name, value in settings.items()}
    body.op("avg_pool", {"y": tensor_type("fp32", 1, 1, 3, 3)}, {"x": "x", **constants})
    body.returns("y")
    model = MODEL.Model(specificationVersion=8)
    array_feature(model.description.input.add(), "x", ARRAYS.FLOAT32, 1, 1, 7, 7)
    array_feature(model.description.output.add(), "y", ARRAYS.FLOAT32, 1, 1, 3, 3)
    model.mlProgram.CopyFrom(body.message)
    return write(path, model)


def two_listed(path: Path, first: list[tuple[int, ...]], second: list[tuple[int, ...]]) -> Path:
    """``y = a + b``, each of one of the shapes that it lists (iOS18)."""
    kind = tensor_type("fp32", 1, 1)
    for dimension in kind.tensorType.dimensions:
        dimension.unknown.SetInParent()
    body = Body("CoreML8")
    model = MODEL.Model(specificationVersion=9)
    for name, shapes in (("a", first), ("b", second)):
        body.input(name, kind)
        port = array_feature(model.description.input.add(), name, ARRAYS.FLOAT32, *shapes[0]).type.multiArrayType
        for shape in shapes:
            port.enumeratedShapes.shapes.add().shape.extend(shape)
    body.op("add", {"y": kind}, {"x": "a", "y": "b"})
    body.returns("y")
    array_feature(model.description.output.add(), "y", ARRAYS.FLOAT32)
    model.mlProgram.CopyFrom(body.message)
    return write(path, model)


def accumulator(path: Path) -> Path:
    """Two functions, ``first`` (the default) and ``second``: the state ``sum`` grows by ``x`` and is ``y``."""
    kind = tensor_type("fp32", 1)
    program = None
    model = MODEL.Model(specificationVersion=9)
    for name in ("first", "second"):
        body = Body("CoreML8")
        body.input("x", kind)
        state = type(kind)()
        state.stateType.wrappedType.CopyFrom(kind)
        body.input("sum", state)
        body.op("read_state", {"before": kind}, {"input": "sum"})
        body.op("add", {"y": kind}, {"x": "before", "y": "x"})
        update = body.block.operations.add(type="write_state")
        update.inputs["input"].arguments.add(name="sum")
        update.inputs["data"].arguments.add(name="y")
        body.returns("y")
        if program is None:
            program = type(body.message)(version=1)
        program.functions[name].CopyFrom(body.message.functions["main"])
        description = model.description.functions.add(name=name)
        array_feature(description.input.add(), "x", ARRAYS.FLOAT32, 1)
        array_feature(description.output.add(), "y", ARRAYS.FLOAT32, 1)
        feature = description.state.add(name="sum").type.stateType.arrayType
        feature.dataType = ARRAYS.FLOAT32
        feature.shape.append(1)
    model.description.defaultFunctionName = "first"
    assert program is not None
    model.mlProgram.CopyFrom(program)
    return write(path, model)


def _linear(body: Body, offset: int) -> None:
    body.op(
        "cast", {"x16": tensor_type("fp16", 1, 4)}, {"x": "x", "dtype": body.const("to16", immediate("string", "fp16"))}
    )
    matrix = body.const("matrix", stored("fp16", offset, 3, 4))
    bias = body.const("bias", immediate("fp16", BIAS))
    body.op("linear", {"z": tensor_type("fp16", 1, 3)}, {"x": "x16", "weight": matrix, "bias": bias})


def unlike_any(path: Path) -> Path:
    """A package as --force may replace it, with one file that no conversion writes: ``Data/old``. Returns the file."""
    (path / "Data").mkdir(parents=True)
    (path / "Manifest.json").write_text(json.dumps({"itemInfoEntries": {"1": {"path": "old"}}}))
    (path / "Data" / "old").write_text("old")
    return path / "Data" / "old"
