"""Writing programs. The oracles: coremltools' own messages, byte for byte, its loader, and the reader.

The table of op tests (``ops/optable.py``) holds the same for every operation. Covers tlkit/formats/coreml/write.py.
"""

from __future__ import annotations

import dataclasses
import math
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.formats import packages
from tests.fuzz import seeds
from tests.mil.programs import call, constant, function, tensor
from tests.mil.strategies import PROGRAMS
from tests.real_models import MODELS, needs_models
from tlkit.errors import LoadError
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.weights import blob_references
from tlkit.formats.coreml.write import write_package
from tlkit.mil import coreml_proto
from tlkit.mil.blob import BlobFile
from tlkit.mil.passes.rewrite import change_bodies, change_operations, change_values
from tlkit.mil.program import BlobRef, Block, Deferred, NamedType, Operation, Program, TensorType, Value
from tlkit.mil.proto import parse_model, read_program
from tlkit.mil.text.api import parse_program
from tlkit.mil.types import DType
from tlkit.mil.write import weight_file, write_program

Message = coreml_proto.module("MIL_pb2").Program
PROTOBUFS = [p for p in sorted(MODELS.glob("**/com.apple.CoreML/*.mlmodel")) if "rockpaper" not in str(p)]
PACKAGES = sorted(p for p in MODELS.glob("mlpackage/*.mlpackage") if (p / "Data/com.apple.CoreML/weights").is_dir())
TEXTS = sorted([*MODELS.glob("mil/*.mil"), *MODELS.glob("mlmodelc/*/model.mil")])


def no_blob(name: str) -> None:
    return None


def again(program: Program) -> Program:
    """What is read of what is written of ``program``, by way of its bytes."""
    message = Message()
    write_program(program, message)
    return read_program(Message.FromString(message.SerializeToString()), no_blob)


def rewritten(program: Program, folder: Path) -> Program:
    """``program``, with its weights, written to ``folder`` and read from there."""
    message, path = Message(), folder / "weights/weight.bin"
    with weight_file(folder) as weights:
        write_program(program, message, weights)
    file = BlobFile(path) if path.exists() else None
    return read_program(message, lambda name: file)


def stored(program: Program) -> Program:
    """``program`` with the records of its weight files in place of the references to them."""

    def value(name: str, item: Value) -> Value:
        ref = item.data
        if isinstance(ref, BlobRef):
            assert ref.file is not None
            record = ref.file.record(ref.offset)
            return Value(item.type, (record.dtype, record.count, bytes(ref.file.data(record))))
        return item

    def body(block: Block) -> Block:
        return change_operations(block, lambda operation: change_values(operation, value))

    functions = {name: change_bodies(function, body) for name, function in program.functions.items()}
    return dataclasses.replace(program, functions=functions)


def blobs(program: Program) -> list[BlobRef]:
    return list(blob_references(program))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(PROGRAMS)
def test_every_program_is_read_as_it_was_written(program: Program) -> None:
    assert again(program) == program


def test_a_program_with_a_bit_of_everything_is_read_as_it_was_written() -> None:
    program = read_program(parse_model(seeds.protobufs()[0]).mlProgram, no_blob)
    assert again(program) == program


@needs_models
@pytest.mark.parametrize("path", PROTOBUFS, ids=lambda p: p.parents[2].name)
def test_a_real_program_s_message_comes_back_byte_by_byte(path: Path) -> None:
    message = parse_model(path.read_bytes()).mlProgram
    written = Message()
    write_program(read_program(message, no_blob), written)
    assert written.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)


