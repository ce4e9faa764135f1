"""Pipelines with mlprograms as one program, beside the stages run one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlkit
from tests.core.convert.classic.test_making import agree, linear
from tests.core.convert.classic.test_pipelines import dense, drawn, piped, renamed
from tests.engines.classic.specs import blank, classifier, load
from tests.mil.programs import call, constant, function, tensor
from tlkit.core.convert.classic.making import as_mlprogram
from tlkit.errors import ConversionError
from tlkit.mil.passes.rewrite import text, texts
from tlkit.mil.program import Block, DictType, NamedType, Operation, Program, Ref, TensorType, Value
from tlkit.mil.types import DType
from tlkit.mil.write import write_program

FLOATS = tensor("fp32", 4)


def stage(
    operations: Sequence[Any],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    *,
    opset: str = "CoreML5",
    kinds: Mapping[str, Any] | None = None,
    **described: str,
) -> Any:
    """An mlprogram as a stage: a port's width by its name, and the type of an input where that is not f32."""
    made = blank("mlProgram", inputs, outputs, 6)
    for port in (*made.description.input, *made.description.output):
        if port.type.WhichOneof("Type") == "multiArrayType":
            port.type.multiArrayType.dataType = 65568
    for key, value in described.items():
        setattr(made.description, key, value)
    types = {name: (kinds or {}).get(name, tensor("fp32", width)) for name, width in inputs.items()}
    program = Program({"main": function(types, list(operations), list(outputs), opset)})
    write_program(program, made.mlProgram)
    return made


def doubled(source: str, target: str, inner: str = "same", **how: Any) -> Any:
    """x -> 2 x + 1, by values whose names other stages have, too."""
    operations = [
        constant("two", 2.0, "fp32"),
        call("mul", inner, FLOATS, x=source, y="two"),
        call("add", target, FLOATS, x=inner, y=Value(TensorType(DType.FP32), (1.0,))),
    ]
    return stage(operations, {source: 4}, {target: 4}, **how)


def rows(count: int, width: int = 4) -> list[dict[str, Any]]:
    return [{"x": row.astype(np.float64)} for row in drawn(count, width)]


def test_two_programs_with_the_same_names_between_old_stages(tmp_path: Path) -> None:
    scaled = blank("scaler", {"x": 4}, {"a": 4})
    scaled.scaler.shiftValue.extend([1.0, 2.0, -1.0, 0.5])
    whole = piped({"x": 4}, {"y": 3, "c": 4}, scaled, doubled("a", "b"), doubled("b", "c"), dense("c", "y", 3, 4))
    agree(whole, tmp_path, rows(20), 1e-5)
    message, program = as_mlprogram(whole)
    assert message.specificationVersion == 6 and program.function().opset == "CoreML5"


def test_the_newest_opset_of_the_stages_is_the_programs(tmp_path: Path) -> None:
    whole = piped({"x": 4}, {"y": 3}, doubled("x", "b", opset="CoreML8"), doubled("b", "c"), dense("c", "y", 3, 4))
    agree(whole, tmp_path, rows(20), 1e-5)
    message, program = as_mlprogram(whole)
    assert message.specificationVersion == 9 and program.function().opset == "CoreML8"


def test_an_operation_whose_inputs_changed_is_named() -> None:
    """crop_resize has boxes and their indices apart from iOS17 on, together before."""
    cropping = stage(
        [call("crop_resize", "b", tensor("fp32", 1, 1, 1, 2, 2), x="x", roi="r", target_height="h", target_width="h")],
        {"x": 4, "r": 4, "h": 1},
        {"b": 4},
    )
    whole = piped({"x": 4, "r": 4, "h": 1}, {"c": 4}, cropping, doubled("b", "c", opset="CoreML7"))
    with pytest.raises(ConversionError, match=r"a stage needs iOS17, where operations .* other inputs: crop_resize"):
        as_mlprogram(whole)


def test_halves_and_integers_at_a_stages_ports(tmp_path: Path) -> None:
    halves, whole_numbers = tensor("fp16", 4), tensor("int32", 4)
    rounding = stage(
        [
            constant("wide", "fp32", "string"),
            constant("third", [1 / 3] * 4, "fp16"),
            call("mul", "h", halves, x="x", y="third"),
            call("cast", "b", FLOATS, x="h", dtype="wide"),
        ],
        {"x": 4},
        {"b": 4},
        kinds={"x": halves},
    )
    counted = stage(
        [constant("one", 1, "int32"), call("add", "c", whole_numbers, x="b", y="one")],
        {"b": 4},
        {"c": 4},
        kinds={"b": whole_numbers},
    )
    for port in (rounding.description.input[0], counted.description.input[0], counted.description.output[0]):
        port.type.multiArrayType.dataType = 65552 if port.name == "x" else 131104
    whole = piped({"x": 4}, {"c": 4}, rounding, counted)
    given = [{"x": np.float16(row["x"] * 100).astype(np.float64)} for row in rows(20)]
    agree(whole, tmp_path, given, 1e-6)


