"""ONNX tensors wherever they are kept, against onnx's own numpy_helper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.formats.generated import generated, needs_faults
from tlkit.core.weights.weights import convert_weights
from tlkit.errors import IncompleteError
from tlkit.formats.onnx import OnnxFile

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def model(path: Path, nodes: list[Any], initializers: list[Any] = [], **graph: Any) -> OnnxFile:  # noqa: B006
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    made = helper.make_graph(nodes, "g", ports[:1], ports[1:], initializer=initializers, **graph)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]), path)
    return OnnxFile(path)


IDENTITY = helper.make_node("Identity", ["x"], ["y"])


@pytest.mark.parametrize(
    "value",
    [
        {"value_float": 1.5},
        {"value_floats": [1.5, -2.25, 3e38]},
        {"value_floats": [0.5]},
        {"value_int": -3},
        {"value_int": 0},
        {"value_ints": [1, -2, 1 << 40, 0]},
    ],
)
def test_numbers_of_a_constant_node_are_onnxs(tmp_path: Path, value: dict[str, Any]) -> None:
    from onnx.reference import ReferenceEvaluator

    node = helper.make_node("Constant", [], ["w"], **value)
    found = model(tmp_path / "x.onnx", [node, IDENTITY])
    kind = TensorProto.FLOAT if "float" in next(iter(value)) else TensorProto.INT64
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("w", kind, None)])
    evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    (expected,) = evaluator.run(None, {})
    (entry,) = found.entries()
    assert (entry.name, found.left_out) == ("w", ())
    np.testing.assert_array_equal(found.array(entry), expected)
    assert found.array(entry).shape == np.shape(expected) and found.array(entry).dtype == expected.dtype


def test_an_attribute_of_that_name_elsewhere_is_no_tensor(tmp_path: Path) -> None:
    node = helper.make_node("Other", ["x"], ["w"], value_floats=[1.0], domain="mine")
    assert not model(tmp_path / "x.onnx", [node, IDENTITY]).entries()


@pytest.mark.parametrize("packed", [True, False])
def test_typed_fields_have_onnxs_values(tmp_path: Path, packed: bool) -> None:
    kinds = {
        name: (getattr(TensorProto, name), values)
        for name, values in {
            "INT64": [1, -2, 1 << 40],
            "INT32": [-1, 2, 3],
            "INT16": [-300, 7, 0],
            "INT8": [-128, 127, -1],
            "UINT8": [0, 255, 3],
            "UINT16": [65535, 1, 2],
            "UINT32": [1 << 31, 5, 6],
            "UINT64": [(1 << 64) - 1, 0, 9],
            "BOOL": [True, False, True],
            "FLOAT": [1.5, -2.5, 3],
            "DOUBLE": [1e300, -1, 0],
            "FLOAT16": [1, -2.5, 65504],
            "BFLOAT16": [1, -2.5, 3],
            "COMPLEX64": [1 + 2j, -3j, 4],
            "FLOAT8E4M3FN": [1, -2, 448],
            "FLOAT8E5M2": [1, -2, 3],
            "INT4": [-8, 7, -1],
            "UINT4": [15, 0, 7],
            "FLOAT4E2M1": [1, -2],
        }.items()
    }
    tensors = [helper.make_tensor(name, kind, [len(values)], values) for name, (kind, values) in kinds.items()]
    if packed:
        tensors = [numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name) for tensor in tensors]
    found = model(tmp_path / "x.onnx", [IDENTITY], tensors)
    for entry, tensor in zip(found.entries(), tensors, strict=True):
        want = numpy_helper.to_array(tensor)
        got = found.array(entry)
        np.testing.assert_array_equal(got, want.astype(got.dtype), err_msg=entry.name)


def test_constants_of_nodes_are_tensors(tmp_path: Path) -> None:
    nodes = [helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(X, "other")), IDENTITY]
    found = model(tmp_path / "x.onnx", nodes)
    (entry,) = found.entries()
    assert entry.name == "w"
    np.testing.assert_array_equal(found.array(entry), X)


def branch(value: float) -> Any:
    made = helper.make_tensor_value_info("out", TensorProto.FLOAT, [2, 3])
    weight = numpy_helper.from_array(X + np.float32(value), "w")
    return helper.make_graph([helper.make_node("Identity", ["w"], ["out"])], "b", [], [made], initializer=[weight])


def test_equal_names_in_branches_are_both_kept(tmp_path: Path) -> None:
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch(0), else_branch=branch(10))
    condition = numpy_helper.from_array(np.array(True), "c")
    found = model(tmp_path / "x.onnx", [node], [condition])
    values = {entry.name: found.array(entry) for entry in found.entries()}
    assert sorted(values[name][0, 0] for name in ("w", "w#2")) == [0, 10]
    assert "several graphs have a tensor 'w'" in found.notes[0]


def test_sparse_initializers_and_text_are_named(tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.array([5.0], np.float32), "s")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([3], np.int64), "i"), [8, 8])
    words = helper.make_tensor("words", TensorProto.STRING, [1], [b"cat"])
    found = model(tmp_path / "x.onnx", [IDENTITY], [words], sparse_initializer=[sparse])
    assert {item.name: item.kind for item in found.left_out} == {"s": "unread", "words": "other"}
    with pytest.raises(IncompleteError, match="'s'"):
        convert_weights(tmp_path / "x.onnx", tmp_path / "x.safetensors")


@needs_faults
def test_generated_files_have_onnxs_values() -> None:
    folder, count = generated("onnx"), 0
    for path in sorted(folder.glob("*.onnx")):
        if path.name == "text.onnx":
            continue
        wanted = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
        found = OnnxFile(path)
        entries = {entry.name: entry for entry in found.entries()}
        assert set(wanted) <= set(entries), path.name
        for name, want in wanted.items():
            if entries[name].dtype not in ("I2", "U2"):  # what numpy_helper makes of two bits differs by version
                got = found.array(entries[name])
                np.testing.assert_array_equal(got, want.astype(got.dtype), err_msg=f"{path.name} {name}")
                count += 1
    assert count > 20
