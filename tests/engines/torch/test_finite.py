"""The first operation inside that leaves the finite numbers is named, also where the outputs look well."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.mil.programs import call, function, tensor
from tlkit.engines.torch.engine import TorchEngine
from tlkit.mil.program import Function

F16, F32 = tensor("fp16", 4), tensor("fp32", 4)


def squashed(kind: Any) -> Function:
    """1 / x² by way of x²: where x² is too large for f16, the output is 0, which no look at it shows."""
    ops = [call("mul", "square", kind, x="x", y="x"), call("inverse", "y", kind, x="square")]
    return function({"x": kind}, ops, ["y"])


def test_an_overflow_that_ends_as_zeros_is_found() -> None:
    given = {"x": np.array([1, 2, 300, -400], np.float32)}
    outputs, stray = TorchEngine(squashed(F16)).check(given)
    assert outputs["y"].tolist() == [1, 0.25, 0, 0]
    assert stray is not None
    assert (stray.operation, stray.type, stray.infinite, stray.nan, stray.overflow) == ("square", "mul", 2, 0, True)
    assert (stray.largest, stray.elements) == (400, 4)
    assert "'square' (mul)" in str(stray) and "over f16's 65504" in str(stray)


@pytest.mark.parametrize(("kind", "precision"), [(F32, "f16"), (F16, "f32")])
def test_what_f32_holds_is_no_stray(kind: Any, precision: str) -> None:
    given = {"x": np.array([1, 2, 300, -400], np.float32)}
    outputs, stray = TorchEngine(squashed(kind), precision=precision).check(given)
    assert stray is None and outputs["y"].all()


def test_an_infinity_that_is_given_is_not_the_programs_and_a_nan_made_of_it_is() -> None:
    ops = [call("add", "moved", F16, x="x", y="x"), call("sub", "y", F16, x="moved", y="x")]
    given = {"x": np.array([1, 2, np.inf, 4], np.float32)}
    _, stray = TorchEngine(function({"x": F16}, ops, ["y"])).check(given)
    assert stray is not None
    assert (stray.operation, stray.nan, stray.overflow) == ("y", 1, False)


def test_checking_gives_what_running_gives() -> None:
    given = {"x": np.random.default_rng(0).standard_normal(4).astype(np.float32)}
    engine = TorchEngine(squashed(F16))
    outputs, stray = engine.check(given)
    assert stray is None
    np.testing.assert_array_equal(outputs["y"], engine.run(given)["y"])
