"""Planted faults that the Neural Engine's arithmetic makes harm of, written otherwise.

Covers tlkit/mil/passes/ane/mend.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.mil.programs import call, constant, function, tensor
from tests.mil.risks.programs import ints, strings, value
from tlkit.core.edit.mend import mend
from tlkit.core.emulate.choose import emulator
from tlkit.engines.torch.engine import TorchEngine
from tlkit.mil.program import Operation, Program

YES = value(True, "bool")


def mended(kinds: dict[str, Any], steps: list[Operation], outputs: list[str], **arrays: Any) -> Any:
    program = Program({"main": function(kinds, steps, outputs)})
    given = {name: np.asarray(array, np.float16) for name, array in arrays.items()}
    return mend(program, "main", [given])


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


def test_several_inputs_share_a_form_that_all_of_them_bear() -> None:
    """Small values are lost below the step; where another input has larger sums, scaling up may only use the room that
    is left there, and where a sum is infinite, it is scaled down whatever the others show."""
    rng = np.random.default_rng(0)
    kinds = {"x": tensor("fp16", 4, 4096), "v": tensor("fp16", 4096, 8)}
    steps = [call("matmul", "made", tensor("fp16", 4, 8), x="x", y="v")]
    program = Program({"main": function(kinds, steps, ["made"])})
    v, values = rng.random((4096, 8)), rng.random((4, 4096))
    small, middle, large = (
        {"x": (values * size).astype(np.float16), "v": v.astype(np.float16)} for size in (2.0**-11, 0.5, 45.0)
    )
    powers = []
    for cases in ([small], [small, middle], [middle, large]):
        _, found = mend(program, "main", cases)
        assert found.kept and found.after < max(2 * found.mil, 2.0**-9)
        powers.append(int(found.mended[0].change.split("^")[1].split(" ")[0]))
    assert powers[0] > powers[1] > 0 > powers[2]


@pytest.mark.parametrize("fused", [False, True])
def test_an_attention_of_4096_keys_whose_values_are_around_one(fused: bool) -> None:
    """The step loses little of each result, and of many the worst is off by more than f16's rounding; the one operation
    of iOS18 has its values scaled."""
    rng = np.random.default_rng(4)
    query, keys, weights = tensor("fp16", 1, 2, 16, 32), tensor("fp16", 1, 2, 4096, 32), tensor("fp16", 1, 2, 16, 4096)
    steps = [call("scaled_dot_product_attention", "made", query, query="q", key="k", value="v")]
    if not fused:
        steps = [
            call("matmul", "scores", weights, x="q", y="k", transpose_y=YES),
            call("softmax", "p", weights, x="scores", axis=value(-1, "int32")),
            call("matmul", "made", query, x="p", y="v"),
        ]
    kinds = {"q": query, "k": keys, "v": keys}
    arrays = {
        "q": rng.standard_normal((1, 2, 16, 32)) * (0.3 if fused else 0.05),
        "k": rng.standard_normal((1, 2, 4096, 32)),
        "v": rng.standard_normal((1, 2, 4096, 32)) + 1,
    }
    given = {name: array.astype(np.float16) for name, array in arrays.items()}
    program = Program({"main": function(kinds, steps, ["made"], "CoreML8" if fused else "CoreML7")})
    made, found = mend(program, "main", [given])
    assert [(item.operation, item.row) for item in found.mended] == [("made", "P4")] and found.kept and found.mil == 0
    scores = torch.from_numpy(given["q"].astype(np.float64) @ given["k"].astype(np.float64).swapaxes(-1, -2))
    right = (scores / (32**0.5 if fused else 1)).softmax(-1).numpy() @ given["v"].astype(np.float64)
    by_mil, before, after = (
        np.abs(TorchEngine(item.functions["main"], emulate=how).run(given)["made"].astype(np.float64) - right).max()
        for item, how in ((program, None), (program, emulator("ane")), (made, emulator("ane")))
    )
    assert before > 2 * by_mil and after <= 2 * by_mil


def test_a_softplus_with_factors_of_each_channel() -> None:
    image, x = tensor("fp16", 1, 3, 8), np.linspace(-40, 40, 24).reshape(1, 3, 8)
    alpha, beta = np.array([1.0, 0.5, 2.0]), np.array([2.0, -1.0, 0.25])
    steps = [
        constant("alpha", alpha, "fp16"),
        constant("beta", beta, "fp16"),
        call("softplus_parametric", "made", image, x="x", alpha="alpha", beta="beta"),
    ]
    program, found = mended({"x": image}, steps, ["made"], x=x)
    assert [(item.type, item.row) for item in found.mended] == [("softplus_parametric", "R1")] and found.kept
    given = x.astype(np.float16)
    right = alpha[:, None] * np.logaddexp(0, beta[:, None] * given.astype(np.float64))
    for how in (None, emulator("ane")):
        made = TorchEngine(program.functions["main"], emulate=how).run({"x": given})["made"]
        np.testing.assert_allclose(made, right, rtol=2.0**-9, atol=2e-3)


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
    _, found = mend(program, "main", [{"x": np.full(4, 20.0, np.float32)}])
    assert not found.mended


def test_the_logarithm_of_a_softmax_and_a_mask_are_mended() -> None:
    """Classes 40 apart: f16's softmax is 0 there, and its logarithm -45440."""
    half = tensor("fp16", 2, 8)
    steps = [
        constant("mask", [[0.0] * 6 + [-65504.0] * 2] * 2, "fp16"),
        call("add", "scores", half, x="x", y="mask"),
        call("softmax", "p", half, x="scores", axis=value(-1, "int32")),
        call("softmax", "q", half, x="x", axis=value(-1, "int32")),
        call("log", "made", half, x="q", epsilon=value(0.0, "fp16")),
    ]
    x = np.linspace(-20, 20, 16).reshape(2, 8) * 4
    program, found = mended({"x": half}, steps, ["p", "made"], x=x)
    assert {(item.operation, item.row) for item in found.mended} == {("scores", "R7"), ("made", "P9")}
    assert found.kept and found.after <= found.before and found.mil < 2.0**-9
    made = TorchEngine(program.functions["main"]).run({"x": x.astype(np.float16)})
    right = torch.from_numpy(x.astype(np.float16).astype(np.float64)).log_softmax(-1).numpy()
    np.testing.assert_allclose(made["made"].astype(np.float64), right, rtol=2e-3, atol=2e-2)
    assert np.isfinite(made["made"]).all()


