"""MIL's activations against formulas in numpy."""

import numpy as np

from tests.mil.ops.optable import VALUE, case, rows, table

X = np.random.default_rng(0).normal(size=(2, 3, 4))

CASES = rows(
    case("relu", {"x": X}, expected=lambda x: np.maximum(x, 0)),
    case("softmax", {"x": X}, parameters={"axis": 1}, expected=VALUE),
)

test_op = table(CASES)
