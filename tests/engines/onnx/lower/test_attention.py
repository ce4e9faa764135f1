"""Attention as a graph: no rounding inside where its scores cannot overflow, and the overflow where they can."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.engines.onnx.kit.test_rounding import runtime
from tests.engines.onnx.rows import HALF, difference
from tests.engines.torch.fused.programs import attention
from tlkit.engines.onnx.lower.lower import ShapeRecorder, lower_to_onnx
from tlkit.engines.onnx.selftest import spelling_for
from tlkit.mil.lower import lower


def lowered(gain: float, name: str) -> tuple[list[str], Any, np.ndarray[Any, Any]]:
    """Return the kinds of nodes between the scores and the mixed values, and both results."""
    program, arrays = attention(gain)
    module = lower.lower(program)
    given = [torch.from_numpy(array.astype(np.float16).astype(np.float32)) for array in arrays.values()]
    recorder, made = ShapeRecorder(module), runtime(name, "f16")
    with torch.inference_mode():
        recorder.run(*given)
        (wanted,) = module(*given)
    graph = lower_to_onnx(module, program, recorder, spelling_for(made))
    kinds = [node.op_type for node in graph.nodes]
    first = kinds.index("MatMul", kinds.index("MatMul") + 1) if kinds.count("MatMul") == 3 else kinds.index("MatMul")
    last = len(kinds) - 1 - kinds[::-1].index("MatMul")
    found = np.array(made.compile(graph.model()).bind([item.numpy() for item in given])()[0])
    return kinds[first : last + 1], found, wanted.numpy()


def test_nothing_is_rounded_between_bounded_scores_and_mixed_values() -> None:
    kinds, found, wanted = lowered(0.5, "openvino")
    assert [kind for kind in kinds if kind != "Identity"] == ["MatMul", "Mul", "Softmax", "MatMul"]
    assert difference(found, wanted) <= HALF


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_scores_that_overflow_do_so_in_a_graph(name: str) -> None:
    kinds, found, wanted = lowered(60.0, name)
    assert len(kinds) > 4
    assert np.isnan(wanted).any()
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
