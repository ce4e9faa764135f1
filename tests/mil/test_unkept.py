"""What a program cannot keep is named before a write would lose it, and the message stays as it was."""

from __future__ import annotations

from typing import Any

import pytest

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


def refused(message: Any) -> str:
    before = message.SerializeToString(deterministic=True)
    with pytest.raises(LoadError, match="would be lost") as caught:
        write_program(read_program(message, lambda name: None), message)
    assert message.SerializeToString(deterministic=True) == before
    return caught.value.message


def test_a_variadic_dimension_is_named() -> None:
    said = refused(program(MIL.Dimension(unknown={"variadic": True})))
    assert "functions[main].inputs[0].type.tensorType.dimensions[0]" in said


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
