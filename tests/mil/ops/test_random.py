"""Random numbers: types and shapes by row, distributions by their moments."""

import numpy as np
import pytest

from tests.mil.ops.optable import Case, case, read, rows, run, table

CASES = rows(
    case("random_bernoulli", parameters={"shape": [2, 3], "prob": 1.0}, expected=np.ones((2, 3))),
    case("random_bernoulli", parameters={"shape": [2, 3], "prob": 0.0, "seed": 4}, expected=np.zeros((2, 3))),
    case("random_uniform", parameters={"shape": [3], "low": 2.0, "high": 2.0}, expected=np.full(3, 2.0)),
    case("random_normal", parameters={"shape": [1, 2], "mean": 3.0, "stddev": 0.0}, expected=np.full((1, 2), 3.0)),
    case(
        "random_uniform",
        {"shape": np.array([1, 2], np.int32)},
        parameters={"low": 4.0, "high": 4.0},
        expected=np.full((1, 2), 4.0),
        label="runtime",
    ),
    case(
        "random_categorical",
        {"x": np.array([[0.0, 1.0], [1.0, 0.0]])},
        parameters={"mode": "probs", "size": 3},
        expected=np.array([[1.0] * 3, [0.0] * 3]),
    ),
    case("random_categorical", {"x": np.array([5.0])}, parameters={"seed": 1}, expected=np.zeros(1)),
)

test_op = table(CASES)

DRAWS = 20_000
MOMENTS = {
    "random_uniform": ({"low": np.float32(-1), "high": np.float32(3)}, 1.0, 4 / np.sqrt(12)),
    "random_normal": ({"mean": np.float32(2), "stddev": np.float32(0.5)}, 2.0, 0.5),
    "random_bernoulli": ({"prob": np.float32(0.25)}, 0.25, np.sqrt(0.25 * 0.75)),
}


def drawn(op, inputs=None, **parameters):
    row = Case(op, inputs or {}, parameters)
    return run(read(row), row, "f16")[0].numpy()


@pytest.mark.parametrize("name", MOMENTS)
def test_moments(name):
    parameters, mean, deviation = MOMENTS[name]
    values = drawn(name, shape=(DRAWS,), seed=7, **parameters)
    error = deviation / np.sqrt(DRAWS)
    assert abs(values.mean() - mean) < 5 * error
    assert abs(values.std() - deviation) < 10 * error


@pytest.mark.parametrize("mode", ["logits", "probs"])
def test_categorical_frequencies(mode):
    probabilities = np.array([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]], np.float32)
    x = np.log(probabilities) if mode == "logits" else probabilities
    values = drawn("random_categorical", {"x": x}, mode=mode, size=DRAWS, seed=3)
    counts = np.stack([np.bincount(row.astype(int), minlength=3) for row in values]) / DRAWS
    np.testing.assert_allclose(counts, probabilities, atol=0.02)


def test_a_seed_repeats_and_no_seed_does_not():
    seeded = [drawn("random_normal", shape=(8,), seed=5) for _ in range(2)]
    free = [drawn("random_normal", shape=(8,)) for _ in range(2)]
    np.testing.assert_array_equal(*seeded)
    assert not np.array_equal(*free)
