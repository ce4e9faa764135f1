"""Sound inputs to damage: MIL texts, models' protobufs, weight files and a compiled model's description."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from tests.real_models import MODELS
from tlkit.mil import coreml_proto

LARGEST = 150_000
"""A real model past this many bytes is no seed: each case would cost too long."""

TEXTS = [
    """program(1.0)
[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{"coremlc-version", "3404.16.1"}, {"b", "\\"q\\" \\\\ \\x07"}})]
{
    func main<ios16>(tensor<fp32, [1, ?]> x) [FlexibleShapeInformation = tuple<tuple<tensor<string, []>, dict<tensor<string, []>, list<tensor<int32, [2]>, ?>>>>((("RangeDims", {{"x", [[1, 1], [1, 64]]}})))] {
            tensor<fp32, [2, 2]> g = const()[name = tensor<string, []>("g"), val = tensor<fp32, [2, 2]>([[0x1p+0, -0x1.8p+1], [inf, nan]])];
            tensor<fp32, [4, 3]> w = const()[val = tensor<fp32, [4, 3]>(BLOBFILE(path = tensor<string, []>("@model_path/weights/weight.bin"), offset = tensor<uint64, []>(64)))];
            tensor<fp32, [1, 4]> a, tensor<fp32, [1, ?]> b = split(axis = g, values = (x, x), y = tensor<bool, []>(true))[name = tensor<string, []>("s")];
        } -> (a, b);
}
""",  # noqa: E501
    """program(1.3)
{
    func main<ios18>(state<tensor<fp16, [1, 4]>> cache, tensor<fp16, [1, 4]> x) {
            fp16 half = const()[name = string("half"), val = fp16(0x1p-1)];
            write_state(data = x, input = cache)[name = string("w")];
            tensor<int4, [3]> k = const()[val = tensor<int4, [3]>([-8, 0, 7])];
            tensor<fp16, [1, 4]> c = cond(pred = half) {
                block0() {
                    list<tensor<fp16, [4]>, ?> l = make_list(n = int32(3), e = tensor<fp8e4m3fn, [2]>([0x1p+0, nan]));
                } -> (x);
                block1(tensor<bf16, *> q)[hint = tensor<bf16, [1]>([nan(0x7fc1)])] {
                } -> (x);
            };
        } -> (c);
    func other<ios17>() specializations {
        block<ios17>(tensor<uint1, [9]> z) {
        } -> (z);
    }
}
""",
]


def texts() -> list[str]:
    """MIL texts: ours, and the real ones that are here."""
    real = [*MODELS.glob("mil/*.mil"), *MODELS.glob("*/*/model.mil")]
    return TEXTS + [path.read_text() for path in sorted(real)]


def protobufs() -> list[bytes]:
    """Models: one of ours with a bit of everything, and the small real ones that are here."""
    real = [path.read_bytes() for path in sorted(MODELS.glob("**/*.mlmodel")) if path.stat().st_size <= LARGEST]
    return [_model().SerializeToString(), *real]


def weights() -> list[bytes]:
    """A weight file with a record of each kind of width."""
    records = ((2, struct.pack("<2f", 1, 2)), (1, b"\0\x3c\0\xc0"), (8, b"\x0f\x07"), (16, b"\x38\x7f"), (14, bytes(8)))
    out = bytearray(struct.pack("<II56x", len(records), 2))
    for kind, data in records:
        out += struct.pack("<IIQQQ32x", 0xDEADBEEF, kind, len(data), len(out) + 64, 4) + data.ljust(64, b"\0")
    return [bytes(out)]


def descriptions() -> list[bytes]:
    """``coremldata.bin`` files: ours (a neural network, complete by itself, and two programs), and real ones."""
    body = _model().description.SerializeToString()
    tail = b"generic" + struct.pack("<QQQQ", 9, 0, 0, 0) + struct.pack("<Q", len(body)) + body
    network, program = (struct.pack("<IQQQQ", kind, 1, 0, 0, 7) + tail for kind in (500, 502))
    spec = struct.pack("<IQQQQQ", 602, 1, 0, 0, 1, 0) + struct.pack("<Q", 4) + b"spec" + _model().SerializeToString()
    return [network, program, spec, *(path.read_bytes() for path in sorted(MODELS.glob("**/coremldata.bin")))]


def _model() -> Any:
    model = coreml_proto.module("Model_pb2").Model(specificationVersion=9)
    for ports, name in ((model.description.input, "x"), (model.description.output, "y")):
        array = ports.add(name=name).type.multiArrayType
        array.shape.extend([2])
        array.dataType = 65568
    program = model.mlProgram
    program.version = 1
    function = program.functions["main"]
    function.opset = "CoreML8"
    _typed(function.inputs.add(name="x").type, 11, 2)
    block = function.block_specializations["CoreML8"]
    block.outputs.append("y")
    for index, (code, field, values) in enumerate(
        (
            (11, "floats", [1.0, float("nan")]),
            (22, "ints", [1, -1]),
            (1, "bools", [True, False]),
            (2, "strings", ["a", "b"]),
        )
    ):
        value = _const(block, f"c{index}", code)
        getattr(value.immediateValue.tensor, field).values.extend(values)
    _const(block, "c4", 10).immediateValue.tensor.bytes.values = b"\0\x3c\0\x7e"
    _const(block, "c5", 25).immediateValue.tensor.bytes.values = b"\x7f"
    blob = _const(block, "c6", 11)
    blob.blobFileValue.fileName, blob.blobFileValue.offset = "@model_path/weights/weight.bin", 64
    add = block.operations.add(type="add")
    for key, name in (("x", "x"), ("y", "c0")):
        add.inputs[key].arguments.add(name=name)
    _typed(add.outputs.add(name="y").type, 11, 2)
    branch = add.blocks.add()
    branch.outputs.append("x")
    _const(branch, "inner", 11).immediateValue.tensor.floats.values.extend([1, 2])
    return model


def _typed(message: Any, code: int, size: int) -> None:
    message.tensorType.dataType, message.tensorType.rank = code, 1
    message.tensorType.dimensions.add().constant.size = size


def _const(block: Any, name: str, code: int) -> Any:
    operation = block.operations.add(type="const")
    _typed(operation.outputs.add(name=name).type, code, 2)
    value = operation.attributes["val"]
    _typed(value.type, code, 2)
    return value


def write(folder: Path, name: str, data: bytes) -> Path:
    """Put ``data`` in a file of ``folder``."""
    path = folder / name
    path.write_bytes(data)
    return path