@needs_models
@pytest.mark.parametrize("path", TEXTS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_real_program_s_text_is_read_from_its_protobuf_as_from_the_text(path: Path) -> None:
    program = parse_program(path.read_text(), no_blob)
    assert again(program) == program


OWN = {
    "weights": packages.linear,
    "image and labels": packages.classifier,
    "functions and states": packages.accumulator,
    "ceil": packages.ceil_pool,
    "open lengths": lambda path: packages.relu(path, (None, 3), (1, 3)),
    "enumerated": lambda path: packages.two_listed(path, [(1, 2), (1, 3)], [(1, 2), (1, 3)]),
}


@pytest.mark.parametrize("name", OWN)
def test_our_own_packages_come_back_with_their_weights_and_coremltools_loads_them(name: str, tmp_path: Path) -> None:
    from coremltools.converters.mil.frontend.milproto import load

    package = open_package(OWN[name](tmp_path / "net.mlpackage"))
    program = package.program
    assert program is not None
    assert stored(rewritten(program, tmp_path)) == stored(program)
    assert (tmp_path / "weights").exists() == bool(blobs(program))
    model = type(package.model)()
    model.CopyFrom(package.model)
    made = write_package(tmp_path / "new.mlpackage", model, program)
    assert made.model.description == package.model.description
    if name == "image and labels":
        return  # coremltools' loader knows no lists
    old, new = (
        load.load(one.model, one.model.specificationVersion, file_weights_dir=str(one.base / "weights"))
        for one in (package, made)
    )
    assert set(new.functions) == set(program.functions)
    for found in program.functions:
        types = [[op.op_type for op in loaded.functions[found].operations] for loaded in (old, new)]
        assert types[0] and types[0] == types[1]


@needs_models
@pytest.mark.parametrize("path", PACKAGES, ids=lambda p: p.stem)
def test_a_real_package_s_weights_come_back_bit_for_bit_and_coremltools_opens_it(path: Path, tmp_path: Path) -> None:
    ct = pytest.importorskip("coremltools")
    from coremltools.converters.mil.frontend.milproto import load

    package = open_package(path)
    assert package.program is not None
    goal = tmp_path / "new.mlpackage"
    model = type(package.model)()
    model.CopyFrom(package.model)
    write_package(goal, model, package.program)
    made = open_package(goal)
    made.require_weights()
    assert made.program is not None and blobs(made.program)
    assert stored(made.program) == stored(package.program)
    spec = ct.models.MLModel(str(goal), skip_model_load=True).get_spec()
    if "basic_pitch" in path.stem:  # the loader takes seconds
        return
    loaded = [
        load.load(one, one.specificationVersion, file_weights_dir=str(place / "weights")).functions["main"]
        for one, place in ((ct.utils.load_spec(str(package.file)), package.base), (spec, made.base))
    ]
    constants = [
        {op.name: op.outputs[0].val for op in function.operations if op.op_type == "const"} for function in loaded
    ]
    named = [name for name in constants[0] if not name.startswith("const_")]  # which the loader numbers
    assert len(named) > 20
    for name in named:
        np.testing.assert_array_equal(constants[1][name], constants[0][name], err_msg=name)


# Weights


@dataclass(frozen=True)
class Counted(Deferred):
    """``size`` bytes counted up from ``first``, in pieces of three."""

    first: int
    size: int

    def pieces(self) -> Iterator[bytes | memoryview]:
        whole = bytes((self.first + index) % 256 for index in range(self.size))
        yield from (whole[start : start + 3] for start in range(0, self.size, 3))


def holding(*constants: Value, inline: bool = False) -> Program:
    """A program with one operation for each constant, which holds it as a const does or as an argument."""
    operations = [
        Operation("use", {"x": (value,)}, (NamedType(f"v{index}", value.type),))
        if inline
        else Operation("const", {}, (NamedType(f"v{index}", value.type),), {"val": value})
        for index, value in enumerate(constants)
    ]
    return Program({"main": function({}, operations, [])})


def held(program: Program) -> list[Value]:
    values: list[Any] = []
    for operation in program.function().block.operations:
        values += [*operation.attributes.values(), *(item for (item,) in operation.inputs.values())]
    return values


DTYPES = ["fp16", "fp32", "int4", "int8", "uint1", "uint3", "uint6", "bf16", "fp8e5m2", "bool"]


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_a_pass_makes_is_stored_as_its_type_and_can_be_looked_at_before(
    dtype: str, inline: bool, tmp_path: Path
) -> None:
    kind = tensor(dtype, 5, 3)
    value = Value(kind, Counted(1, -(-15 * kind.dtype.bits // 8)))
    (found,) = held(rewritten(holding(value, inline=inline), tmp_path))
    assert isinstance(found.data, BlobRef) and found.data.file is not None
    record = found.data.file.record(found.data.offset)
    assert (found.data.offset, record.offset, record.count) == (64, 128, 15)  # the padding is told
    np.testing.assert_array_equal(found.numpy(), value.numpy())
    assert found.numpy().shape == (5, 3)


def test_equal_weights_are_stored_once_wherever_they_come_from(tmp_path: Path) -> None:
    kind = tensor("fp16", 8)
    first = rewritten(holding(Value(kind, Counted(1, 16)), Value(kind, Counted(2, 16))), tmp_path / "a")
    second = rewritten(holding(Value(kind, Counted(2, 16)), Value(tensor("int8", 16), Counted(2, 16))), tmp_path / "b")
    both = Program({"one": first.function(), "two": second.function(), "three": first.function()})
    found = rewritten(both, tmp_path / "both")
    places = [[ref.offset for ref in blobs(Program({"main": found.functions[name]}))] for name in both.functions]
    assert places[0] == places[2] and places[1][0] == places[0][1]
    assert len({*places[0], *places[1]}) == 3  # the same bytes of another type are another weight
    header = (tmp_path / "both/weights/weight.bin").read_bytes()[:8]
    assert struct.unpack("<II", header) == (3, 2)
    assert stored(found) == stored(both)


def test_sub_byte_weights_keep_their_count_and_garbage_in_the_padding_of_wide_ones_stays_behind(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    records = [(2, 8, 0xDEADBEEFDEADBEEF, bytes(8)), (12, 4, 2, b"\x01\x02\x03\x04")]
    data = struct.pack("<II56x", 2, 2)
    for code, size, padding, content in records:
        data += struct.pack("<IIQQQ32x", 0xDEADBEEF, code, size, len(data) + 64, padding) + content.ljust(64, b"\0")
    path.write_bytes(data)
    file = BlobFile(path)
    values = [Value(tensor("fp32", 2), BlobRef("w", 64, file)), Value(tensor("uint3", 10), BlobRef("w", 192, file))]
    found = held(rewritten(holding(*values), tmp_path))
    for before, after in zip(values, found, strict=True):
        np.testing.assert_array_equal(after.numpy(), before.numpy())
    raw = (tmp_path / "weights/weight.bin").read_bytes()
    paddings = [struct.unpack_from("<IIQQQ", raw, ref.offset)[4] for ref in blobs(holding(*found))]
    assert paddings == [0, 2]


def test_without_a_weight_file_every_constant_stays_where_it_is() -> None:
    value = Value(tensor("fp16", 8), BlobRef("@model_path/weights/other.bin", 4096))
    (found,) = held(again(holding(value)))
    assert found == value
    with pytest.raises(ValueError, match="a weight file, and none is given"):
        write_program(holding(Value(tensor("fp16", 8), Counted(0, 16))), Message())


def test_everything_that_a_message_can_hold_is_kept() -> None:
    noted = Value(TensorType(DType.INT32, (), (("layout", Value(tensor("string"), ("NCHW",))),)), (3,), "a note")
    program = dataclasses.replace(holding(noted), version=7, attributes={"unheard.of": noted}, doc="for people")
    found = again(program)
    assert found == program
    assert (found.version, found.doc, found.attributes["unheard.of"]) == (7, "for people", noted)
    assert held(found)[0].doc == "a note"


def test_elements_that_are_not_in_the_readers_form_are_written_all_the_same() -> None:
    constants = [constant("c", [1.5, math.nan], "fp16"), constant("d", [1, -1], "int8")]
    first, second = held(again(Program({"main": function({}, constants, [])})))
    np.testing.assert_array_equal(first.numpy(), [1.5, math.nan])
    np.testing.assert_array_equal(second.numpy(), [1, -1])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Value(tensor("fp16", 8), BlobRef("gone.bin", 64)), "the weight file 'gone.bin' .* is missing"),
        (Value(tensor("fp16", 8), Counted(0, 15)), "of 16 bytes was made 15 bytes long"),
        (Value(tensor("fp16", None), Counted(0, 16)), "open shape"),
    ],
)
def test_weights_that_cannot_be_written_leave_no_whole_file(value: Value, message: str, tmp_path: Path) -> None:
    sound = Value(tensor("fp16", 4), Counted(0, 8))
    with pytest.raises(LoadError, match=message):
        rewritten(holding(sound, value), tmp_path)
    with pytest.raises(LoadError, match="not a version 2 weight file"):
        BlobFile(tmp_path / "weights/weight.bin")


def test_blocks_deeper_than_a_protobuf_goes_are_refused_and_those_that_fit_are_read() -> None:
    def nested(depth: int) -> Program:
        block = Block((), (), ())
        for _ in range(depth):
            block = Block((), (), (call("cond", "y", tensor("fp32"), blocks=(block,)),))
        return Program({"main": dataclasses.replace(function({}, [], []), specializations={"CoreML7": block})})

    assert again(nested(45)) == nested(45)
    with pytest.raises(LoadError, match="nested deeper than the 45 levels"):
        again(nested(46))


CODE = r"""
import re, sys
from pathlib import Path
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.write import write_package
from tlkit.mil.passes.base import run_passes
from tlkit.mil.passes.precision import Widen
package = open_package(Path(sys.argv[1]))
program = run_passes(package.program, [Widen()]).program if sys.argv[3:] else package.program
write_package(Path(sys.argv[2]), package.model, program)
print(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1])
"""
MB = 1_000_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("widen", [False, True])
def test_memory_does_not_grow_with_the_weights(widen: bool, tmp_path: Path) -> None:
    """Two weights of 200 MB each, nearly all of it zeros on disk; the process may hold 150 MB, itself included."""
    size = 200 * MB // 64 * 64
    folder = packages.write(tmp_path / "big.mlpackage", _large(size), b"") / "Data/com.apple.CoreML/weights"
    with (folder / "weight.bin").open("r+b") as file:
        file.write(struct.pack("<II56x", 2, 2))
        for index in range(2):
            file.seek(64 + index * (size + 64))
            file.write(struct.pack("<IIQQQ32x", 0xDEADBEEF, 1, size, file.tell() + 64, 0) + bytes([index, 60]))
        file.truncate(64 + 2 * (size + 64))
    command = [sys.executable, "-c", CODE, str(tmp_path / "big.mlpackage"), str(tmp_path / "new.mlpackage")]
    done = subprocess.run([*command, *["widen"][:widen]], check=True, capture_output=True, text=True)
    written = next((tmp_path / "new.mlpackage").rglob("weight.bin"))
    assert written.stat().st_size == 64 + 2 * (size * (1 + widen) + 64)
    written.unlink()  # pytest keeps its folders
    assert int(done.stdout) * 1024 < 150 * MB


def _large(size: int) -> Any:
    body = packages.Body()
    for index in range(2):
        body.const(f"w{index}", packages.stored("fp16", 64 + index * (size + 64), size // 2))
    body.block.operations.add(type="use").outputs.add(name="y").type.CopyFrom(packages.tensor_type("fp16", 1))
    model = packages.MODEL.Model(specificationVersion=8)
    model.mlProgram.CopyFrom(body.message)
    return model