def classifying(labels: Sequence[Any]) -> Any:
    """A program that classifies: the softmax of its input."""
    as_text = isinstance(labels[0], str)
    one = TensorType(DType.STRING if as_text else DType.INT64)
    listed = texts(list(labels)) if as_text else Value(one, tuple(labels))
    operations = [
        call("softmax", "p", FLOATS, x="b", axis=Value(TensorType(DType.INT32), (0,))),
        Operation("const", {}, (NamedType("labels", listed.type),), {"name": text("labels"), "val": listed}),
        Operation(
            "classify",
            {"probabilities": (Ref("p"),), "classes": (Ref("labels"),)},
            (NamedType("label", one), NamedType("shares", DictType(one, TensorType(DType.FP64)))),
        ),
    ]
    how = {"predictedFeatureName": "label", "predictedProbabilitiesName": "shares"}
    return stage(operations, {"b": 4}, {"label": "string", "shares": "text to double"}, **how)


def test_a_program_that_classifies_is_last(tmp_path: Path) -> None:
    whole = piped(
        {"x": 4},
        {"label": "string", "shares": "text to double"},
        doubled("x", "b"),
        classifying(["a", "b", "c", "d"]),
        kind="pipelineClassifier",
    )
    agree(whole, tmp_path, rows(40), 1e-6)


def test_a_linear_classifier_on_what_a_program_gives(tmp_path: Path) -> None:
    last = renamed(linear(classifier("glmClassifier", 4, ["a", "b", "c"]), "glmClassifier", 2, 4), "x", "b")
    whole = piped(
        {"x": 4}, {"label": "string", "shares": "text to double"}, doubled("x", "b"), last, kind="pipelineClassifier"
    )
    agree(whole, tmp_path, rows(40), 1e-5)


def test_a_nested_block_keeps_its_own_names(tmp_path: Path) -> None:
    """Both branches define what another stage's value is called."""
    branches = tuple(Block((), ("same",), (call(kind, "same", FLOATS, x="b", y="b"),)) for kind in ("add", "sub"))
    choosing = stage(
        [
            constant("none", 0.0, "fp32"),
            constant("axes", [0], "int32"),
            constant("no", False, "bool"),
            call(
                "reduce_sum", "s", tensor("fp32"), x="b", axes="axes", keep_dims=Value(TensorType(DType.BOOL), (False,))
            ),
            call("greater", "up", tensor("bool"), x="s", y="none"),
            call("cond", "c", FLOATS, blocks=branches, pred="up"),
        ],
        {"b": 4},
        {"c": 4},
    )
    whole = piped({"x": 4}, {"d": 4, "b": 4}, doubled("x", "b"), choosing, doubled("c", "d"))
    agree(whole, tmp_path, rows(20), 1e-6)


def test_what_a_pipelines_program_cannot_have_inside() -> None:
    kept = doubled("x", "b")
    kept.mlProgram.functions["main"].inputs.add(name="memory").type.stateType.wrappedType.CopyFrom(
        kept.mlProgram.functions["main"].inputs[0].type
    )
    with pytest.raises(ConversionError, match="a stage has a state, 'memory'"):
        as_mlprogram(piped({"x": 4}, {"c": 4}, kept, doubled("b", "c")))
    future = doubled("x", "b")
    future.mlProgram.functions["main"].opset = "CoreML99"
    with pytest.raises(ConversionError, match="written for CoreML99"):
        as_mlprogram(piped({"x": 4}, {"c": 4}, future, doubled("b", "c")))


@pytest.mark.slow
def test_a_package_of_programs_and_old_stages_is_written_and_verified(tmp_path: Path) -> None:
    whole = piped({"x": 4}, {"y": 3}, doubled("x", "b", opset="CoreML8"), doubled("b", "c"), dense("c", "y", 3, 4))
    load(whole, tmp_path)
    result = tlkit.convert(str(tmp_path / "model.mlmodel"), output=str(tmp_path / "new.mlpackage"))
    assert result.ok and result.target == "iOS18"
