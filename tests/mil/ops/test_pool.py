"""MIL's pools, against loops in numpy."""

import functools

import numpy as np

from tests.mil.ops import windows
from tests.mil.ops.optable import case, rows, table

RNG = np.random.default_rng(5)
X = {1: RNG.normal(size=(2, 3, 9)), 2: RNG.normal(size=(2, 3, 7, 8)), 3: RNG.normal(size=(1, 2, 4, 5, 6))}
KERNELS = {1: [4], 2: [3, 2], 3: [2, 3, 2]}
STRIDES = {1: [2], 2: [2, 3], 3: [1, 2, 2]}
EVEN = {1: [2, 2], 2: [1, 1, 1, 1], 3: [1, 1, 0, 0, 1, 1]}
UNEVEN = {1: [1, 2], 2: [2, 0, 1, 1], 3: [1, 0, 0, 2, 1, 0]}


def pool(kind):
    def run(x, kernel_sizes, exclude_padding_from_average=False, **rest):
        return windows.pool(kind, x, kernel_sizes, exclude=exclude_padding_from_average, **rest)

    return run


def modes(rank):
    yield "valid", 15, {"pad_type": "valid"}
    yield "strides", 15, {"pad_type": "valid", "strides": STRIDES[rank]}
    yield "same", 15, {"pad_type": "same", "strides": STRIDES[rank]}
    yield "same_lower", 16, {"pad_type": "same_lower"}
    yield "even", 15, {"pad_type": "custom", "pad": EVEN[rank]}
    yield "uneven", 15, {"pad_type": "custom", "pad": UNEVEN[rank], "strides": STRIDES[rank]}
    if rank < 3:
        yield "ceil", 15, {"pad_type": "valid", "strides": [3] * rank, "ceil_mode": True}
        yield "ceil-padded", 15, {"pad_type": "custom", "pad": EVEN[rank], "strides": [3] * rank, "ceil_mode": True}


CASES = rows(
    *[
        case(
            f"{kind}_pool",
            {"x": X[rank]},
            parameters={"kernel_sizes": KERNELS[rank], **extra, **more},
            expected=pool(kind),
            since=since,
            label=f"{rank}d-{name}{'-exclude' if more else ''}",
        )
        for kind, ranks, extras in (
            ("max", (1, 2, 3), ({},)),
            ("avg", (1, 2, 3), ({}, {"exclude_padding_from_average": True})),
            ("l2", (1, 2), ({},)),
        )
        for rank in ranks
        for name, since, extra in modes(rank)
        for more in extras
    ],
    case(
        "max_pool",
        {"x": -np.abs(X[2]) - 1},
        parameters={"kernel_sizes": [3, 3], "pad_type": "same"},
        expected=functools.partial(windows.pool, "max"),
        dims={"x": (None, 3, None, None)},
        label="open",
    ),
)

test_op = table(CASES)
