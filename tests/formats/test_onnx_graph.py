"""The shapes and the work of ONNX graphs, beside what ONNX's own shape inference says.

Covers tlkit/formats/onnx_graph.py, tlkit/formats/onnx_shapes.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tlkit.core.inspect.costs import onnx_costs
from tlkit.formats.onnx import OnnxFile
from tlkit.formats.onnx_graph import NodeGraph

F, I64 = TensorProto.FLOAT, TensorProto.INT64


def write(path: Path, nodes: list[Any], inputs: dict[str, Any], outputs: list[str], weights: dict[str, Any]) -> Path:
    """Write a model without the shapes of its values in between; outputs of any shape."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, F, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, F, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def _ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def _ints(*values: int) -> Any:
    return np.array(values, np.int64)


X = (2, 6, 20, 15)
CASES: list[tuple[str, list[Any], dict[str, Any], tuple[int, ...]]] = [
    ("Conv", ["x", "w"], {"w": _ones(8, 3, 3, 2), "strides": [2, 1], "pads": [1, 0, 2, 1], "group": 2}, X),
    ("Conv", ["x", "w"], {"w": _ones(8, 6, 3, 3), "dilations": [2, 3]}, X),
    ("Conv", ["x", "w"], {"w": _ones(8, 6, 3, 4), "auto_pad": "SAME_UPPER", "strides": [2, 3]}, X),
    ("Conv", ["x", "w"], {"w": _ones(8, 6, 3, 4), "auto_pad": "VALID", "strides": [2, 3]}, X),
    ("ConvTranspose", ["x", "w"], {"w": _ones(6, 4, 3, 3), "strides": [2, 2], "pads": [1, 1, 0, 1]}, X),
    ("ConvTranspose", ["x", "w"], {"w": _ones(6, 4, 2, 2), "group": 2, "output_padding": [1, 0], "strides": [3, 2]}, X),
    ("MaxPool", ["x"], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, X),
    ("AveragePool", ["x"], {"kernel_shape": [3, 2], "pads": [1, 1, 1, 1]}, X),
    ("GlobalAveragePool", ["x"], {}, X),
    ("Gemm", ["x", "w"], {"w": _ones(5, 7), "transB": 1}, (3, 7)),
    ("Gemm", ["x", "w"], {"w": _ones(3, 5), "transA": 1}, (3, 7)),
    ("MatMul", ["x", "w"], {"w": _ones(6, 15, 4)}, X),
    ("MatMul", ["x", "w"], {"w": _ones(15, 4)}, X),
    ("Flatten", ["x"], {"axis": 2}, X),
    ("Flatten", ["x"], {"axis": -1}, X),
    ("Transpose", ["x"], {"perm": [0, 2, 3, 1]}, X),
    ("Transpose", ["x"], {}, X),
    ("Concat", ["x", "x"], {"axis": -2}, X),
    ("Reshape", ["x", "s"], {"s": _ints(0, -1, 5)}, X),
    ("Squeeze", ["x", "s"], {"s": _ints(1, -1)}, (4, 1, 3, 1)),
    ("Unsqueeze", ["x", "s"], {"s": _ints(0, -1)}, X),
    ("ReduceMean", ["x"], {"axes": [1, -1], "keepdims": 0}, X),
    ("ReduceMax", ["x"], {"axes": [2]}, X),
    ("ReduceSum", ["x", "s"], {"s": _ints(1), "keepdims": 0}, X),
    ("Gather", ["x", "s"], {"s": _ints(0, 2, 1), "axis": 1}, X),
    ("Pad", ["x", "s"], {"s": _ints(0, 0, 1, 2, 0, 0, 3, 4)}, X),
    ("Add", ["x", "w"], {"w": _ones(6, 1, 15)}, X),
    ("Add", ["w", "x"], {"w": _ones(6, 1, 1)}, (20, 15)),
    ("Where", ["c", "x", "w"], {"w": _ones(1, 15), "c": np.ones((6, 20, 1), bool)}, X),
    ("Relu", ["x"], {}, X),
    ("Softmax", ["x"], {"axis": 1}, X),
]


@pytest.mark.parametrize("index", range(len(CASES)))
def test_shapes_are_those_that_onnx_infers(tmp_path: Path, index: int) -> None:
    kind, inputs, given, x = CASES[index]
    weights = {name: value for name, value in given.items() if name in inputs}
    attributes = {name: value for name, value in given.items() if name not in inputs}
    node = helper.make_node(kind, inputs, ["y"], name="n", **attributes)
    path = write(tmp_path / "m.onnx", [node], {"x": x}, ["y"], weights)
    inferred = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    expected = tuple(dim.dim_value for dim in inferred.graph.output[0].type.tensor_type.shape.dim)
    graph = NodeGraph(OnnxFile(path))
    # The output's entry in the file has no shape: nothing but the rule can have given it.
    assert graph.shapes["y"] == expected and expected


def test_a_graph_is_counted_by_hand(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="/stem/conv/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="/stem/act/Relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "g"], ["y"], transB=1),
    ]
    weights = {"w": _ones(16, 3, 3, 3), "b": _ones(16), "g": _ones(10, 16)}
    costs = onnx_costs(OnnxFile(write(tmp_path / "m.onnx", nodes, {"x": (1, 3, 8, 8)}, ["y"], weights)))
    assert [op.macs for op in costs.per_op] == [64 * 16 * 27, 0, 0, 0, 160]
    assert costs.macs == 64 * 16 * 27 + 160 and costs.flops == 2 * costs.macs and not costs.open
    assert [op.weights for op in costs.per_op] == [16 * 27, 0, 0, 0, 160]  # b has 16 elements: not more
    assert costs.per_op[0].module == "stem.conv"
    x, c, p, y = 768, 4096, 64, 40
    assert [op.alive_bytes for op in costs.per_op] == [x + c, x + 2 * c, x + c + p, x + p, x + p + y]
    assert costs.activations is not None and costs.activations.peak_bytes == x + 2 * c


def test_an_unknown_shape_is_said_and_not_guessed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["z"], name="z"),
        helper.make_node("Cast", ["z"], ["f"], to=F),
        helper.make_node("MatMul", ["f", "w"], ["y"], name="m"),
        helper.make_node("MatMul", ["x", "w"], ["v"], name="n"),
    ]
    costs = onnx_costs(OnnxFile(write(tmp_path / "m.onnx", nodes, {"x": (4, 6)}, ["y", "v"], {"w": _ones(6, 5)})))
    assert [op.macs for op in costs.per_op] == [0, 0, None, 120] and costs.macs == 120
    assert any("1 operations have shapes" in note for note in costs.notes) and costs.activations is None


def test_an_open_dimension_counts_as_one(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    costs = onnx_costs(OnnxFile(write(tmp_path / "m.onnx", nodes, {"x": ("n", 6)}, ["y"], {"w": _ones(6, 5)})))
    assert costs.open and costs.macs == 30


@pytest.mark.parametrize("attributes", [{"pads": [1]}, {"strides": [0, 0]}, {"dilations": [1]}])
def test_attributes_that_do_not_fit_are_unknown_shapes(tmp_path: Path, attributes: dict[str, Any]) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    costs = onnx_costs(
        OnnxFile(write(tmp_path / "m.onnx", [node], {"x": (1, 3, 8, 8)}, ["y"], {"w": _ones(4, 3, 3, 3)}))
    )
    assert costs.per_op[0].macs is None
