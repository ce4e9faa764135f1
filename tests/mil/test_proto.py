"""Reading programs from protobuf, against coremltools' own loader; damage is a LoadError or a smaller program.

Covers tlkit/mil/collector.py, tlkit/mil/coreml_proto.py, tlkit/mil/decode.py, tlkit/mil/program.py,
tlkit/mil/types.py.
"""

from __future__ import annotations

import math
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.real_models import MODELS, needs_models
from tlkit.errors import LoadError
from tlkit.mil import collector, coreml_proto
from tlkit.mil.blob import BlobFile
from tlkit.mil.program import Operation, Program, StateType, TensorType, Value, walk
from tlkit.mil.proto import parse_model, read_program
from tlkit.mil.types import DType

PACKAGES = sorted(p for p in MODELS.glob("mlpackage/*.mlpackage") if (p / "Data/com.apple.CoreML/weights").is_dir())


def no_blob(name: str) -> None:
    return None


def open_package(package: Path) -> tuple[Any, Program, Path]:
    base = package / "Data/com.apple.CoreML"
    model = parse_model((base / "model.mlmodel").read_bytes())
    files: dict[str, BlobFile] = {}

    def blob(name: str) -> BlobFile:
        return files.setdefault(name, BlobFile(base / name.removeprefix("@model_path/")))

    return model, read_program(model.mlProgram, blob), base


def coremltools_constants(base: Path) -> tuple[list[str], dict[str, Any]]:
    """Op types in order, and constants by name, as coremltools' own loader has them."""
    ct = pytest.importorskip("coremltools")
    from coremltools.converters.mil.frontend.milproto import load

    spec = ct.utils.load_spec(str(base / "model.mlmodel"))
    program = load.load(spec, spec.specificationVersion, file_weights_dir=str(base / "weights"))
    operations = program.functions["main"].operations
    constants = {op.outputs[0].name: op.outputs[0].val for op in operations if op.op_type == "const"}
    return [op.op_type for op in operations if op.op_type != "const"], constants


def compare(package: Path) -> int:
    _, program, base = open_package(package)
    kinds, constants = coremltools_constants(base)
    operations = list(walk(program.function().block.operations))
    assert [op.type for op in operations if op.type != "const"] == kinds
    ours = {op.outputs[0].name: op.attributes["val"] for op in operations if op.type == "const"}
    shared = sorted(ours.keys() & constants.keys())
    for name in shared:
        expected = constants[name]
        found = ours[name].python() if isinstance(expected, str) else ours[name].numpy()
        np.testing.assert_array_equal(found, expected, err_msg=name)
    return len(shared)


@needs_models
@pytest.mark.parametrize(
    "package",
    [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] if "basic_pitch" in p.stem else []) for p in PACKAGES],
)
def test_a_real_package_is_what_coremltools_reads(package: Path) -> None:
    assert compare(package) > 20


def test_constants_of_every_type_are_what_coremltools_reads(tmp_path: Path) -> None:
    ct = pytest.importorskip("coremltools")
    from coremltools.converters.mil import Builder as mb

    rng = np.random.default_rng(0)

    @mb.program(input_specs=[mb.TensorSpec((2, 4))], opset_version=ct.target.iOS17)
    def program(x: Any) -> Any:
        def plus(name: str, values: Any) -> Any:
            return mb.add(x=x, y=mb.cast(x=mb.const(val=values, name=name), dtype="fp32"))

        half = mb.const(val=np.array([1.5, -0.0, 65504.0, 6e-8], np.float16), name="half")
        return (
            mb.matmul(x=x, y=mb.const(val=rng.normal(size=(4, 40)).astype(np.float32), name="wide")),
            mb.add(x=mb.cast(x=x, dtype="fp16"), y=half),
            mb.gather(x=x, indices=mb.const(val=np.array([3, 0], np.int16), name="short"), axis=1),
            plus("tiny", np.array([-128, 127, 0, 1], np.int8)),
            plus("flags", np.array([True, False, False, True])),
            plus("counts", np.array([-(2**31), 2**31 - 1, 0, 1], np.int32)),
        )

    passes = ct.PassPipeline.EMPTY
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32,
        pass_pipeline=passes,
    )
    package = tmp_path / "net.mlpackage"
    model.save(str(package))
    assert compare(package) >= 6


# Constants, whatever field they travel in


