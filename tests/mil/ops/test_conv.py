"""MIL's convolutions, against loops in numpy.

Covers tlkit/mil/ops/kit/window.py.
"""

import numpy as np

from tests.mil.ops import windows
from tests.mil.ops.optable import case, rows, table

RNG = np.random.default_rng(4)
SIZES = {1: (9,), 2: (7, 8), 3: (4, 5, 6)}
KERNELS = {1: (4,), 2: (3, 2), 3: (2, 3, 2)}
STRIDES = {1: [2], 2: [2, 3], 3: [1, 2, 2]}
DILATIONS = {1: [2], 2: [2, 1], 3: [1, 1, 2]}
EVEN = {1: [2, 2], 2: [1, 1, 2, 2], 3: [1, 1, 0, 0, 2, 2]}
UNEVEN = {1: [1, 2], 2: [2, 0, 1, 3], 3: [1, 0, 0, 2, 2, 1]}


def normal(*shape):
    return RNG.normal(size=shape)


def x(rank, channels=4, n=2):
    return normal(n, channels, *SIZES[rank])


def weight(rank, out=6, into=4):
    return normal(out, into, *KERNELS[rank])


def quantized(x, weight, quantization_type, quant_scale, quant_bias, **rest):
    column = (-1, *[1] * (weight.ndim - 1))
    return windows.conv(x, weight * np.reshape(quant_scale, column) + np.reshape(quant_bias, column), **rest)


FORWARD = [
    case(
        "conv",
        {"x": x(rank)},
        parameters={"weight": weight(rank), **extra},
        expected=windows.conv,
        label=f"{rank}d-{name}",
        since=since,
    )
    for rank in (1, 2, 3)
    for name, since, extra in (
        ("plain", (15, 17), {}),
        ("bias", 15, {"bias": normal(6)}),
        ("strides", 15, {"strides": STRIDES[rank]}),
        ("dilations", 15, {"dilations": DILATIONS[rank]}),
        ("same", 15, {"pad_type": "same", "strides": STRIDES[rank], "bias": normal(6)}),
        ("same-dilated", 15, {"pad_type": "same", "dilations": DILATIONS[rank]}),
        ("same_lower", 16, {"pad_type": "same_lower", "strides": STRIDES[rank]}),
        ("even", 15, {"pad_type": "custom", "pad": EVEN[rank]}),
        ("uneven", 15, {"pad_type": "custom", "pad": UNEVEN[rank], "strides": STRIDES[rank]}),
    )
]
TRANSPOSED = [
    case(
        "conv_transpose",
        {"x": x(rank, 4)},
        parameters={"weight": weight(rank, 4, 3), **extra},
        expected=windows.conv_transpose,
        label=f"{rank}d-{name}",
        since=since,
    )
    for rank in (1, 2, 3)
    for name, since, extra in (
        ("plain", (15, 17), {}),
        ("bias", 15, {"bias": normal(3), "strides": STRIDES[rank]}),
        ("dilations", 15, {"dilations": DILATIONS[rank], "strides": STRIDES[rank]}),
        ("same", 15, {"pad_type": "same", "strides": STRIDES[rank], "bias": normal(3)}),
        ("even", 15, {"pad_type": "custom", "pad": EVEN[rank], "strides": STRIDES[rank]}),
        ("uneven", 15, {"pad_type": "custom", "pad": UNEVEN[rank], "strides": STRIDES[rank], "bias": normal(3)}),
    )
]

CASES = rows(
    *FORWARD,
    case(
        "conv", {"x": x(2)}, parameters={"weight": weight(2, 6, 2), "groups": 2}, expected=windows.conv, label="groups"
    ),
    case(
        "conv",
        {"x": x(2)},
        parameters={"weight": weight(2, 8, 1), "groups": 4, "bias": normal(8)},
        expected=windows.conv,
        label="depthwise",
    ),
    case("conv", {"x": x(2), "weight": weight(2)}, expected=windows.conv, label="run-time-weight"),
    case(
        "conv",
        {"x": x(2)},
        parameters={"weight": weight(2).astype(np.float32), "bias": normal(6).astype(np.float32)},
        expected=windows.conv,
        since=17,
        label="f32-weight",
    ),
    case(
        "conv",
        {"x": x(2), "weight": weight(2), "bias": normal(6)},
        expected=windows.conv,
        since=17,
        label="run-time-bias",
    ),
    case(
        "conv",
        {"x": x(2)},
        parameters={"weight": weight(2), "pad_type": "same"},
        dims={"x": (None, 4, None, None)},
        expected=windows.conv,
        label="open",
    ),
    *TRANSPOSED,
    case(
        "conv_transpose",
        {"x": x(2)},
        parameters={"weight": weight(2, 4, 3), "groups": 2, "bias": normal(6)},
        expected=windows.conv_transpose,
        label="groups",
    ),
    *[
        case(
            "conv_transpose",
            {"x": x(2)},
            parameters={
                "weight": weight(2, 4, 3),
                "strides": [2, 2],
                "bias": normal(3),
                "output_shape": shape,
                **extra,
            },
            expected=windows.conv_transpose,
            label=f"output_shape-{name}",
        )
        for name, shape, extra in (
            ("longer", [2, 3, 16, 17], {}),
            ("much-longer", [2, 3, 19, 21], {}),
            ("shorter", [2, 3, 13, 12], {}),
            ("same", [2, 3, 14, 15], {"pad_type": "same"}),
            ("custom", [2, 3, 14, 13], {"pad_type": "custom", "pad": [1, 1, 1, 2]}),
        )
    ],
    case(
        "conv_transpose",
        {"x": x(2), "weight": weight(2, 4, 3)},
        expected=windows.conv_transpose,
        since=17,
        label="run-time-weight",
    ),
    *[
        case(
            "conv_quantized",
            {"x": x(2)},
            parameters={
                "weight": RNG.integers(0, 255, size=(6, 4, 3, 2)).astype(np.uint8),
                "quantization_type": "linear",
                "quant_scale": scale,
                "quant_bias": shift,
                "strides": [2, 1],
            },
            expected=quantized,
            rtol=1e-4,
            label=label,
        )
        for label, scale, shift in (
            ("tensor", np.array([0.02]), np.array([-2.5])),
            ("channel", RNG.uniform(0.01, 0.03, 6), -RNG.uniform(1, 3, 6)),
        )
    ],
)

test_op = table(CASES)
