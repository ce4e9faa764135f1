"""MIL's elementwise operations on one tensor, against numpy."""

import math

import numpy as np

from tests.mil.ops.optable import case, rows, table

RNG = np.random.default_rng(1)
X = RNG.normal(size=(2, 3, 4)) * 2
UNIT = np.array([-1.0, -0.75, 0.0, 0.5, 1.0])
POSITIVE = RNG.uniform(0.1, 40, size=(3, 4))
HALVES = np.array([-2.5, -1.5, -0.5, 0.0, 0.49, 0.5, 1.5, 2.5, 1e4])
WHOLE = np.array([[-3, 0, 2], [7, -1, 1]], dtype=np.int32)


def number(kind):
    """A few values that every integer type holds."""
    return np.array([[0, 1, 2], [3, 100, 127]], dtype=kind)


INTEGERS = (np.int8, np.uint8, np.int16, np.uint16, np.int32)

CASES = rows(
    case("abs", {"x": X}),
    case("abs", {"x": WHOLE}),
    case(
        "abs",
        {"x": np.array([-0.75])},
        program=lambda mb, x: mb.abs(x=mb.squeeze(x=x)),
        expected=lambda x: np.array(0.75),
        label="rank0",
    ),
    case("acos", {"x": UNIT}),
    case("asin", {"x": UNIT}),
    case("atan", {"x": X}),
    case("atanh", {"x": UNIT}, expected=lambda x: np.arctanh(x)),
    case("ceil", {"x": HALVES}),
    case("clip", {"x": X}, parameters={"alpha": -1.0, "beta": 0.5}, since=(15, 17)),
    case("clip", {"x": X}, parameters={"alpha": 1.0, "beta": -0.5}, label="crossed"),
    case("cos", {"x": X}),
    case("cosh", {"x": X}),
    case("erf", {"x": X}, expected=lambda x: np.vectorize(math.erf)(x)),
    case("exp", {"x": X}),
    case("exp", {"x": np.array([12.0, 88.0, -20.0])}, expected=lambda x: np.exp(x), label="overflows-f16"),
    case("exp2", {"x": X}),
    case("exp2", {"x": np.array([0, 3, 10], dtype=np.int32)}, expected=lambda x: 2**x),
    case("floor", {"x": HALVES}),
    case("inverse", {"x": POSITIVE}, since=(15, 17)),
    case("inverse", {"x": POSITIVE}, parameters={"epsilon": 0.5}, since=(15, 17)),
    case("inverse", {"x": POSITIVE}, parameters={"epsilon": np.float32(0.1)}, since=17, label="f32-epsilon"),
    case("log", {"x": POSITIVE}, since=(15, 17)),
    case("log", {"x": np.array([0.0, 1e-3])}, dtypes=("fp16",), expected=lambda x: np.log(x), label="zero"),
    case("log", {"x": POSITIVE}, parameters={"epsilon": 0.5}, since=(15, 17)),
    case("logical_not", {"x": np.array([True, False])}),
    case("round", {"x": HALVES}, expected=lambda x: np.round(x)),
    case("rsqrt", {"x": POSITIVE}, since=(15, 17)),
    case("rsqrt", {"x": POSITIVE}, parameters={"epsilon": 0.25}, since=(15, 17)),
    case("sign", {"x": HALVES}),
    case("sign", {"x": WHOLE}),
    case("sin", {"x": X}),
    case("sinh", {"x": X}),
    case("sqrt", {"x": POSITIVE}),
    case("sqrt", {"x": np.array([-1.0, 0.0])}, expected=lambda x: np.array([np.nan, 0.0]), label="negative"),
    case("square", {"x": X}),
    case("square", {"x": np.array([300.0, 1e-5])}, expected=lambda x: np.square(x), label="overflows-f16"),
    case("square", {"x": WHOLE}),
    case("tan", {"x": UNIT}),
    case("tanh", {"x": X}),
    case("threshold", {"x": X}, parameters={"alpha": 0.25}),
    case("threshold", {"x": WHOLE}, parameters={"alpha": np.int32(1)}),
    *[
        case("cast", {"x": number(a)}, parameters={"dtype": np.dtype(b).name}, expected=lambda x, dtype: x, since=17)
        for a in (*INTEGERS, np.float16, np.float32)
        for b in INTEGERS
    ],
    *[
        case("cast", {"x": number(a)}, parameters={"dtype": b}, expected=lambda x, dtype: x, since=17)
        for a in (*INTEGERS, np.float16, np.float32)
        for b in ("fp16", "fp32")
    ],
    case("cast", {"x": np.array([1.75, -1.75, 0.5, -0.5])}, parameters={"dtype": "int32"}),
    case(
        "cast",
        {"x": np.array([3e9, -3e9, np.nan, np.inf], np.float32)},
        parameters={"dtype": "int32"},
        expected=lambda x, dtype: np.array([2**31 - 1, -(2**31), 0, 2**31 - 1]),
        label="saturates",
    ),
    case(
        "cast",
        {"x": np.array([300.0, -300.0, 2.9, np.nan, np.inf, -np.inf])},
        parameters={"dtype": "int8"},
        expected=lambda x, dtype: np.array([127, -128, 2, 0, 127, -128]),
        since=17,
    ),
    case(
        "cast",
        {"x": np.array([300.0, -300.0, 2.9, np.nan, np.inf, -np.inf])},
        parameters={"dtype": "uint16"},
        expected=lambda x, dtype: np.array([300, 0, 2, 0, 65535, 0]),
        since=17,
    ),
    case(
        "cast",
        {"x": np.array([-1, 300, 70000], dtype=np.int32)},
        parameters={"dtype": "uint8"},
        expected=lambda x, dtype: x.astype(np.uint8),
        since=17,
        label="wraps",
    ),
    case(
        "cast",
        {"x": np.array([-1, 300, 70000], dtype=np.int32)},
        parameters={"dtype": "uint16"},
        expected=lambda x, dtype: x.astype(np.uint16),
        since=17,
        label="wraps",
    ),
    case("cast", {"x": np.array([0.0, 0.5, -2.0])}, parameters={"dtype": "bool"}),
    case("cast", {"x": WHOLE}, parameters={"dtype": "bool"}),
    case("cast", {"x": np.array([True, False])}, parameters={"dtype": "int32"}),
    case("cast", {"x": np.array([True, False])}, parameters={"dtype": "fp32"}),
)

test_op = table(CASES)
