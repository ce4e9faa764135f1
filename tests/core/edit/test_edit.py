"""Edits of packages. What coremltools reads of the result is the oracle for names and types, numpy for values.

``coremltools_program`` makes coremltools build the program anew from the file: it infers every type again and refuses
what the file declares otherwise.

Covers tlkit/core/compare/packages.py, tlkit/core/edit/apply.py, tlkit/core/edit/shapes.py,
tlkit/formats/coreml/features.py, tlkit/mil/passes/cast_ports.py, tlkit/mil/passes/classify.py,
tlkit/mil/passes/infer.py, tlkit/mil/passes/rename.py, tlkit/mil/passes/reshape.py.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats import packages
from tests.formats.packages import ARRAYS, BIAS, LABELS, MATRIX, MODEL, Body, array_feature, immediate, tensor_type
from tlkit.core.edit.edit import edit
from tlkit.core.model.load import load_model
from tlkit.errors import LoadError, UsageError

X = np.array([[1.0, -2.0, 0.5, 3.0]], np.float32)
Y = X.astype(np.float64) @ MATRIX.T.astype(np.float64) + BIAS


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """f32 ports around an f16 linear map: x 1x4 to y 1x3."""
    return packages.linear(tmp_path / "net.mlpackage")


def coremltools_program(path: Path) -> Any:
    logging.disable(logging.WARNING)
    try:
        import coremltools as ct
        from coremltools.converters.mil.frontend.milproto.load import load

        spec = ct.utils.load_spec(str(path))
        return load(spec, spec.specificationVersion, str(path / "Data/com.apple.CoreML/weights"))
    finally:
        logging.disable(logging.NOTSET)


def coremltools_spec(path: Path) -> Any:
    import coremltools as ct

    return ct.models.MLModel(str(path), skip_model_load=True).get_spec()


def ops(path: Path) -> list[str]:
    program = load_model(path).program
    assert program is not None
    return [op.type for op in program.function().block.operations if op.type != "const"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_ports_get_new_names_and_give_the_same(net: Path, tmp_path: Path) -> None:
    before = contents(net)
    made = edit(net, tmp_path / "new.mlpackage", rename={"x": "features", "y": "scores"})
    assert made.ok and made.check is not None and made.check.max_abs == 0
    assert made.changes == ("input x → features", "output y → scores")
    spec = coremltools_spec(made.path)
    assert [f.name for f in spec.description.input] == ["features"]
    function = coremltools_program(made.path).functions["main"]
    assert (list(function.inputs), [v.name for v in function.outputs]) == (["features"], ["scores"])
    np.testing.assert_allclose(load_model(made.path).predict({"features": X})["scores"], Y, rtol=1e-3)
    assert contents(net) == before


def test_two_ports_may_swap_their_names(net: Path, tmp_path: Path) -> None:
    made = edit(net, tmp_path / "new.mlpackage", rename=["x=y", "y=x"])
    np.testing.assert_allclose(load_model(made.path).predict({"y": X})["x"], Y, rtol=1e-3)


def test_a_classifier_s_outputs_keep_their_meaning_under_other_names(tmp_path: Path) -> None:
    path = packages.classifier(tmp_path / "net.mlpackage")
    made = edit(path, tmp_path / "new.mlpackage", rename={"label": "digit", "label_probs": "shares", "image": "scan"})
    description = coremltools_spec(made.path).description
    assert (description.predictedFeatureName, description.predictedProbabilitiesName) == ("digit", "shares")
    pixels = np.full((1, 1, 2, 2), 200, np.float32)
    assert (
        load_model(made.path).predict({"scan": pixels})["shares"]
        == load_model(path).predict({"image": pixels})["label_probs"]
    )


def test_names_are_changed_inside_blocks_too(tmp_path: Path) -> None:
    """A branch uses the input that is renamed; the other one has an own value of that name."""
    kind = tensor_type("fp32", 2)
    body = Body()
    body.input("x", kind)
    body.input("p", tensor_type("int32", 1))
    flag = {"x": "p", "dtype": body.const("word", immediate("string", "bool"))}
    body.op("cast", {"wide": tensor_type("bool", 1)}, flag)
    body.op(
        "squeeze", {"pred": tensor_type("bool")}, {"x": "wide", "axes": body.const("axes", immediate("int32", [0]))}
    )
    body.op("cond", {"y": kind}, {"pred": "pred"})
    operation = body.block.operations[-1]
    for inner, doubled in (("then", True), ("other", False)):
        block = operation.blocks.add()
        made = block.operations.add(type="add" if doubled else "sub")
        made.inputs["x"].arguments.add(name="x")
        made.inputs["y"].arguments.add(name="x")
        made.outputs.add(name=inner).type.CopyFrom(kind)
        block.outputs.append(inner)
    body.returns("y")
    model = MODEL.Model(specificationVersion=8)
    array_feature(model.description.input.add(), "x", ARRAYS.FLOAT32, 2)
    array_feature(model.description.input.add(), "p", ARRAYS.INT32, 1)
    array_feature(model.description.output.add(), "y", ARRAYS.FLOAT32, 2)
    model.mlProgram.CopyFrom(body.message)
    path = packages.write(tmp_path / "net.mlpackage", model)
    made = edit(path, tmp_path / "new.mlpackage", rename={"x": "value"})
    assert made.ok
    loaded = load_model(made.path)
    both = [loaded.predict({"value": np.array([1.0, 2.0], np.float32), "p": [p]})["y"].tolist() for p in (1, 0)]
    assert both == [[2.0, 4.0], [0.0, 0.0]]


def test_states_and_all_functions_are_renamed(tmp_path: Path) -> None:
    path = packages.accumulator(tmp_path / "net.mlpackage")
    made = edit(path, tmp_path / "new.mlpackage", rename={"sum": "memory", "x": "step"})
    assert made.ok and len(made.changes) == 4  # in both functions
    model = load_model(made.path, function="second")
    state = model.make_state()
    assert state is not None
    assert [model.predict({"step": [2.0]}, state)["y"].tolist() for _ in range(2)] == [[2.0], [4.0]]
    assert state.read("memory").tolist() == [4.0]
    assert set(coremltools_program(made.path).functions) == {"first", "second"}


def test_f16_ports_make_the_casts_at_the_edges_needless(net: Path, tmp_path: Path) -> None:
    made = edit(net, tmp_path / "new.mlpackage", input_dtypes={"x": "f16"}, output_dtypes={"y": "f16"})
    assert made.ok and made.check is not None and made.check.max_abs == 0
    assert ops(made.path) == ["linear"]
    assert len(coremltools_program(made.path).functions["main"].find_ops(op_type="cast")) == 0
    spec = coremltools_spec(made.path)
    arrays = [f.type.multiArrayType.dataType for f in (*spec.description.input, *spec.description.output)]
    assert arrays == [ARRAYS.FLOAT16, ARRAYS.FLOAT16]
    np.testing.assert_allclose(load_model(made.path).predict({"x": X})["y"], Y, rtol=1e-3)


@pytest.mark.parametrize(("dtype", "number"), [("f32", ARRAYS.FLOAT32), ("i32", ARRAYS.INT32)])
def test_other_types_get_a_cast_at_the_edge(tmp_path: Path, dtype: str, number: int) -> None:
    path = packages.relu(tmp_path / "net.mlpackage", (1, 3), (1, 3), "fp16")
    made = edit(path, tmp_path / "new.mlpackage", input_dtypes={"x": dtype}, output_dtypes={"y": dtype})
    assert made.ok and ops(made.path) == ["cast", "relu", "cast"]
    coremltools_program(made.path)
    spec = coremltools_spec(made.path)
    assert [f.type.multiArrayType.dataType for f in (*spec.description.input, *spec.description.output)] == [number] * 2
    found = load_model(made.path).predict({"x": np.array([[-1, 2, 3]], np.float32)})["y"]
    assert found.tolist() == [[0, 2, 3]] and found.dtype == ("int32" if dtype == "i32" else "float32")
    back = edit(made.path, tmp_path / "back.mlpackage", input_dtypes={"x": "f16"}, output_dtypes={"y": "f16"})
    assert back.ok and (ops(back.path) == ["relu"]) == (dtype == "f32")


def test_an_input_used_in_f32_keeps_that_when_its_port_becomes_f16(tmp_path: Path) -> None:
    path = packages.relu(tmp_path / "net.mlpackage", (1, 3), (1, 3))
    made = edit(path, tmp_path / "new.mlpackage", input_dtypes={"x": "f16"})
    assert made.ok and ops(made.path) == ["cast", "relu"]
    coremltools_program(made.path)


def test_f16_ports_ask_for_their_system(tmp_path: Path) -> None:
    path = packages.relu(tmp_path / "net.mlpackage", (1, 3), (1, 3), opset="CoreML5", version=6)
    with pytest.raises(UsageError, match="version 6 is too old for the f16 port 'x'"):
        edit(path, tmp_path / "new.mlpackage", input_dtypes={"x": "f16"})
    made = edit(path, tmp_path / "new.mlpackage", input_dtypes={"x": "f16"}, spec_version=7)
    assert made.info.spec_version == coremltools_spec(made.path).specificationVersion == 7


@pytest.mark.parametrize(
    ("text", "default", "rows"),
    [("4x8", (4, 8), (4,)), ("1..16x8", (2, 8), (1, 2, 16)), ("2..x8", (2, 8), (2, 70)), ("4x8,6x8", (4, 8), (4, 6))],
)
def test_an_open_length_takes_what_it_is_told(
    tmp_path: Path, text: str, default: tuple[int, ...], rows: tuple[int, ...]
) -> None:
    path = packages.relu(tmp_path / "net.mlpackage", (None, 8), (2, 8))
    made = edit(path, tmp_path / "new.mlpackage", input_shapes={"x": text})
    assert made.ok and made.info.inputs[0].shape == default
    loaded = load_model(made.path)
    for count in rows:
        assert loaded.predict({"x": np.ones((count, 8))})["y"].shape == (count, 8)
    with pytest.raises(UsageError, match="does not fit"):
        loaded.predict({"x": np.ones((1 if 1 not in rows else 17, 8))})
    coremltools_program(made.path)


def test_a_fixed_batch_becomes_another_one(net: Path, tmp_path: Path) -> None:
    made = edit(net, tmp_path / "new.mlpackage", input_shapes={"x": "5x4"})
    assert made.check is not None and made.check.passed and made.check.max_abs is not None
    spec = coremltools_spec(made.path)
    assert list(spec.description.output[0].type.multiArrayType.shape) == [5, 3]
    assert [tuple(v.shape) for v in coremltools_program(made.path).functions["main"].outputs] == [(5, 3)]
    rows = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    expected = rows.astype(np.float64) @ MATRIX.T.astype(np.float64) + BIAS
    np.testing.assert_allclose(load_model(made.path).predict({"x": rows})["y"], expected, atol=0.02)


def _steps(path: Path, shape: tuple[int, ...], *steps: tuple[str, tuple[int, ...], dict[str, Any]]) -> Path:
    """A chain of operations on ``x``: (type, shape of the result, constant inputs); the last result is ``y``."""
    body = Body()
    body.input("x", tensor_type("fp32", *shape))
    before = "x"
    for index, (kind, result, constants) in enumerate(steps):
        name = "y" if index == len(steps) - 1 else f"step_{index}"
        made = {key: body.const(f"{name}_{key}", immediate(*value)) for key, value in constants.items()}
        body.op(kind, {name: tensor_type("fp32", *result)}, {"x": before, **made})
        before = name
    body.returns("y")
    model = MODEL.Model(specificationVersion=8)
    array_feature(model.description.input.add(), "x", ARRAYS.FLOAT32, *shape)
    array_feature(model.description.output.add(), "y", ARRAYS.FLOAT32, *steps[-1][1])
    model.mlProgram.CopyFrom(body.message)
    return packages.write(path, model)


def test_a_reshape_that_names_a_batch_of_one_follows_the_batch(tmp_path: Path) -> None:
    path = _steps(
        tmp_path / "net.mlpackage",
        (1, 2, 3),
        ("relu", (1, 2, 3), {}),
        ("reshape", (1, 6), {"shape": ("int32", [1, 6])}),
        ("slice_by_index", (1, 4), {"begin": ("int32", [0, 1]), "end": ("int32", [1, 5]), **_masks([1, 0])}),
        ("reshape", (1, 2, 2), {"shape": ("int32", [1, 2, 2])}),
        ("reshape", (1, 4), {"shape": ("int32", [1, -1])}),
        ("mul", (1, 4), {"y": ("fp32", [[1.0, 2.0, 3.0, 4.0]])}),
    )
    made = edit(path, tmp_path / "new.mlpackage", input_shapes={"x": "4x2x3"})
    assert made.ok and made.check is not None and made.check.max_abs == 0
    assert [tuple(v.shape) for v in coremltools_program(made.path).functions["main"].outputs] == [(4, 4)]
    x = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    expected = np.maximum(x, 0).reshape(4, 6)[:, 1:5] * np.arange(1, 5, dtype=np.float32)
    np.testing.assert_array_equal(load_model(made.path).predict({"x": x})["y"], expected)


def _masks(whole: list[int]) -> dict[str, Any]:
    return {"begin_mask": ("bool", whole), "end_mask": ("bool", whole)}


@pytest.mark.parametrize(
    ("shape", "new", "steps"),
    [
        ((1, 6), "2x6", [("slice_by_index", (1, 2), {"begin": ("int32", [0, 1]), "end": ("int32", [1, 3])})]),
        ((2, 6), "4x6", [("reshape", (12,), {"shape": ("int32", [12])})]),
        ((2, 6), "4x6", [("reshape", (1, 12), {"shape": ("int32", [1, 12])})]),
        ((1, 6), "1x8", [("reshape", (1, 6), {"shape": ("int32", [1, 6])})]),
        ((2, 3), "4x3", [("reshape", (1, 6), {"shape": ("int32", [1, -1])})]),
        (
            (4, 6),
            "6x6",
            [("gather", (2, 6), {"indices": ("int32", [0, 3]), "axis": ("int32", 0)})],
        ),
        (
            (1, 2, 3),
            "2x2x3",
            [
                ("transpose", (2, 1, 3), {"perm": ("int32", [1, 0, 2])}),
                ("reshape", (1, 6), {"shape": ("int32", [1, 6])}),
            ],
        ),
    ],
)
def test_constants_that_may_hold_the_old_shape_stop_another(
    tmp_path: Path, shape: tuple[int, ...], new: str, steps: list[Any]
) -> None:
    path = _steps(tmp_path / "net.mlpackage", shape, *steps)
    with pytest.raises(UsageError, match="whose own constants may hold the old one"):
        edit(path, tmp_path / "new.mlpackage", input_shapes={"x": new})


def test_other_shapes_run_but_have_nothing_to_be_compared_with(tmp_path: Path) -> None:
    path = packages.relu(tmp_path / "net.mlpackage", (1, 3), (1, 3))
    made = edit(path, tmp_path / "new.mlpackage", input_shapes={"x": "1x7"})
    assert made.ok and made.check is not None and made.check.passed is None
    assert "nothing" in made.check.reasons[0] or "no such shape" in made.check.reasons[0]
    assert load_model(made.path).predict({"x": np.ones((1, 7))})["y"].shape == (1, 7)


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"rename": {"z": "y"}}, "no input, output or state is named 'z'"),
        ({"rename": {"x": "y"}}, "'x' cannot be named 'y': a port has that name"),
        ({"rename": {"x": "bias"}}, "'x' cannot be named 'bias': a value inside the program"),
        ({"rename": {"x": "v", "y": "v"}}, "'y' cannot be named 'v'"),
        ({"rename": {"x": "a b"}}, "'a b' cannot name"),
        ({"rename": ["x"]}, "not NAME=VALUE"),
        ({"rename": ["x=a", "x=b"]}, "given twice"),
        ({"input_shapes": {"q": "1x4"}}, "no input is named 'q'"),
        ({"input_shapes": {"x": "1x1..8"}}, "fixes axis 1 of 'x' at 4"),
        ({"input_shapes": {"x": "1x4,2x4"}}, "cannot be made flexible"),
        ({"input_shapes": {"x": "1x5"}}, r"the shape does not fit the operation 'z' \(linear\)"),
        ({"input_shapes": {"x": "4"}}, "has 2 axes, not 1"),
        ({"input_shapes": {"x": "1x0"}}, "not a shape"),
        ({"input_shapes": {"x": "8..2x4"}}, "not a shape"),
        ({"input_shapes": {"x": "1x4,2..3x4"}}, "not a shape"),
        ({"input_shapes": {"x": "1x99999999999"}}, "not a shape"),
        ({"input_dtypes": {"x": "f8"}}, "unknown type 'f8'"),
        ({"input_dtypes": {"y": "f16"}}, "no input is named 'y'"),
        ({"output_dtypes": {"x": "f16"}}, "no output is named 'x'"),
        ({"classes": ["a", "b"]}, "2 class labels for 3 scores"),
        ({"spec_version": 7}, "too old for operations of iOS17"),
        ({"spec_version": 99}, "the newest is 10"),
        ({}, "nothing to change"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(
    net: Path, tmp_path: Path, edits: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        edit(net, tmp_path / "new.mlpackage", **edits)
    assert [item.name for item in tmp_path.iterdir()] == ["net.mlpackage"]


def test_a_constant_shape_stops_another_shape(tmp_path: Path) -> None:
    path = packages.classifier(tmp_path / "net.mlpackage")
    with pytest.raises(UsageError, match=r"reaches 'x' \(reshape\), whose own constants"):
        edit(path, tmp_path / "new.mlpackage", input_shapes={"image": "1x1x4x4"})
    with pytest.raises(UsageError, match="'image' is an image"):
        edit(path, tmp_path / "new.mlpackage", input_dtypes={"image": "f16"})


def test_labels_are_replaced(tmp_path: Path) -> None:
    path = packages.classifier(tmp_path / "net.mlpackage")
    (tmp_path / "labels.txt").write_text("Null\nEins\nZwei\n")
    made = edit(path, tmp_path / "new.mlpackage", classes=tmp_path / "labels.txt")
    assert made.ok and made.info.labels == ("Null", "Eins", "Zwei")
    pixels = np.array([[[[10, 20], [30, 250]]]], np.float32)
    old, new = (load_model(p).predict({"image": pixels}) for p in (path, made.path))
    assert made.info.labels.index(new["label"]) == LABELS.index(old["label"])
    assert list(new["label_probs"].values()) == list(old["label_probs"].values())
    (classify,) = coremltools_program(made.path).functions["main"].find_ops(op_type="classify")
    assert list(classify.classes.val) == ["Null", "Eins", "Zwei"]


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_a_model_with_one_output_becomes_a_classifier(net: Path, tmp_path: Path, dtype: str) -> None:
    path = edit(net, tmp_path / "half.mlpackage", output_dtypes={"y": "f16"}).path if dtype == "f16" else net
    made = edit(path, tmp_path / "new.mlpackage", classes=["a", "b", "c"], rename={"classLabel": "word"})
    assert made.ok
    description = coremltools_spec(made.path).description
    assert [f.name for f in description.output] == ["word", "classLabel_probs"]
    coremltools_program(made.path)
    found = load_model(made.path).predict({"x": X})
    assert found["word"] == "abc"[int(Y.argmax())]
    np.testing.assert_allclose([found["classLabel_probs"][c] for c in "abc"], Y[0], rtol=1e-3)


def test_texts_are_set_and_taken_away_and_the_others_stay(tmp_path: Path) -> None:
    path = packages.classifier(tmp_path / "net.mlpackage")
    made = edit(path, tmp_path / "new.mlpackage", metadata=["note=", "team=vision"], author="B", version="2")
    found = coremltools_spec(made.path).description.metadata
    assert (found.author, found.versionString, found.license) == ("B", "2", "MIT")
    user = dict(found.userDefined)
    assert "note" not in user and user["team"] == "vision" and "com.github.apple.coremltools.version" in user
    assert made.check is None  # the program is the same


def test_metadata_of_older_kinds_can_be_edited_and_nothing_else(tmp_path: Path) -> None:
    model = MODEL.Model(specificationVersion=4)
    array_feature(model.description.input.add(), "x", ARRAYS.DOUBLE, 2)
    model.identity.SetInParent()
    path = tmp_path / "net.mlmodel"
    path.write_bytes(model.SerializeToString())
    made = edit(path, tmp_path / "new.mlmodel", license="MIT")
    assert made.info.metadata.license == "MIT"
    with pytest.raises(UsageError, match="identity model only metadata"):
        edit(path, tmp_path / "other.mlmodel", rename={"x": "y"})
    with pytest.raises(UsageError, match=r"ends in \.mlmodel"):
        edit(path, tmp_path / "other.mlpackage", license="MIT")


def test_weights_are_not_copied_where_they_can_be_linked(net: Path, tmp_path: Path) -> None:
    made = edit(net, tmp_path / "new.mlpackage", author="B")
    place = "Data/com.apple.CoreML/weights/weight.bin"
    assert (made.path / place).samefile(net / place)
    assert not (made.path / "Data/com.apple.CoreML/model.mlmodel").samefile(net / "Data/com.apple.CoreML/model.mlmodel")
    with pytest.raises(UsageError, match="exists already"):
        edit(net, made.path, author="C")
    with pytest.raises(UsageError, match="is the input itself"):
        edit(made.path, made.path, author="C", force=True)
    again = edit(net, made.path, author="C", force=True)
    assert again.info.metadata.author == "C"
    np.testing.assert_allclose(load_model(again.path).predict({"x": X})["y"], Y, rtol=1e-3)


def test_a_link_out_of_the_package_is_not_followed(net: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (net / "Data/extra").symlink_to(tmp_path / "secret")
    with pytest.raises(LoadError, match="outside the package"):
        edit(net, tmp_path / "new.mlpackage", author="B")
    assert not (tmp_path / "new.mlpackage").exists()


def test_a_program_that_contradicts_itself_is_no_internal_error(net: Path, tmp_path: Path) -> None:
    file = net / "Data/com.apple.CoreML/model.mlmodel"
    model = MODEL.Model.FromString(file.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    cast = next(operation for operation in block.operations if operation.type == "cast")
    del cast.outputs[:]
    file.write_bytes(model.SerializeToString())
    with pytest.raises(LoadError, match="contradicts itself"):
        edit(net, tmp_path / "new.mlpackage", input_dtypes={"x": "f16"})
    assert not (tmp_path / "new.mlpackage").exists()


def test_an_edited_model_that_does_not_run_fails_the_check(net: Path, tmp_path: Path) -> None:
    from tlkit.core.compare.packages import compare_packages

    broken = edit(net, tmp_path / "broken.mlpackage", rename={"x": "x2"}).path
    file = broken / "Data/com.apple.CoreML/model.mlmodel"
    model = MODEL.Model.FromString(file.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    del block.operations[0]
    file.write_bytes(model.SerializeToString())
    found = compare_packages(net, broken, 0)
    assert not found.ok and not found.outputs and "before anything defines it" in found.reasons[0]
    other = packages.linear(tmp_path / "other.mlpackage")
    weights = other / "Data/com.apple.CoreML/weights/weight.bin"
    weights.write_bytes(weights.read_bytes().replace(MATRIX.tobytes(), (-MATRIX).tobytes()))
    found = compare_packages(net, other, 0)
    assert found.passed is False and found.outputs["y"].max_abs > 0.5 and "y: " in found.reasons[0]


def test_labels_that_do_not_fit_a_flexible_output_are_said_to_be_too_many(tmp_path: Path) -> None:
    """How many scores there are shows only when the model runs."""
    flexible = packages.relu(tmp_path / "flexible.mlpackage", (1, None), (1, 4))
    result = edit(flexible, tmp_path / "made.mlpackage", classes=list("abcde"))
    assert not result.ok and result.check is not None
    assert any("5 class labels" in reason and "4 scores" in reason for reason in result.check.reasons)
