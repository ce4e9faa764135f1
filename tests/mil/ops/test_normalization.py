"""MIL's normalizations, against formulas in numpy."""

import numpy as np

from tests.mil.ops.optable import VALUE, case, rows, table

RNG = np.random.default_rng(6)
X = RNG.normal(size=(2, 3, 4, 5)) * 2 + 0.5
GAMMA, BETA = RNG.normal(size=(3,)), RNG.normal(size=(3,))
MEAN, VARIANCE = RNG.normal(size=(3,)), RNG.uniform(0.5, 2, size=(3,))
NEW = (15, 17)


def along(vector, x):
    return np.asarray(vector).reshape(1, -1, *[1] * (x.ndim - 2))


def batch_norm(x, mean, variance, gamma=None, beta=None, epsilon=1e-5):
    gamma, beta = np.ones_like(mean) if gamma is None else gamma, np.zeros_like(mean) if beta is None else beta
    return (x - along(mean, x)) / np.sqrt(along(variance, x) + epsilon) * along(gamma, x) + along(beta, x)


def instance_norm(x, gamma=None, beta=None, epsilon=1e-5):
    axes = tuple(range(2, x.ndim))
    scaled = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)
    scaled = scaled if gamma is None else scaled * along(gamma, x)
    return scaled if beta is None else scaled + along(beta, x)


def layer_norm(x, axes=None, gamma=None, beta=None, epsilon=1e-5):
    over = tuple(range(x.ndim)) if axes is None else tuple(a % x.ndim for a in axes)
    shape = [n if i in over else 1 for i, n in enumerate(x.shape)]
    scaled = (x - x.mean(over, keepdims=True)) / np.sqrt(x.var(over, keepdims=True) + epsilon)
    scaled = scaled if gamma is None else scaled * gamma.reshape(shape)
    return scaled if beta is None else scaled + beta.reshape(shape)


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0):
    out = np.empty_like(x)
    for c in range(x.shape[1]):
        around = x[:, max(0, c - size // 2) : c + (size - 1) // 2 + 1]
        out[:, c] = x[:, c] / (k + alpha / size * (around**2).sum(1)) ** beta
    return out


def normal(*shape):
    return RNG.normal(size=shape)


CASES = rows(
    case("batch_norm", {"x": X}, parameters={"mean": MEAN, "variance": VARIANCE}, expected=batch_norm, since=NEW),
    case(
        "batch_norm",
        {"x": X},
        parameters={"mean": MEAN, "variance": VARIANCE, "gamma": GAMMA, "beta": BETA, "epsilon": 0.25},
        expected=batch_norm,
        since=NEW,
        label="all",
    ),
    *[
        case(
            "batch_norm",
            {"x": shaped},
            parameters={"mean": MEAN, "variance": VARIANCE, **extra},
            expected=batch_norm,
            label=f"rank{shaped.ndim}-{'-'.join(extra)}",
        )
        for shaped in (X[..., 0], X[..., None])
        for extra in ({"gamma": GAMMA}, {"beta": BETA})
    ],
    case(
        "batch_norm",
        {"x": X},
        parameters={"mean": np.float32(MEAN), "variance": np.float32(VARIANCE), "epsilon": np.float32(1e-3)},
        expected=batch_norm,
        since=17,
        label="f32-parameters",
    ),
    case("instance_norm", {"x": X}, expected=instance_norm, since=NEW),
    case("instance_norm", {"x": X[..., 0]}, parameters={"gamma": GAMMA}, expected=instance_norm, label="rank3-gamma"),
    case("instance_norm", {"x": X}, parameters={"beta": BETA}, expected=instance_norm, label="beta"),
    case("instance_norm", {"x": X[..., :1, :1]}, expected=lambda x: 0 * x, atol=1e-3, label="one-pixel"),
    case(
        "instance_norm",
        {"x": X},
        parameters={"gamma": GAMMA, "beta": BETA, "epsilon": 0.1},
        expected=instance_norm,
        since=NEW,
        label="all",
    ),
    case("l2_norm", {"x": X}, expected=VALUE, since=NEW),
    case("l2_norm", {"x": X[0]}, parameters={"epsilon": 0.5}, expected=VALUE, label="rank3"),
    case("l2_norm", {"x": normal(2, 2, 3, 2, 4)}, expected=VALUE, label="rank5"),
    case("layer_norm", {"x": X}, parameters={"axes": [0, 1, 2, 3]}, expected=layer_norm, since=NEW, label="all"),
    *[
        case(
            "layer_norm",
            {"x": X},
            parameters={"axes": axes, "gamma": normal(*shape), "beta": normal(*shape), "epsilon": 1e-3},
            expected=layer_norm,
            since=NEW,
            label=f"axes{axes}",
        )
        for axes, shape in (([-1], (5,)), ([2, 3], (4, 5)), ([-1, -2], (4, 5)), ([1], (3,)), ([1, 3], (3, 5)))
    ],
    case("layer_norm", {"x": X}, parameters={"axes": [3], "gamma": normal(5)}, expected=layer_norm, label="gamma"),
    case("layer_norm", {"x": X * 500}, parameters={"axes": [1]}, expected=layer_norm, label="large"),
    *[
        case("local_response_norm", {"x": X}, parameters={"size": size}, expected=local_response_norm, since=NEW)
        for size in (2, 3)
    ],
    case(
        "local_response_norm",
        {"x": X[..., None]},
        parameters={"size": 2, "alpha": 0.5, "beta": 0.5, "k": 2.0},
        expected=local_response_norm,
        label="rank5",
    ),
    *[
        case(  # what coremltools' own test of this op expects of Core ML
            "local_response_norm",
            {"x": np.array([[[1.0, -7.0], [5.0, -6.0], [-3.0, -5.0]]])},
            parameters={"size": size},
            expected=np.array(wanted),
            label=f"recorded-{size}",
        )
        for size, wanted in (
            (2, [[[0.99996257, -6.98716545], [4.99531746, -5.99191284], [-2.99898791, -4.99531746]]]),
            (3, [[[0.99997497, -6.99143696], [4.99687672, -5.99460602], [-2.99932504, -4.99687672]]]),
        )
    ],
)

test_op = table(CASES)
