"""MIL's activations against coremltools' folding, and formulas where it has none."""

import math

import numpy as np

from tests.mil.ops.optable import case, rows, table

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4)) * 3
WIDE = np.array([-60000.0, -100.0, -20.5, -1.0, -0.0, 0.0, 0.5, 6.0, 7.5, 30.0, 60000.0])
IMAGE = RNG.normal(size=(2, 3, 4, 5))
CHANNELS = np.array([0.25, -0.5, 2.0])
NEW = (15, 17)  # iOS17 lets the constants have their own type


def erf(x):
    return np.vectorize(math.erf)(x)


def sigmoid(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), 1 - 1 / (1 + np.exp(-np.abs(x))))


def per_channel(vector, x):
    return vector.reshape(1, -1, *[1] * (x.ndim - 2))


def channel_prelu(x, alpha):
    return np.where(x > 0, x, x * per_channel(alpha, x))


def softplus(x):
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


CASES = rows(
    case("relu", {"x": X}),
    case("relu", {"x": WIDE}, label="wide"),
    case("relu6", {"x": WIDE}),
    case("clamped_relu", {"x": WIDE}, parameters={"alpha": 0.5, "beta": 6.0}, since=NEW),
    case(
        "clamped_relu",
        {"x": X},
        parameters={"alpha": -2.0, "beta": -1.0},
        expected=lambda x, alpha, beta: np.minimum(beta, np.where(x >= 0, x, alpha * x)),
        label="negative",
    ),
    case("leaky_relu", {"x": X}, parameters={"alpha": 0.3}, since=NEW),
    case("leaky_relu", {"x": X}, parameters={"alpha": np.float32(0.3)}, since=17, label="f32-alpha"),
    case("leaky_relu", {"x": X}, parameters={"alpha": 2.5}, label="steep"),
    case("prelu", {"x": IMAGE}, parameters={"alpha": CHANNELS}, expected=channel_prelu, since=NEW),
    case("prelu", {"x": X}, parameters={"alpha": np.full(3, 0.5)}, expected=channel_prelu, label="rank3"),
    case(
        "prelu", {"x": IMAGE[..., None]}, parameters={"alpha": np.full(3, 0.5)}, expected=channel_prelu, label="rank5"
    ),
    case(
        "thresholded_relu",
        {"x": WIDE},
        parameters={"alpha": 0.5},
        expected=lambda x, alpha: np.where(x >= alpha, x, 0),
        since=NEW,
    ),
    case(
        "elu",
        {"x": X},
        parameters={"alpha": 1.5},
        expected=lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(x)),
        since=NEW,
    ),
    case("gelu", {"x": X}, expected=lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2)))),
    case(
        "gelu",
        {"x": X},
        parameters={"mode": "TANH_APPROXIMATION"},
        expected=lambda x, mode: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    ),
    case(
        "gelu",
        {"x": X},
        parameters={"mode": "SIGMOID_APPROXIMATION"},
        expected=lambda x, mode: x * sigmoid(1.702 * x),
    ),
    case("silu", {"x": WIDE}, expected=lambda x: x * sigmoid(x)),
    case("sigmoid", {"x": WIDE}, expected=sigmoid),
    case("sigmoid_hard", {"x": X}, parameters={"alpha": 0.2, "beta": 0.5}, since=NEW),
    case("linear_activation", {"x": X}, parameters={"alpha": 2.0, "beta": -1.5}, since=NEW),
    case("scaled_tanh", {"x": X}, parameters={"alpha": 1.7159, "beta": 2 / 3}, since=NEW),
    case("softplus", {"x": X}, expected=softplus),
    case("softplus", {"x": WIDE}, expected=softplus, label="wide"),
    case(
        "softplus_parametric",
        {"x": IMAGE},
        parameters={"alpha": CHANNELS, "beta": CHANNELS[::-1].copy()},
        expected=lambda x, alpha, beta: per_channel(alpha, x) * np.log1p(np.exp(per_channel(beta, x) * x)),
        since=NEW,
    ),
    case("softsign", {"x": WIDE}),
    case("softmax", {"x": X}),
    case("softmax", {"x": X}, parameters={"axis": 1}),
    case("softmax", {"x": np.array([1e4, 1e4 - 8, -6e4])}, label="large"),
)

test_op = table(CASES)
