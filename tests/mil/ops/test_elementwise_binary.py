"""MIL's elementwise operations on two tensors, against numpy."""

import numpy as np

from tests.mil.ops.optable import case, rows, table

RNG = np.random.default_rng(2)
X = RNG.normal(size=(2, 3, 4)) * 5
Y = RNG.normal(size=(2, 3, 4)) * 2
ROW = RNG.normal(size=(4,))
COLUMN = RNG.normal(size=(3, 1))
A = np.array([[7, -7, 7, -7, 5, 0]], dtype=np.int32)
B = np.array([[2, 2, -2, -2, 1, 3]], dtype=np.int32)
SAME = np.round(X)
YES = np.array([[True, True], [False, False]])
OR_NO = np.array([[True, False], [True, False]])

ARITHMETIC = ("add", "sub", "mul", "floor_div", "mod", "maximum", "minimum")
COMPARISONS = ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")

CASES = rows(
    *[case(op, {"x": X, "y": Y}) for op in (*ARITHMETIC, "real_div")],
    *[case(op, {"x": X, "y": ROW}, label="row") for op in ARITHMETIC],
    *[case(op, {"x": COLUMN, "y": X}, label="column") for op in ARITHMETIC],
    *[case(op, {"x": X}, parameters={"y": 2.5}, label="scalar") for op in ARITHMETIC],
    *[case(op, {"x": A, "y": B}) for op in ARITHMETIC],
    case("real_div", {"x": A, "y": B}, expected=lambda x, y: np.trunc(x / y).astype(np.int32)),
    case("real_div", {"x": X, "y": np.zeros(4)}, expected=lambda x, y: np.where(x > 0, np.inf, -np.inf), label="by-0"),
    case("floor_div", {"x": A}, parameters={"y": np.int32(0)}, expected=lambda x, y: 0 * x, label="by-0"),
    case("mod", {"x": A}, parameters={"y": np.int32(0)}, expected=lambda x, y: 0 * x, label="by-0"),
    case("pow", {"x": np.abs(X), "y": Y}),
    case("pow", {"x": X}, parameters={"y": 2.0}, label="scalar"),
    case("pow", {"x": A, "y": np.abs(B)}),
    *[case(op, {"x": SAME, "y": SAME[:1]}) for op in COMPARISONS],
    *[case(op, {"x": A, "y": B}) for op in COMPARISONS],
    *[case(op, {"x": YES, "y": OR_NO}) for op in ("logical_and", "logical_or", "logical_xor")],
)

test_op = table(CASES)