def constant(dtype: int, shape: tuple[int, ...], field: str, values: Any) -> Value:
    """A constant's value, read back from a program of one operation."""
    message = coreml_proto.module("MIL_pb2").Program(version=1)
    function = message.functions["main"]
    function.opset = "CoreML8"
    operation = function.block_specializations["CoreML8"].operations.add(type="const")
    value = operation.attributes["val"]
    value.type.tensorType.dataType, value.type.tensorType.rank = dtype, len(shape)
    for dim in shape:
        value.type.tensorType.dimensions.add().constant.size = dim
    tensor = getattr(value.immediateValue.tensor, field)
    tensor.SetInParent()
    if field == "bytes":
        tensor.values = values
    else:
        tensor.values.extend(values)
    return read_program(message, no_blob).function().block.operations[0].attributes["val"]


EQUAL: dict[str, tuple[int, list[tuple[str, Any]], list[Any]]] = {
    "int16": (22, [("ints", [-2, 5]), ("bytes", struct.pack("<2h", -2, 5))], [-2, 5]),
    "int8": (21, [("ints", [-2, 5]), ("bytes", b"\xfe\x05")], [-2, 5]),
    "uint8": (31, [("ints", [254, 5]), ("bytes", b"\xfe\x05")], [254, 5]),
    "uint32": (33, [("ints", [-1, 5]), ("bytes", struct.pack("<2I", 2**32 - 1, 5))], [2**32 - 1, 5]),
    "uint32 in longInts": (33, [("longInts", [2**32 - 1, 5]), ("ints", [-1, 5])], [2**32 - 1, 5]),
    "uint64": (34, [("longInts", [-1, 5]), ("bytes", struct.pack("<2Q", 2**64 - 1, 5))], [2**64 - 1, 5]),
    "int32": (23, [("ints", [-2, 5]), ("longInts", [-2, 5]), ("bytes", struct.pack("<2i", -2, 5))], [-2, 5]),
    "fp16": (10, [("floats", [1.5, math.nan]), ("bytes", b"\0\x3e\0\x7e")], [1.5, math.nan]),
    "fp32": (11, [("floats", [1.5, math.nan]), ("bytes", struct.pack("<2f", 1.5, math.nan))], [1.5, math.nan]),
    "fp64": (12, [("doubles", [1.5, -0.0]), ("bytes", struct.pack("<2d", 1.5, -0.0))], [1.5, -0.0]),
    "bool": (1, [("bools", [True, False]), ("ints", [1, 0]), ("bytes", b"\1\0")], [True, False]),
    "int4": (25, [("ints", [-8, 7]), ("bytes", b"\x78")], [-8, 7]),
    "uint3": (39, [("ints", [7, 1]), ("bytes", b"\x0f"), ("bytes", b"\xcf\x99")], [7, 1]),
}  # fmt: skip


@pytest.mark.parametrize(("code", "spellings", "expected"), EQUAL.values(), ids=EQUAL.keys())
def test_a_constant_is_the_same_whatever_field_it_travels_in(
    code: int, spellings: list[tuple[str, Any]], expected: list[Any]
) -> None:
    read = [constant(code, (2,), field, values) for field, values in spellings]
    assert all(value == read[0] for value in read)
    np.testing.assert_array_equal(read[0].numpy(), expected)


