"""What a program cannot keep is named before a write would lose it, and the message stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tlkit
from tests.formats import packages
from tlkit.errors import LoadError
from tlkit.mil import coreml_proto
from tlkit.mil.proto import read_program
from tlkit.mil.unkept import unkept
from tlkit.mil.write import write_program

MIL = coreml_proto.module("MIL_pb2")
UNKNOWN = b"\xa0\x3f\x05"  # field 1012, a varint


def program(length: Any = None) -> Any:
    message = MIL.Program(version=1)
    function = message.functions["main"]
    function.opset = "CoreML7"
    item = function.inputs.add(name="x").type.tensorType
    item.dataType, item.rank = 11, 1
    item.dimensions.add().CopyFrom(length or MIL.Dimension(constant={"size": 3}))
    function.block_specializations["CoreML7"].outputs.append("x")
    return message


def no_blob(name: str) -> None:
    return None


def refused(message: Any) -> str:
    before = message.SerializeToString(deterministic=True)
    with pytest.raises(LoadError, match="would be lost") as caught:
        write_program(read_program(message, lambda name: None), message)
    assert message.SerializeToString(deterministic=True) == before
    return caught.value.message


def test_a_variadic_dimension_is_kept() -> None:
    variadic = MIL.Dimension(unknown={"variadic": True})
    message = program(variadic)
    growing = message.functions["main"].inputs.add(name="items").type.listType
    growing.type.tensorType.dataType = 11
    growing.length.CopyFrom(variadic)
    plain = program(MIL.Dimension(unknown={}))
    assert read_program(message, no_blob) != read_program(plain, no_blob)
    for one in (message, plain):
        before = one.SerializeToString(deterministic=True)
        write_program(read_program(one, no_blob), one)
        assert one.SerializeToString(deterministic=True) == before


def test_an_unknown_field_is_named() -> None:
    message = program()
    message.functions["main"].block_specializations["CoreML7"].MergeFromString(UNKNOWN)
    said = refused(message)
    assert "functions[main].block_specializations[CoreML7]" in said
    assert "1012" in said


def test_what_is_kept_is_written() -> None:
    for length in (None, MIL.Dimension(unknown={"variadic": False}), MIL.Dimension(constant={"size": 1})):
        message = program(length)
        assert not list(unkept(message))
        write_program(read_program(message, lambda name: None), message)


def test_combining_refuses_a_source_that_would_lose_something(tmp_path: Path) -> None:
    sound, newer = packages.linear(tmp_path / "a.mlpackage"), packages.linear(tmp_path / "b.mlpackage")
    file = newer / "Data/com.apple.CoreML/model.mlmodel"
    model = packages.MODEL.Model.FromString(file.read_bytes())
    model.mlProgram.functions["main"].MergeFromString(UNKNOWN)
    file.write_bytes(model.SerializeToString())
    with pytest.raises(LoadError, match=r"b\.mlpackage: the program\.functions\[main\].*would be lost"):
        tlkit.convert(sound, tmp_path / "c.mlpackage", functions={"two": newer})
    assert not (tmp_path / "c.mlpackage").exists()
