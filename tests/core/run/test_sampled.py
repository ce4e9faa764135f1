"""Each check on values that its row is about, and on the nearest that it is not about.

Covers tlkit/core/run/value_checks.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.mil.programs import call, function, tensor
from tests.mil.risks.programs import ints, strings, value
from tlkit.core.run.sampled import sampled_risks
from tlkit.core.run.value_checks import checks
from tlkit.mil.program import Function, TensorType

INF = float("inf")
DTYPES = {"fp16": np.float16, "fp32": np.float32, "int32": np.int32}


def found(
    type_: str, dtype: str, x: Any, out: TensorType | None = None, opset: str = "CoreML7", /, **inputs: Any
) -> str:
    """The rows that one operation on ``x`` falls under; further arrays are inputs of the function, too."""
    arrays = {"x": np.asarray(x, DTYPES[dtype])}
    arrays |= {name: given for name, given in inputs.items() if isinstance(given, np.ndarray)}
    kinds = {name: tensor("int32" if a.dtype.kind == "i" else dtype, *a.shape) for name, a in arrays.items()}
    called = {name: name if name in arrays else given for name, given in inputs.items()}
    operation = call(type_, "made", out or kinds["x"], x="x", **called)
    return rows(function(kinds, [operation], ["made"], opset), **arrays)


def rows(program: Function, **arrays: np.ndarray) -> str:
    told = sampled_risks(program, arrays)
    assert all(risk.places == ("made",) for risk in told)
    return " ".join(risk.row for risk in told)


def test_sums_beyond_the_accumulator_and_products_below_it() -> None:
    ones, out = np.ones((1, 4)), tensor("fp16", 1, 1)
    full = [np.full((4, 1), size, np.float16) for size in (8192, 8176, 2.0**-15, 2.0**-14)]
    assert [found("matmul", "fp16", ones, out, y=y) for y in full] == ["P4", "", "P4", ""]
    assert found("matmul", "fp32", ones, tensor("fp32", 1, 1), y=full[0].astype(np.float32)) == ""
    zeros = np.array([[0], [0], [0], [1]], np.float16)
    assert found("matmul", "fp16", ones, out, y=zeros) == ""  # what a mask leaves out counts for nothing


def test_a_nan_is_told_where_it_arises() -> None:
    log = {"epsilon": value(0.0, "fp32")}
    assert found("log", "fp32", [-1.0, 1], **log) == "P8"
    assert found("log", "fp32", [np.nan, 1], **log) == ""
    assert found("log", "fp32", [0.0, 1], **log) == ""
    assert found("sub", "fp32", [INF, 1], y=np.array([INF, 1], np.float32)) == "P8"


def test_an_overflow_of_f16_is_told_where_it_arises() -> None:
    assert found("square", "fp16", [300.0, 1]) == "P12" and found("square", "fp16", [255.0, 1]) == ""
    assert found("square", "fp16", [INF, 1]) == ""
    assert found("square", "fp32", [1e30, 1]) == ""
    assert found("cast", "fp32", [70000.0], tensor("fp16", 1), dtype=strings("fp16")) == "P12"
    row = np.full((1, 4), 200.0)
    assert found("matmul", "fp16", row, tensor("fp16", 1, 1), y=np.full((4, 1), 200, np.float16)) == "P4 P12"


def test_rows_that_are_masked_whole() -> None:
    softmax = {"axis": value(-1, "int32")}
    assert found("softmax", "fp32", [[-INF, -INF], [0, 1]], **softmax) == "P8 O6"
    assert found("softmax", "fp32", [[-INF, 0], [0, -INF]], **softmax) == ""


@pytest.mark.parametrize(
    ("dtype", "inside", "outside"),
    [("int16", [-32768, 32767], 32768), ("uint16", [0, 65535], -1), ("int8", [127], 128)],
)
def test_casts_that_do_not_hold_their_values(dtype: str, inside: list[int], outside: int) -> None:
    cast = {"dtype": strings(dtype)}
    assert found("cast", "int32", inside, tensor(dtype, len(inside)), **cast) == ""
    assert found("cast", "int32", [outside], tensor(dtype, 1), **cast) == "P14"


def test_whole_numbers_beyond_f32() -> None:
    at = np.array([2**23], np.int32)
    assert found("add", "int32", at, y=at) == ""
    assert found("add", "int32", at, y=at + 1) == "P15"
    assert found("add", "fp32", [3e7], y=np.array([3e7], np.float32)) == ""


@pytest.mark.parametrize(
    ("type_", "opset", "indices", "row"),
    [
        ("gather", "CoreML7", [0, 3], ""),
        ("gather", "CoreML7", [0, 4], "O8"),
        ("gather", "CoreML7", [-1, 0], "O8"),
        ("gather", "CoreML6", [-1, 0], ""),
        ("gather_nd", "CoreML7", [[3, 1]], ""),
        ("gather_nd", "CoreML7", [[1, 3]], "O8"),
        ("gather_nd", "CoreML6", [[-1, 0]], "O8"),
    ],
)
def test_unchecked_indices_out_of_range(type_: str, opset: str, indices: Any, row: str) -> None:
    given = {"indices": np.array(indices, np.int32)} | ({"axis": value(0, "int32")} if type_ == "gather" else {})
    assert found(type_, "fp32", np.ones((4, 2)), tensor("fp32", 2, 2), opset, **given) == row


def test_functions_that_leave_their_range() -> None:
    assert found("softplus", "fp16", [10.4]) == "R1" and found("softplus", "fp16", [10.2]) == ""
    assert found("softplus", "fp32", [30.0]) == ""
    assert found("mod", "fp16", [1025], y=np.array([7], np.float16)) == "O9"
    assert found("mod", "fp16", [1024], y=np.array([7], np.float16)) == ""
    axes = {"axes": ints(0), "keep_dims": value(False, "bool")}
    for dtype, most in (("fp16", np.log(65504 / 32)), ("fp32", np.log(np.finfo(np.float32).max / 32))):
        out = tensor(dtype)
        assert found("reduce_log_sum_exp", dtype, np.full(32, most + 0.1), out, **axes) == "R2"
        assert found("reduce_log_sum_exp", dtype, np.full(32, most - 0.1), out, **axes) == ""


def test_norms_without_variance_and_ties() -> None:
    norm = {"axes": ints(1), "epsilon": value(1e-5, "fp16")}
    assert found("layer_norm", "fp16", [[0, 0], [1, 2]], **norm) == "R5"
    assert found("layer_norm", "fp16", [[0, 1], [1, 2]], **norm) == ""
    assert found("round", "fp32", [0.5, 1]) == "R9" and found("round", "fp32", [-1.5]) == "R9"
    assert found("round", "fp32", [0.4999, 1]) == ""


def test_every_check_is_for_a_row_that_the_page_says_is_warned_of(root: Path) -> None:
    page = (root / "docs/fidelity.md").read_text().splitlines()
    for item in checks():
        (line,) = [line for line in page if line.startswith(f"| {item.row} |")]
        assert "warned" in line


def test_logarithms_of_zeros_low_masks_and_long_sums() -> None:
    half = tensor("fp16", 1, 4)
    zero, small = np.array([[0.0, 1, 2, 3]]), np.array([[6e-8, 1, 2, 3]])
    assert [found("log", "fp16", x, half) for x in (zero, small)] == ["P9", ""]
    assert found("log", "fp16", zero, half, epsilon=value(1e-3, "fp16")) == ""
    softmax = call("softmax", "p", half, x="made", axis=value(-1, "int32"))
    for fill, row in ((-65504.0, "R7"), (-6e4, "")):
        mask = np.array([[0, 0, 0, fill]], np.float16)
        steps = [call("add", "made", half, x="x", y="mask"), softmax]
        assert rows(function({"x": half, "mask": half}, steps, ["p"]), x=small.astype(np.float16), mask=mask) == row
    # 4096 keys: each product is 16 steps of the accumulator, and a typical sum no larger than what the steps lose.
    weights, keys = np.full((1, 4096), 2.0**-12, np.float16), np.random.default_rng(0).standard_normal((4096, 1))
    kinds = {"x": tensor("fp16", 1, 4096), "y": tensor("fp16", 4096, 1)}
    program = function(kinds, [call("matmul", "made", tensor("fp16", 1, 1), x="x", y="y")], ["made"])
    assert rows(program, x=weights, y=keys.astype(np.float16)) == "P4"
    assert rows(program, x=weights * np.float16(64), y=keys.astype(np.float16)) == ""


def test_what_was_measured_is_told() -> None:
    half = tensor("fp16", 4)
    x = np.array([-1, 2, 11, np.inf], np.float16)
    (risk,) = sampled_risks(function({"x": half}, [call("softplus", "made", half, x="x")], ["made"]), {"x": x})
    told = {span.value: (span.least, span.largest) for span in risk.measured}
    assert told == {"x": (-1, 11), "result": (float(np.float16(np.log1p(np.exp(-1)))), INF)}
    assert {span.place for span in risk.measured} == {"made"}
