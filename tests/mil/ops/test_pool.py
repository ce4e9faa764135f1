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


def pool(kind, strict=True):
    def run(x, kernel_sizes, exclude_padding_from_average=False, **rest):
        return windows.pool(kind, x, kernel_sizes, exclude=exclude_padding_from_average, overhang=not strict, **rest)

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
            expected=pool(kind, strict),
            since=since,
            strict=strict,
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
        for strict in ((False, True) if kind == "avg" and "ceil" in name else (False,))
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

# What a Mac printed for arange(49) as 1x1x7x7, and for a 1-d tail, where PyTorch divides by what is not overhang.
SEEN = np.arange(49.0).reshape(1, 1, 7, 7)
EDGES = {False: [4.75, 15.25, 21.25, 22.75, 12], True: [9.5, 30.5, 42.5, 45.5, 48]}
MEASURED = rows(
    *[
        case(
            "avg_pool",
            {"x": SEEN},
            parameters={"kernel_sizes": [2, 2], "strides": [3, 3], "pad_type": "valid", "ceil_mode": True},
            expected=np.array([[4, 7, a], [25, 28, b], [c, d, e]])[None, None],
            label=f"edges {'torch' if strict else 'Mac'}",
            strict=strict,
        )
        for strict, (a, b, c, d, e) in EDGES.items()
    ],
    *[
        case(
            "avg_pool",
            {"x": np.arange(7.0).reshape(1, 1, 7)},
            parameters={"kernel_sizes": [2], "strides": [3], "pad_type": "valid", "ceil_mode": True},
            expected=np.array([[[0.5, 3.5, tail]]]),
            label=f"tail {'torch' if strict else 'Mac'}",
            strict=strict,
        )
        for strict, tail in {False: 3.0, True: 6.0}.items()
    ],
)

test_op = table(CASES)
test_measured = table(MEASURED)
