"""f32 between casts in f16: the same to the last bit, and nothing where it would not be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.mil.programs import call, constant, function, tensor
from tests.mil.risks.programs import ints, strings, value
from tlkit.core.edit.ane import for_ane
from tlkit.engines.torch.engine import TorchEngine
from tlkit.mil.passes.ane.narrow import Narrow
from tlkit.mil.passes.base import run_passes
from tlkit.mil.program import Function, Operation, Program
from tlkit.mil.work import steps

HALF, WIDE = tensor("fp16", 4, 64), tensor("fp32", 4, 64)
UP, DOWN = strings("fp32"), strings("fp16")
X = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float16) * np.float16(9)


def narrowed(item: Function) -> tuple[Function, str]:
    outcome = run_passes(Program({"main": item}), [Narrow("main")])
    return outcome.program.function(), " ".join(outcome.changes)


def island(*inner: Operation, last: str) -> Function:
    """f16, widened, some operations, narrowed, and once more through an f16 operation."""
    body = [
        call("cast", "w", WIDE, x="x", dtype=UP),
        *inner,
        call("cast", "n", HALF, x=last, dtype=DOWN),
        call("relu", "y", HALF, x="n"),
    ]
    return function({"x": HALF}, body, ["y"])


def kinds(item: Function) -> list[str]:
    return [step.type for step in steps(item)]


def same(before: Function, after: Function) -> None:
    one, other = (TorchEngine(item).run({"x": X})["y"] for item in (before, after))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "inner",
    [
        (call("softmax", "s", WIDE, x="w", axis=value(-1, "int32")),),
        (call("exp", "s", WIDE, x="w"),),
        (constant("c", np.linspace(-2, 2, 65)[:64], "fp32"), call("mul", "s", WIDE, x="w", y="c")),
        # Moves and choices may follow each other; one computation may follow them.
        (
            call("relu", "a", WIDE, x="w"),
            call("maximum", "b", WIDE, x="a", y="w"),
            call("sigmoid", "s", WIDE, x="b"),
        ),
    ],
)
def test_one_operation_between_casts_is_the_same_in_f16(inner: tuple[Operation, ...]) -> None:
    before = island(*inner, last="s")
    after, told = narrowed(before)
    runs = sum(item.type != "const" for item in inner)
    assert told == f"{runs} operations in f32 between casts in f16"
    assert "cast" not in kinds(after) and len(kinds(after)) == runs + 1
    same(before, after)


@pytest.mark.parametrize(
    "inner",
    [
        (call("exp", "a", WIDE, x="w"), call("sigmoid", "s", WIDE, x="a")),  # what is between them would be rounded
        (constant("c", 0.1, "fp32"), call("mul", "s", WIDE, x="w", y="c")),  # f16 has no 0.1
    ],
)
def test_what_rounds_otherwise_is_left_alone(inner: tuple[Operation, ...]) -> None:
    before = island(*inner, last="s")
    after, told = narrowed(before)
    assert (after, told) == (before, "")


def test_a_value_that_is_read_in_f32_as_well_is_widened_again() -> None:
    body = [
        call("cast", "w", WIDE, x="x", dtype=UP),
        call("reshape", "r", tensor("fp32", 256), x="w", shape=ints(256)),
        call("erf", "e", tensor("fp32", 256), x="r"),
        call("exp", "z", tensor("fp32", 256), x="e"),
        call("cast", "y", tensor("fp16", 256), x="r", dtype=DOWN),
    ]
    before = function({"x": HALF}, body, ["y", "z", "r"])
    after, _ = narrowed(before)
    one, other = (TorchEngine(item).run({"x": X}) for item in (before, after))
    for name in ("y", "z", "r"):
        assert one[name].dtype == other[name].dtype
        np.testing.assert_array_equal(one[name], other[name])


def test_it_is_made_where_it_puts_work_on_the_neural_engine() -> None:
    """A product in f32 amid f16 ones; beside it, islands that stay are not counted."""
    big: dict[str, Any] = {"half": tensor("fp16", 512, 512), "wide": tensor("fp32", 512, 512)}
    steps_: list[Operation] = [
        call("matmul", "a", big["half"], x="x", y="x"),
        call("cast", "w", big["wide"], x="a", dtype=UP),
        call("matmul", "m", big["wide"], x="w", y="w"),
        call("cast", "n", big["half"], x="m", dtype=DOWN),
        call("matmul", "y", big["half"], x="n", y="x"),
    ]
    program = Program({"main": function({"x": big["half"]}, steps_, ["y"])})
    made, told = for_ane(program)
    assert [item.change for item in told if item.made] == ["1 operations in f32 between casts in f16"]
    assert kinds(made.function()) == ["matmul"] * 3
