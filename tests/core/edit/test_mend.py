"""Planted faults that the Neural Engine's arithmetic makes harm of, written otherwise.

Covers tlkit/mil/passes/ane/mend.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.mil.programs import call, constant, function, tensor
from tests.mil.risks.programs import ints, strings, value
from tlkit.core.edit.mend import mend
from tlkit.mil.program import Operation, Program

YES = value(True, "bool")


def mended(kinds: dict[str, Any], steps: list[Operation], outputs: list[str], **arrays: Any) -> Any:
    program = Program({"main": function(kinds, steps, outputs)})
    given = {name: np.asarray(array, np.float16) for name, array in arrays.items()}
    return mend(program, "main", given)


def test_a_planted_network_is_as_good_as_under_mils_rule() -> None:
    """A sum past 32768, a softplus, a sum of exponentials and an attention of 4096 keys."""
    rng = np.random.default_rng(0)
    image, row = tensor("fp16", 1, 4, 2, 2), tensor("fp16", 1, 1, 2, 2)
    weights, keys, result = tensor("fp16", 4, 4096), tensor("fp16", 4096, 8), tensor("fp16", 4, 8)
    steps = [
        constant("w", rng.random((4, 64, 1, 1)) * 2000, "fp16"),
        constant("b", rng.random(4) * 100, "fp16"),
        constant("small", 2.0**-12, "fp16"),
        call("conv", "big", image, x="x", weight="w", bias="b"),
        call("mul", "less", image, x="big", y="small"),
        call("softplus", "positive", image, x="less"),
        call("reduce_log_sum_exp", "total", row, x="less", axes=ints(1), keep_dims=YES),
        call("softmax", "p", weights, x="scores", axis=value(-1, "int32")),
        call("matmul", "made", result, x="p", y="v"),
    ]
    kinds = {"x": tensor("fp16", 1, 64, 2, 2), "scores": weights, "v": keys}
    arrays = {
        "x": rng.random((1, 64, 2, 2)) * 1.2 - 0.1,
        "scores": rng.standard_normal((4, 4096)) * 0.1,
        "v": rng.standard_normal((4096, 8)) * 0.5,
    }
    program, found = mended(kinds, steps, ["positive", "total", "made"], **arrays)
    assert {(item.operation, item.row) for item in found.mended} == {
        ("big", "P4"),
        ("positive", "R1"),
        ("total", "R2"),
        ("made", "P4"),
    }
    assert found.kept and found.before > 0.5
    # f16's own rounding is 2^-11 of a value; the goal is twice what MIL's rule makes of it.
    assert found.mil < 2.0**-9 and found.after < max(2 * found.mil, 2.0**-9)
    assert [item.type for item in program.functions["main"].block.operations].count("conv") == 1


def test_a_reduction_without_kept_axes_and_a_product_of_quantized_values() -> None:
    byte, half = tensor("int8", 4), tensor("fp16", 4)
    steps = [
        constant("s", 1 / 16, "fp16"),
        constant("t", 1 / 2, "fp16"),
        call("quantize", "q", byte, input="x", scale="s", output_dtype=strings("int8")),
        call("dequantize", "d", half, input="q", scale="s"),
        call("mul", "p", half, x="d", y="d"),
        call("quantize", "r", byte, input="p", scale="t", output_dtype=strings("int8")),
        call("dequantize", "made", half, input="r", scale="t"),
        call("reduce_log_sum_exp", "total", tensor("fp16"), x="y", axes=ints(0), keep_dims=value(False, "bool")),
    ]
    arrays = {"x": np.ones(4), "y": np.full(4, 11.0)}
    _, found = mended({"x": half, "y": half}, steps, ["made", "total"], **arrays)
    assert {(item.operation, item.row) for item in found.mended} == {("p", "O13"), ("total", "R2")}
    assert found.kept and found.before > 0.5 and found.after < 2.0**-10 and found.mil < 2.0**-10


def test_what_is_not_at_risk_stays_as_it_is() -> None:
    half = tensor("fp16", 4, 4)
    rng = np.random.default_rng(0)
    steps = [
        call("matmul", "m", half, x="x", y="x"),
        call("softplus", "made", half, x="m"),
    ]
    program, found = mended({"x": half}, steps, ["made"], x=rng.standard_normal((4, 4)))
    assert not found.mended and not found.kept
    assert [item.type for item in program.functions["main"].block.operations] == ["matmul", "softplus"]


def test_f32_operations_are_not_the_neural_engines() -> None:
    wide = tensor("fp32", 4)
    program = Program({"main": function({"x": wide}, [call("softplus", "made", wide, x="x")], ["made"])})
    _, found = mend(program, "main", {"x": np.full(4, 20.0, np.float32)})
    assert not found.mended
