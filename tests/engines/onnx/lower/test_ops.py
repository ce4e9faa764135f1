"""The lowerings: rows of the op table by every runtime, against PyTorch's eager run of the same program.

All rows run where tests are slow; a few rows of each op otherwise.

Covers tlkit/engines/onnx/lower/ops/activation.py, tlkit/engines/onnx/lower/ops/conv.py,
tlkit/engines/onnx/lower/ops/elementwise.py, tlkit/engines/onnx/lower/ops/gather.py,
tlkit/engines/onnx/lower/ops/image.py, tlkit/engines/onnx/lower/ops/kit.py, tlkit/engines/onnx/lower/ops/linear.py,
tlkit/engines/onnx/lower/ops/normalization.py, tlkit/engines/onnx/lower/ops/pool.py,
tlkit/engines/onnx/lower/ops/recurrent.py, tlkit/engines/onnx/lower/ops/reduction.py,
tlkit/engines/onnx/lower/ops/state.py, tlkit/engines/onnx/lower/ops/tensor.py,
tlkit/engines/onnx/lower/ops/transformation.py, tlkit/engines/onnx/kit/registry.py,
tlkit/engines/onnx/lower/lower.py.
"""

from __future__ import annotations

import pytest

from tests.engines.onnx.kit.test_rounding import runtime
from tests.engines.onnx.rows import FLOOR, HALF, SINGLE, both, difference, rows
from tests.mil.ops.optable import Case
from tlkit.engines.onnx.kit.graph import UnsupportedGraph
from tlkit.engines.onnx.kit.registry import lowering, lowers, table
from tlkit.mil.ops import library
from tlkit.mil.ops.activation import relu

WITHOUT = {
    "affine", "cond", "conv_quantized", "crop_resize", "list_gather", "list_read",
    "list_scatter", "make_list", "non_maximum_suppression", "non_zero", "random_bernoulli",
    "random_categorical", "random_normal", "random_uniform", "reverse_sequence", "rnn", "scatter_along_axis",
    "while_loop",
}  # fmt: skip
"""Ops without a lowering: a program with one of them runs on PyTorch."""
ROWS = [(op, row) for op, found in rows().items() for row in found if op not in WITHOUT]
FEW = [(op, found[0]) for op, found in rows().items() if op not in WITHOUT][::8]
FEW += [(op, row) for op, row in ROWS if "scalar index" in str(row)]


def agrees(row: Case, name: str, precision: str) -> None:
    try:
        found, wanted = both(row, runtime(name, precision))
    except UnsupportedGraph as error:
        pytest.skip(error.message)
    # In f32 what is left of a 0 (a normalization of one pixel) is as large as the epsilon lets it be.
    limit, floor = (HALF, FLOOR) if precision == "f16" else (SINGLE, 2.0)
    for ours, theirs in zip(found, wanted, strict=True):
        assert difference(ours, theirs, floor) <= limit


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(("op", "row"), FEW, ids=[str(row) for _, row in FEW])
def test_a_few_rows_agree(op: str, row: Case, name: str) -> None:
    agrees(row, name, "f16")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f16", "f32"])
@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(("op", "row"), ROWS, ids=[str(row) for _, row in ROWS])
def test_every_row_agrees(op: str, row: Case, name: str, precision: str) -> None:
    agrees(row, name, precision)


def test_the_ops_without_a_lowering_are_these() -> None:
    tested = set(rows())
    lowered = {
        name
        for name, versions in library().items()
        if any(lowering(version.function) for version in versions) or all(version.constexpr for version in versions)
    }
    assert {name for name in tested - lowered if name in library()} - {"fill", "range_1d", "shape"} == WITHOUT


def test_an_operation_is_lowered_once() -> None:
    with pytest.raises(ValueError, match="'relu' is lowered twice"):
        lowers(relu)(lambda graph, x: x)
    assert lowering(relu) is table()[relu]
