"""MIL's reductions, against numpy."""

import numpy as np

from tests.mil.ops.optable import VALUE, case, rows, table

RNG = np.random.default_rng(7)
X = RNG.uniform(0.25, 2, size=(2, 3, 4)) * RNG.choice([1, 1, 1, -1], size=(2, 3, 4))
POSITIVE = np.abs(X)
WHOLE = RNG.integers(1, 6, size=(2, 3, 4)).astype(np.int32)
EXACT_INTEGERS = ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "reduce_l1_norm", "reduce_sum_square")
INTEGERS = (*EXACT_INTEGERS, "reduce_mean", "reduce_l2_norm", "reduce_log_sum", "reduce_log_sum_exp")
MODES = (
    {},
    {"keep_dims": True},
    {"axes": [1]},
    {"axes": [-1], "keep_dims": True},
    {"axes": [0, 2]},
    {"axes": [-1, 0], "keep_dims": True},
)


def values(op):
    return POSITIVE if op == "reduce_log_sum" else X


CASES = rows(
    *[
        case(op, {"x": values(op)}, parameters=mode, expected=VALUE, label=f"mode{i}")
        for op in INTEGERS
        for i, mode in enumerate(MODES)
        if not (op == "reduce_log_sum_exp" and i == 0)  # coremltools cannot fold that one
    ],
    case("reduce_log_sum_exp", {"x": X * 20}, expected=lambda x: np.logaddexp.reduce(x.ravel())),
    *[case(op, {"x": WHOLE}, parameters={"axes": [1]}, label="int32") for op in EXACT_INTEGERS],
    *[
        case(op, {"x": WHOLE}, parameters={"axes": [1]}, label="int32")
        for op in INTEGERS
        if op not in (*EXACT_INTEGERS, "reduce_mean")
    ],
    case("reduce_mean", {"x": WHOLE - 3}, parameters={"axes": [2]}, label="int32"),
    case("reduce_sum", {"x": np.full(3000, 30.0)}, label="overflows-f16", expected=lambda x: x.sum()),
    case("reduce_mean", {"x": np.full(3000, 30.0)}, label="does-not-overflow", expected=lambda x: x.mean()),
    *[
        case(op, {"x": x}, parameters=mode, since=since, label=f"{x.dtype}-mode{i}")
        for op in ("reduce_argmax", "reduce_argmin")
        for since in (15, 17)
        for x in (X, RNG.permutation(24).reshape(2, 3, 4).astype(np.int32))
        for i, mode in enumerate(({}, {"axis": 1}, {"axis": -2, "keep_dims": True}))
    ],
    *[
        case(op, {"x": X}, parameters={"output_dtype": kind}, since=17)
        for op in ("reduce_argmax", "reduce_argmin")
        for kind in ("int32", "uint16")
    ],
)

# Core ML takes the maximum out on no unit: what f32 cannot hold is lost (fp32 rows: an f16 value of 100 is the same).
LOG_SUM_EXP = rows(
    *[
        case(
            "reduce_log_sum_exp",
            {"x": np.array([[value, 0.0], [0.0, -1.0]])},
            parameters={"axes": [1]},
            expected=np.array([wanted, np.logaddexp(0, -1)]),
            label=f"{value:g}",
            strict=strict,
        )
        for strict, value, wanted in ((False, 100.0, np.inf), (True, 100.0, 100.0), (False, 88.0, 88.0))
    ],
    *[
        case("reduce_log_sum_exp", {"x": np.array([-120.0, -121])}, expected=wanted, label="-120", strict=strict)
        for strict, wanted in ((False, -np.inf), (True, np.logaddexp(-120, -121)))
    ],
)

test_op = table(CASES)
test_measured = table(LOG_SUM_EXP)
