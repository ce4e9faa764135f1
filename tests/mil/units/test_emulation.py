"""Programs run by the profiles of units, against what was published of those.

Covers tlkit/mil/units/functions.py, tlkit/mil/units/products.py, tlkit/mil/units/profiles.py.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.mil.programs import call, constant, function, tensor
from tests.mil.risks.programs import ints, strings, value
from tlkit.engines.torch.engine import TorchEngine
from tlkit.errors import UsageError
from tlkit.mil.lower.lower import lower
from tlkit.mil.program import Function, TensorType
from tlkit.mil.units import products
from tlkit.mil.units.accumulators import WideSums
from tlkit.mil.units.emulation import Emulation
from tlkit.mil.units.profiles import is_measured, profile_named, profile_of, profiles, rules

NAN, INF = math.nan, math.inf


def engine(program: Function, profile: str) -> TorchEngine:
    chosen = profile_named(profile)
    return TorchEngine(program, emulate=lambda _: Emulation(lambda _: chosen))


def run(profile: str, type_: str, x: Any, out: TensorType | None = None, **inputs: Any) -> list[float]:
    """One operation on ``x``; arrays among the inputs are the function's own, too."""
    arrays = {"x": np.asarray(x, np.float16)}
    arrays |= {name: given for name, given in inputs.items() if isinstance(given, np.ndarray)}
    kinds = {name: tensor("fp16", *array.shape) for name, array in arrays.items()}
    called = {name: name if name in arrays else given for name, given in inputs.items()}
    program = function(kinds, [call(type_, "made", out or kinds["x"], x="x", **called)], ["made"], "CoreML7")
    found: list[float] = engine(program, profile).run(arrays)["made"].ravel().tolist()
    return found


def test_the_neural_engine_never_returns_a_nan() -> None:
    assert run("ane", "add", [NAN, INF, 2048], y=np.array([1, -INF, 1], np.float16)) == [INF, 0.0, 2050.0]
    assert run("ane", "mul", [0, NAN], y=np.array([INF, 0], np.float16)) == [0.0, 0.0]
    assert run("ane", "relu", [NAN, -1]) == [INF, 0.0]
    assert run("ane", "tanh", [NAN]) == run("ane", "erf", [NAN]) == [1.0]
    assert run("ane", "sqrt", [-1.0]) == run("ane", "rsqrt", [-1.0]) == run("ane", "log", [-1.0]) == [0.0]
    assert run("ane", "softmax", [NAN, 5.0, 1.0]) == [1.0, 0.0, 0.0]
    assert run("ane", "round", [2.5, -2.5, NAN]) == [3.0, -3.0, INF]
    # The specification, beside it.
    assert math.isnan(run("mil", "add", [NAN], y=np.array([1], np.float16))[0])
    assert run("mil", "round", [2.5]) == run("ane-m1", "round", [2.5]) == [2.0]


def test_ties_of_elementwise_operations() -> None:
    one = np.array([1], np.float16)
    assert [run(profile, "add", [2048], y=one) for profile in ("ane-m4", "ane-m1", "cpu", "gpu", "mil")] == [
        [2050.0],
        [2048.0],
        [2048.0],
        [2048.0],
        [2048.0],
    ]


def test_softplus_and_sums_of_exponentials() -> None:
    assert run("ane", "softplus", [10.3, 10.41, INF]) == [pytest.approx(10.3, abs=0.01), 0.0, 0.0]
    assert run("ane", "softsign", [INF]) == [0.0]
    out = tensor("fp16", 1)
    assert run("ane", "reduce_log_sum_exp", [7.63] * 32, out, axes=ints(0), keep_dims=value(True, "bool")) == [0.0]
    assert run("cpu", "reduce_log_sum_exp", [7.63] * 32, out, axes=ints(0), keep_dims=value(True, "bool"))[0] > 11


def test_cpu_and_gpu_keep_a_softmax_wide_before_its_logarithm() -> None:
    kind = tensor("fp16", 2)
    program = function(
        {"x": kind},
        [
            call("softmax", "s", kind, x="x", axis=value(0, "int32")),
            call("log", "made", kind, x="s", epsilon=value(2.0**-149, "fp32")),
        ],
        ["made"],
    )
    x = {"x": np.array([0, -30], np.float16)}
    least = {name: float(engine(program, name).run(x)["made"][1]) for name in ("mil", "ane", "cpu", "gpu")}
    assert least == {"mil": -103.25, "ane": -45440.0, "cpu": -30.0, "gpu": -30.0}


