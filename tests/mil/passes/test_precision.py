"""Widening programs of every form: what is left in f16, what the ports give, and weights bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.mil.programs import call, constant, function, tensor
from tlkit.errors import LoadError, UsageError
from tlkit.mil.blob import BlobFile, BlobWriter
from tlkit.mil.lower.lower import lower
from tlkit.mil.passes.base import run_passes
from tlkit.mil.passes.precision import Wide, Widen, is_half
from tlkit.mil.passes.rewrite import text, texts
from tlkit.mil.program import (
    BlobRef,
    Block,
    Function,
    ListType,
    NamedType,
    Operation,
    Program,
    Ref,
    StateType,
    Value,
    walk,
)
from tlkit.mil.types import DType, TensorType

HALF, FULL = tensor("fp16", 2, 3), tensor("fp32", 2, 3)


def blob(path: Path, array: np.ndarray) -> BlobRef:
    writer = BlobWriter(path.open("w+b"))
    offset = writer.add(DType.FP16 if array.dtype == np.float16 else DType.UINT8, array.tobytes())
    writer.close()
    return BlobRef("@model_path/weights/weight.bin", offset, BlobFile(path))


def widened(*functions: Function) -> Program:
    names = ["main", "other"][: len(functions)]
    return run_passes(Program(dict(zip(names, functions, strict=True))), [Widen()]).program


def halves(item: Function) -> list[str]:
    """The values that are f16 inside."""
    made = [output for op in walk(item.block.operations) for output in op.outputs]
    made += [given for op in walk(item.block.operations) for block in op.blocks for given in block.inputs]
    return [output.name for output in made if isinstance(output.type, TensorType) and output.type.dtype is DType.FP16]


def test_ports_stay_f16_and_what_is_between_computes_in_f32() -> None:
    square = function({"x": HALF}, [call("mul", "z", HALF, x="x", y="x"), call("sqrt", "y", HALF, x="z")], ["y"])
    wide = widened(square).function()
    assert wide.inputs == square.inputs and wide.block.outputs == ("y",)
    assert halves(wide) == ["y"] and wide.block.operations[-1].type == "cast"
    x = np.full((2, 3), 300, np.float16)  # its square overflows f16
    (before,), (after,) = (lower(item)(torch.from_numpy(x.astype(np.float32))) for item in (square, wide))
    assert before.isinf().all() and (after == 300).all()


def test_every_constant_is_the_f16_number_that_it_was(tmp_path: Path) -> None:
    numbers = np.array([[0.1, -2.5, 65504.0], [6e-8, np.nan, -np.inf]], np.float16)
    stored = Value(HALF, blob(tmp_path / "w.bin", numbers))
    inline = constant("b", numbers, "fp16").attributes["val"]
    const = Operation("const", {}, (NamedType("w", HALF),), {"val": stored, "name": text("fp16")})
    add = Operation("add", {"x": (stored,), "y": (inline,)}, (NamedType("y", HALF),))
    wide = widened(function({"x": HALF}, [const, add], ["y"])).function().block.operations
    found = [wide[0].attributes["val"], *wide[1].inputs["x"], *wide[1].inputs["y"]]
    assert all(isinstance(value, Value) and value.type == FULL for value in found)
    for value in found:
        assert isinstance(value, Value)
        np.testing.assert_array_equal(value.numpy(), numbers.astype(np.float32))
        assert value.numpy().dtype == np.float32
    assert wide[0].name == "fp16"  # a name is no type


def test_casts_nested_blocks_lists_and_other_functions_are_widened() -> None:
    inner = Block((NamedType("i", HALF),), ("t",), (call("relu", "t", HALF, x="i"),))
    cast = Operation("cast", {"x": (Ref("x"),), "dtype": (text("fp16"),)}, (NamedType("c", HALF),))
    kind = ListType(HALF, 1)
    pair = Value(kind, (constant("b", np.ones((2, 3)), "fp16").attributes["val"],))
    made = Operation("make_list", {"e": (pair,)}, (NamedType("l", kind),))
    first = function({"x": FULL}, [cast, call("cond", "d", HALF, blocks=(inner,), pred="c"), made], ["d"])
    second = function({"x": HALF}, [call("relu", "y", HALF, x="x")], ["y"])
    wide = widened(first, second)
    main = wide.functions["main"]
    assert halves(main) == ["d"] and halves(wide.functions["other"]) == ["y"]
    ops = main.block.operations
    assert ops[0].inputs["dtype"] == (text("fp32"),)
    assert ops[2].outputs[0].type == ListType(FULL, 1)
    (value,) = ops[2].inputs["e"]
    assert isinstance(value, Value) and isinstance(value.data, tuple) and value.data[0].type == FULL
    assert not is_half(Program({"main": replace(second, specializations={})}))


def test_a_program_in_f32_is_what_it_was() -> None:
    program = Program({"main": function({"x": FULL}, [call("relu", "y", FULL, x="x")], ["y"])})
    outcome = run_passes(program, [Widen()])
    assert outcome.program is program and outcome.changes == ()


def test_labels_and_names_that_say_fp16_stay() -> None:
    classes = {"classes": (texts(["fp16", "fp32"]),)}
    classify = Operation("classify", classes, (NamedType("y", HALF),))
    (made, *_) = widened(function({}, [classify], ["y"])).function().block.operations
    (labels,) = made.inputs["classes"]
    assert isinstance(labels, Value) and labels.python() == ["fp16", "fp32"]


def test_states_in_f16_and_weights_that_are_no_f16_are_refused(tmp_path: Path) -> None:
    state = function({"s": StateType(HALF)}, [call("read_state", "y", HALF, input="s")], ["y"])
    with pytest.raises(UsageError, match="the state 's' has to be f16"):
        widened(state)
    with pytest.raises(LoadError, match="is uint8, not fp16"):
        list(Wide(blob(tmp_path / "w.bin", np.zeros(4, np.uint8))).pieces())
    with pytest.raises(LoadError, match="is missing"):
        list(Wide(BlobRef("w.bin", 64)).pieces())
