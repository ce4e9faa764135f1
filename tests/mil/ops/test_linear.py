"""MIL's matrix products, against numpy."""

import numpy as np

from tests.mil.ops.optable import case, rows, table

RNG = np.random.default_rng(3)
X = RNG.normal(size=(2, 3, 4))
WEIGHT = RNG.normal(size=(5, 4))
BIAS = RNG.normal(size=(5,))
WHOLE = RNG.integers(-9, 9, size=(3, 4)).astype(np.int32)


def linear(x, weight, bias=0.0):
    return x @ np.swapaxes(weight, -1, -2) + bias


def product(x, y, transpose_x=False, transpose_y=False):
    x = np.swapaxes(x, -1, -2) if transpose_x else x
    y = np.swapaxes(y, -1, -2) if transpose_y else y
    return np.matmul(x, y)


def einsum(values, equation):
    return np.einsum(equation, *values)


def batched(*shape):
    return RNG.normal(size=shape)


CASES = rows(
    case("linear", {"x": X}, parameters={"weight": WEIGHT, "bias": BIAS}, expected=linear, since=(15, 17)),
    case("linear", {"x": X}, parameters={"weight": WEIGHT}, expected=linear, label="no-bias"),
    case("linear", {"x": X[0, 0]}, parameters={"weight": WEIGHT}, expected=linear, label="rank1"),
    case(
        "linear",
        {"x": WHOLE},
        parameters={"weight": WHOLE[:2], "bias": np.array([3, -4], np.int32)},
        expected=linear,
    ),
    case(
        "linear",
        {"x": X},
        parameters={"weight": WEIGHT.astype(np.float32)},
        expected=linear,
        since=17,
        label="f32-weight",
    ),
    case(
        "linear",
        {"x": X},
        parameters={"weight": WHOLE[:2], "bias": np.array([3, -4], np.int32)},
        expected=linear,
        since=17,
        label="whole-weight",
    ),
    case(
        "linear",
        {"x": WHOLE},
        parameters={"weight": np.float32(WHOLE[:2] + 0.5) * 2, "bias": np.float32([3, -4])},
        expected=lambda x, weight, bias: np.int32(linear(np.float64(x), weight, bias)),
        since=17,
        label="whole-x",
    ),
    case("matmul", {"x": X[0], "y": X[1]}, parameters={"transpose_y": True}, expected=product),
    case("matmul", {"x": X[0], "y": X[1]}, parameters={"transpose_x": True}, expected=product, since=(15, 17)),
    case(
        "matmul",
        {"x": X[0], "y": WEIGHT[:, :3].copy()},
        parameters={"transpose_x": True, "transpose_y": True},
        expected=product,
    ),
    case("matmul", {"x": batched(10, 4, 3), "y": batched(5, 10, 3, 2)}, expected=product, label="broadcast"),
    case("matmul", {"x": batched(3), "y": batched(2, 3, 4)}, expected=product, label="vector"),
    case("matmul", {"x": WHOLE, "y": WHOLE.T.copy()}, expected=product),
    case("matmul", {"x": X}, parameters={"y": np.float32(WEIGHT.T)}, expected=product, since=17, label="f32-constant"),
    case("matmul", {"x": X}, parameters={"y": WHOLE.T.copy()}, expected=product, since=17, label="whole-constant"),
    case(
        "einsum",
        {"values": (batched(2, 3, 4, 5), batched(2, 5, 4, 6))},
        parameters={"equation": "nchw,nwhu->nchu"},
        expected=einsum,
    ),
    case(
        "einsum",
        {"values": (batched(1, 3, 4, 5), batched(2, 5, 1, 6))},
        parameters={"equation": "abcd,adce->abce"},
        expected=lambda values, equation: np.einsum(
            equation, np.broadcast_to(values[0], (2, 3, 4, 5)), np.broadcast_to(values[1], (2, 5, 4, 6))
        ),
        label="broadcast",
    ),
    case(
        "einsum",
        {"values": (batched(3, 4, 5), batched(5, 4, 6))},
        parameters={"equation": "chw,whr->chr"},
        expected=einsum,
    ),
)

test_op = table(CASES)