def quantized_product(clipped: bool, scale: float) -> float:
    """Two dequantized values multiplied and quantized by ``scale``, as published for an M5 Pro: all ones."""
    byte, half = tensor("int8", 4), tensor("fp16", 4)
    made = [
        constant("s", 1 / 16, "fp16"),
        constant("t", scale, "fp16"),
        *(call("quantize", f"q{i}", byte, input="x", scale="s", output_dtype=strings("int8")) for i in range(2)),
        *(call("dequantize", f"d{i}", half, input=f"q{i}", scale="s") for i in range(2)),
        call("mul", "p", half, x="d0", y="d1"),
    ]
    if clipped:
        made.append(call("clip", "c", half, x="p", alpha=value(-9.0, "fp16"), beta=value(9.0, "fp16")))
    made += [
        call("quantize", "q", byte, input="c" if clipped else "p", scale="t", output_dtype=strings("int8")),
        call("dequantize", "made", half, input="q", scale="t"),
    ]
    program = function({"x": half}, made, ["made"])
    return float(engine(program, "ane").run({"x": np.ones(4, np.float16)})["made"][0])


def test_a_quantized_product_takes_the_wrong_scale() -> None:
    assert [quantized_product(False, scale) for scale in (1 / 16, 1 / 8, 1 / 4, 1 / 2)] == [1.0, 2.0, 4.0, 8.0]
    assert [quantized_product(True, scale) for scale in (1 / 16, 1 / 8, 1 / 4, 1 / 2)] == [1.0] * 4


def test_int8_sums_have_no_limit_of_32768_and_end_at_int32s() -> None:
    def summed(count: int) -> float:
        byte, half, out = tensor("int8", 1, count), tensor("fp16", 1, count), tensor("fp16", 1, 1)
        steps = [
            constant("s", 2.0**-8, "fp16"),
            call("quantize", "q", byte, input="x", scale="s", output_dtype=strings("int8")),
            call("dequantize", "d", half, input="q", scale="s"),
            call("quantize", "r", byte, input="x", scale="s", output_dtype=strings("int8")),
            call("dequantize", "e", half, input="r", scale="s"),
            call("matmul", "made", out, x="d", y="e", transpose_y=value(True, "bool")),
        ]
        program = function({"x": half}, steps, ["made"])
        return float(engine(program, "ane").run({"x": np.full((1, count), 0.5, np.float16)})["made"][0, 0])

    assert summed(4) == float(np.float16(4 * (127 / 256) ** 2))
    assert summed(133_143) == pytest.approx(133_143 * (127 / 256) ** 2, rel=1e-3)  # 2^31 - 2,656 steps
    assert summed(133_150) == INF


def test_attention_of_many_keys_loses_what_was_published() -> None:
    rng = np.random.default_rng(3)
    weights = np.full((16, 4096), 1 / 4096, np.float16)  # published: about 2.4e-4
    values = (rng.standard_normal((4096, 32)) * 0.5).astype(np.float16)
    out = tensor("fp16", 16, 32)
    wanted = (weights.astype(np.float64) @ values.astype(np.float64)).ravel()

    def off(scale: int, given: np.ndarray[Any, Any]) -> float:
        made = np.array(run("ane", "matmul", weights * np.float16(scale), out, y=given)) / scale
        return float(np.linalg.norm(made - wanted) / np.linalg.norm(wanted))

    for scale, published in ((1, 3.95e-2), (16, 2.2e-3), (64, 6.0e-4)):
        assert published / 1.3 < off(scale, values) < published * 1.3
    assert not any(run("ane", "matmul", weights, out, y=np.full((4096, 32), 0.01, np.float16)))


def convolutions() -> list[tuple[str, dict[str, Any], tuple[int, ...], tuple[int, ...]]]:
    same, custom = strings("same"), strings("custom")
    uneven = {"pad": ints(1, 0, 1, 1), "pad_type": custom}
    return [
        ("conv", {"pad_type": same, "strides": ints(2, 2)}, (2, 4, 7, 6), (6, 4, 3, 3)),
        ("conv", {"groups": value(2, "int32"), "dilations": ints(2, 1)}, (1, 4, 9, 6), (6, 2, 3, 2)),
        ("conv", {"pad_type": custom, "pad": ints(2, 1)}, (1, 3, 11), (5, 3, 4)),
        ("conv", {}, (1, 2, 4, 5, 4), (3, 2, 2, 2, 2)),
        ("conv_transpose", {"strides": ints(2, 3), "pad_type": strings("valid")}, (1, 4, 3, 4), (4, 3, 3, 2)),
        ("conv_transpose", {"groups": value(2, "int32"), **uneven}, (2, 4, 5, 4), (4, 2, 3, 3)),
        ("conv_transpose", {"strides": ints(2), "pad_type": same}, (1, 2, 5), (2, 3, 4)),
    ]  # fmt: skip