@pytest.mark.parametrize(
    ("code", "field", "values", "message"),
    [
        (2, "ints", [1, 2], "do not match its type \\(string\\)"),
        (11, "strings", ["a", "b"], "do not match its type \\(fp32\\)"),
        (23, "floats", [1.5, 2.5], "do not match its type \\(int32\\)"),
        (2, "bytes", b"ab", "do not match its type \\(string\\)"),
        (21, "ints", [128, 0], "does not fit"),
        (25, "ints", [8, 0], "does not fit"),
        (99, "ints", [1, 2], "unknown MIL element type 99"),
    ],
)
def test_data_that_are_not_of_their_type_are_refused(code: int, field: str, values: Any, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        constant(code, (2,), field, values)


def test_strings_of_every_length_and_form_are_read_as_they_were_written() -> None:
    """Types and constants that recur are read once, names from their bytes: neither may mix up what differs."""
    message = coreml_proto.module("MIL_pb2").Program(version=1)
    message.functions["main"].opset = "CoreML8"
    block = message.functions["main"].block_specializations["CoreML8"]
    lengths = [*range(130), 300, 20_000]
    texts = [f"{'é' * (size // 2)}{'-' * (size % 2)}" for size in lengths] + [
        chr(97 + size % 26) * size for size in lengths
    ]
    expected = []
    for text in [*texts, *texts]:
        for doc, dims, key in (("", 0, "name"), ("", 1, "name"), ("why", 0, "name"), ("", 0, "mode")):
            value = block.operations.add(type="const").attributes[key]
            value.docString = doc
            value.type.tensorType.dataType, value.type.tensorType.rank = 2, dims
            for _ in range(dims):
                value.type.tensorType.dimensions.add().constant.size = 1
            value.immediateValue.tensor.strings.values.append(text)
            expected.append((key, doc, (1,) * dims, text))
    operations = read_program(message, no_blob).function().block.operations
    found = [(key, value) for op in operations for key, value in op.attributes.items()]
    assert [(key, v.doc, v.type.shape, *v.data) for key, v in found] == expected  # type: ignore[union-attr, misc]


def test_the_collector_is_as_it_was_after_a_program_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    import gc

    monkeypatch.setattr(collector, "MANY", 0)
    frozen, running = gc.get_freeze_count(), gc.isenabled()
    program = read_program(parse_model(sound()).mlProgram, no_blob)
    assert (gc.get_freeze_count(), gc.isenabled()) == (frozen, running)
    # Old from the start: the youngest generations do not hold it, unless somebody had frozen objects before.
    assert frozen or not any(item is program.functions for age in (0, 1) for item in gc.get_objects(age))


def test_an_empty_constant_and_none_at_all_differ() -> None:
    assert constant(10, (0,), "bytes", b"").data == b""
    assert constant(11, (0,), "floats", []).numpy().shape == (0,)


@pytest.mark.parametrize("shape", [(2**62,), (2**62, 2**62), (2**63, 2)])
def test_a_shape_larger_than_memory_is_refused_when_it_is_asked_for(shape: tuple[int, ...]) -> None:
    with pytest.raises(LoadError, match="elements"):
        constant(23, shape, "ints", [1, 2]).numpy()


def test_a_tensor_of_very_many_axes_is_refused() -> None:
    with pytest.raises(LoadError, match="a tensor of 100000 axes"):
        constant(11, (2**62,) * 100_000, "floats", [1.0])


# Damage


def sound() -> bytes:
    from tests.fuzz.seeds import protobufs

    return protobufs()[0]


def outcome(data: bytes) -> str:
    """``read``, or the reader's error."""
    try:
        read_program(parse_model(data).mlProgram, no_blob)
    except LoadError as error:
        return error.message
    return "read"


def test_a_truncated_model_is_refused_or_shorter() -> None:
    data = sound()
    outcomes = [outcome(data[:length]) for length in range(len(data))]
    assert sum(said != "read" for said in outcomes) > len(data) // 2
    assert not any("\n" in said for said in outcomes)


def test_flipped_bits_are_refused_or_read() -> None:
    data, rng = sound(), random.Random(1)
    outcomes = []
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        outcomes.append(outcome(bytes(damaged)))
    assert 0 < outcomes.count("read") < len(outcomes)
    assert not any("\n" in said for said in outcomes)


@pytest.mark.parametrize(
    ("depth", "said"),
    [(5, "read"), (10_000, "the model's protobuf is damaged, or has messages more than 100 deep in each other")],
)
def test_blocks_nested_ten_thousand_deep_are_refused(depth: int, said: str) -> None:
    mil = coreml_proto.module("MIL_pb2")
    into_operation, into_block = _number(mil.Block, "operations"), _number(mil.Operation, "blocks")
    block = b""
    for _ in range(depth):
        block = _field(into_operation, _field(into_block, block))
    function = _field(_number(mil.Function, "block_specializations"), _field(1, b"CoreML8") + _field(2, block))
    program = _field(_number(mil.Program, "functions"), _field(1, b"main") + _field(2, function))
    model = _field(_number(coreml_proto.module("Model_pb2").Model, "mlProgram"), program)
    assert outcome(model) == said


def _number(message: Any, field: str) -> int:
    return int(message.DESCRIPTOR.fields_by_name[field].number)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def test_types_of_every_kind() -> None:
    mil = coreml_proto.module("MIL_pb2")
    from tlkit.mil.proto import read_type

    state = mil.ValueType()
    state.stateType.wrappedType.tensorType.dataType = 10
    assert read_type(state) == StateType(TensorType(DType.FP16, ()))
    state.stateType.wrappedType.listType.type.tensorType.dataType = 10
    with pytest.raises(LoadError, match="unknown type"):
        read_type(state)
    unranked = mil.ValueType()
    unranked.tensorType.dataType, unranked.tensorType.rank = 10, -1
    assert read_type(unranked) == TensorType(DType.FP16, None)
    with pytest.raises(LoadError, match="unknown type"):
        read_type(mil.ValueType())


def test_an_operation_is_read_whole() -> None:
    program = read_program(parse_model(sound()).mlProgram, no_blob)
    add = next(op for op in program.function().block.operations if op.type == "add")
    assert isinstance(add, Operation)
    assert (add.name, sorted(add.inputs), len(add.blocks)) == ("y", ["x", "y"], 1)
    assert [op.name for op in walk((add,))] == ["y", "inner"]