def test_ties_go_to_even_on_the_neural_engine_as_well() -> None:
    grid = np.concatenate([np.arange(-40, 40) / 4, [0.49976, -0.49976, 1023.5, 1022.5, 2049.0, 65504.0, 6e-8, -0.0]])
    half = tensor("fp16", len(grid))
    program, found = mended({"x": half}, [call("round", "made", half, x="x")], ["made"], x=grid)
    assert [(item.row, item.type) for item in found.mended] == [("R9", "round")]
    assert found.kept and found.after == found.mil == 0
    for how in (None, emulator("ane")):
        made = TorchEngine(program.functions["main"], emulate=how).run({"x": grid.astype(np.float16)})["made"]
        np.testing.assert_array_equal(made, np.round(grid.astype(np.float16)))


def test_a_remainder_of_large_values_is_computed_in_f32() -> None:
    """What no profile emulates is kept where it is no worse: here every element is the exact remainder's."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-4000, 4000, (4, 64)).astype(np.float16), rng.uniform(0.5, 7, 64).astype(np.float16)
    half = tensor("fp16", 4, 64)
    kinds = {"x": half, "y": tensor("fp16", 64)}
    program, found = mended(kinds, [call("mod", "made", half, x="x", y="y")], ["made"], x=x, y=y)
    assert [item.row for item in found.mended] == ["O9"] and found.kept
    made = TorchEngine(program.functions["main"]).run({"x": x, "y": y})["made"]
    np.testing.assert_array_equal(made, np.mod(x.astype(np.float64), y.astype(np.float64)).astype(np.float16))