@pytest.mark.parametrize(("type_", "given", "shape", "weight"), convolutions())
def test_convolutions_go_over_the_same_products(
    type_: str, given: dict[str, Any], shape: tuple[int, ...], weight: tuple[int, ...]
) -> None:
    """Small whole numbers, whose sums every unit makes alike."""
    rng = np.random.default_rng(1)
    x, w = (rng.integers(-4, 5, size).astype(np.float16) for size in (shape, weight))
    outputs = weight[0] if type_ == "conv" else weight[1] * (2 if "groups" in given else 1)
    bias = constant("b", rng.integers(-3, 4, outputs), "fp16")
    kinds = {"x": tensor("fp16", *shape), "w": tensor("fp16", *weight)}
    out = tensor("fp16", *(None,) * len(shape))
    program = function(kinds, [bias, call(type_, "made", out, x="x", weight="w", bias="b", **given)], ["made"])
    found = [engine(program, name).run({"x": x, "w": w})["made"] for name in ("mil", "ane", "ane:exact", "cpu", "gpu")]
    assert np.abs(found[0]).max() > 9
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def test_other_products_go_over_the_same_products() -> None:
    rng = np.random.default_rng(2)
    a, b = (torch.from_numpy(rng.integers(-4, 5, size).astype(np.float32)) for size in ((2, 3, 4, 5), (2, 5, 4, 6)))
    wanted = torch.einsum("nchw,nwhu->nchu", a, b)
    assert torch.equal(products.einsum(WideSums(), (a, b), "nchw,nwhu->nchu"), wanted)
    kinds = {"x": tensor("fp16", 2, 3, 5, 4), "y": tensor("fp16", 3, 6, 4)}
    steps = [call("matmul", "made", tensor("fp16", 2, 3, 5, 6), x="x", y="y", transpose_y=value(True, "bool"))]
    given = {name: rng.integers(-4, 5, kind.shape).astype(np.float16) for name, kind in kinds.items()}
    program = function(kinds, steps, ["made"])
    for name in ("ane", "ane-m1", "cpu"):
        np.testing.assert_array_equal(
            engine(program, name).run(given)["made"], engine(program, "mil").run(given)["made"]
        )


def test_an_m1_clears_large_values_of_a_slice_along_the_width() -> None:
    given = {"begin": ints(0, 1), "end": ints(1, 4), "size": ints(1, 3)}
    x = np.array([[1, 4096, 2, -5000]], np.float16)
    by_index = {name: given[name] for name in ("begin", "end")}
    assert run("ane-m1", "slice_by_index", x, tensor("fp16", 1, 3), **by_index) == [INF, 2.0, -INF]
    assert run("ane-m4", "slice_by_index", x, tensor("fp16", 1, 3), **by_index) == [4096.0, 2.0, -5000.0]


def test_f32_operations_are_left_to_mil_and_those_without_a_rule_are_counted() -> None:
    wide, half = tensor("fp32", 4), tensor("fp16", 4)
    steps = [call("softplus", "a", wide, x="x"), call("cast", "b", half, x="a", dtype=strings("fp16"))]
    program = function({"x": wide}, [*steps, call("square", "made", half, x="b")], ["made"])
    made = engine(program, "ane")
    assert made.run({"x": np.full(4, 11.0, np.float32)})["made"].tolist() == [121.0] * 4
    assert made.emulation is not None and made.emulation.plain == {"square": 1, "cast": 1}
    assert {item.rule for item in made.emulation.used()} == {"ties-away", "no-nan"}


def test_a_program_without_an_emulation_is_lowered_as_before() -> None:
    kind = tensor("fp16", 4)
    program = function({"x": kind}, [call("softplus", "made", kind, x="x")], ["made"])
    assert [str(node.target) for node in lower(program).graph.nodes if node.op == "call_function"] == [
        str(node.target) for node in lower(program, emulation=None).graph.nodes if node.op == "call_function"
    ]


def test_profiles_name_rules_that_exist_and_rows_of_the_findings() -> None:
    text = (Path(__file__).parents[3] / "docs" / "fidelity.md").read_text("utf-8")
    for profile in profiles().values():
        for name in profile.rules:
            rule = rules()[name]
            assert rule.trust[0] in "HM" and all(f"| {row} |" in text for row in rule.row.split(", "))


def test_names_of_profiles() -> None:
    assert profile_named("ane").name == "ane-m4" and profile_named("ane:exact").exact
    assert [profile_of("ane", chip).name for chip in ("M1 Max", "A14", "A12", "M2", "M4 Pro", "A17 Pro")] == [
        "ane-m1",
        "ane-m1",
        "ane-m1",
        "ane-m4",
        "ane-m4",
        "ane-m4",
    ]
    assert is_measured("M5 Max") and not is_measured("M2")
    with pytest.raises(UsageError, match="no such profile") as error:
        profile_named("tpu")
    assert "ane-m1" in error.value.hint and "auto" in error.value.hint
