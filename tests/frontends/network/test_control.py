"""Branches, loops, breaks: beside what the same steps give in Python."""

from __future__ import annotations

import numpy as np
import pytest

from tests.frontends.network.nets import layer, network, run
from tlkit.errors import ExecutionError, LoadError
from tlkit.host import budget

X = np.array([1.0, 2.0], np.float32)
ZERO, ONE = np.zeros(1, np.float32), np.ones(1, np.float32)


def constant(name: str, value: float) -> object:
    return layer("loadConstantND", "", name, shape=[1], data=np.array([value], np.float32))


@pytest.mark.parametrize(("condition", "factor"), [(1.0, 2.0), (-1.0, 2.0), (0.0, 3.0), (1e-7, 3.0)])
def test_a_branch_is_taken_where_its_input_is_not_near_0(condition, factor):
    one, two = (network(layer("multiply", "x", "y", alpha=value)) for value in (2.0, 3.0))
    branch = layer("branch", "c", "unused", ifBranch=one, elseBranch=two)
    branch.ClearField("output")
    made = run([branch], {"x": X, "c": np.array([condition])})["y"]
    np.testing.assert_allclose(made, X * factor)


def test_a_branch_without_an_other_leaves_a_name_as_it_was():
    one = network(layer("multiply", "x", "x", alpha=2.0))
    for condition, factor in ((1.0, 2.0), (0.0, 1.0)):
        layers = [layer("branch", "c", "unused", ifBranch=one), layer("add", "x", "y", alpha=1.0)]
        made = run(layers, {"x": X, "c": np.array([condition])})["y"]
        np.testing.assert_allclose(made, X * factor + 1)


def test_a_loop_turns_as_often_as_its_input_or_its_number_says():
    body = network(layer("multiply", "x", "x", alpha=2.0))
    counted = layer("loop", "n", "unused", bodyNetwork=body)
    after = layer("copy", "x", "y")
    for count in (0, 1, 5):
        np.testing.assert_allclose(run([counted, after], {"x": X, "n": np.array([count])})["y"], X * 2**count)
    fixed = layer("loop", "", "unused", bodyNetwork=body, maxLoopIterations=3)
    np.testing.assert_allclose(run([fixed, after], {"x": X})["y"], X * 8)


def test_a_loop_ends_when_its_condition_does():
    """while y < 100: y *= 3, where the condition's network is run before each turn."""
    test = network(layer("lessThan", "y", "go", alpha=100.0))
    body = network(layer("multiply", "y", "y", alpha=3.0))
    loop = layer("loop", "", "unused", conditionVar="go", conditionNetwork=test, bodyNetwork=body)
    for start, wanted in ((1.0, 243.0), (100.0, 100.0)):
        made = run([layer("copy", "x", "y"), loop], {"x": np.array([start])})["y"]
        np.testing.assert_allclose(made, [wanted])


def broken(kind: str) -> list[object]:
    """Add i to y for i in 1..9, where y counts only while i < 4, and then break or continue."""
    stop = network(layer(kind, "", "unused"))
    body = network(
        layer("add", "i", "i", alpha=1.0),
        layer("greaterThan", "i", "late", alpha=3.5),
        layer("branch", "late", "unused", ifBranch=stop),
        layer("add", "y i", "y"),
    )
    start = [layer("multiply", "x", "i", alpha=0.0), layer("copy", "i", "y")]
    loop = layer("loop", "", "unused", bodyNetwork=body, maxLoopIterations=9)
    return [*start, loop, layer("copy", "i", "z")]


def test_a_break_leaves_the_loop_and_a_continue_the_turn():
    out = run(broken("loopBreak"), {"x": ONE}, ("y", "z"))
    assert (out["y"].item(), out["z"].item()) == (6, 4)
    out = run(broken("loopContinue"), {"x": ONE}, ("y", "z"))
    assert (out["y"].item(), out["z"].item()) == (6, 9)


def test_loops_in_loops_and_values_that_grow():
    """A value that is longer after each turn has an open length inside."""
    inner = layer("loop", "", "unused", bodyNetwork=network(layer("add", "s", "s", alpha=1.0)), maxLoopIterations=3)
    outer = layer("loop", "", "unused", bodyNetwork=network(inner), maxLoopIterations=4)
    assert run([layer("copy", "x", "s"), outer, layer("copy", "s", "y")], {"x": ZERO})["y"].item() == 12
    grown = network(layer("concatND", "y x", "y", axis=0))
    loop = layer("loop", "", "unused", bodyNetwork=grown, maxLoopIterations=3)
    np.testing.assert_array_equal(run([layer("copy", "x", "y"), loop], {"x": X})["y"], np.tile(X, 4))


def endless(copies: int = 1):
    """A loop that nothing ends, ``copies`` of it inside each other."""
    body = network(layer("copy", "x", "x"))
    for _ in range(copies):
        body = network(layer("loop", "", "unused", bodyNetwork=body))
    return [*body.layers, layer("copy", "x", "y")]


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize(
    ("bound", "most", "said"), [("TURNS", 50, "turned 50 times"), ("SECONDS", 0.03, "run for 0.03 s")]
)
def test_a_loop_without_end_is_stopped(monkeypatch, bound, most, said, copies):
    monkeypatch.setattr(budget, bound, most)
    with pytest.raises(ExecutionError, match=f"a loop has {said} and does not end") as stopped:
        run(endless(copies), {"x": X})
    assert "TLKIT_BUDGET=10" in stopped.value.hint


def test_the_loops_of_an_inference_count_together(monkeypatch):
    """Many short loops are no way around the bound, and a second inference has all of it again."""
    turning = layer("loop", "", "unused", bodyNetwork=network(layer("add", "s", "s", alpha=1.0)), maxLoopIterations=40)
    several = [layer("copy", "x", "s"), *[turning] * 3, layer("copy", "s", "y")]
    monkeypatch.setattr(budget, "TURNS", 119)
    with pytest.raises(ExecutionError, match="turned 119 times"):
        run(several, {"x": ZERO})
    monkeypatch.setattr(budget, "TURNS", 120)
    assert [run(several, {"x": ZERO})["y"].item() for _ in range(2)] == [120, 120]


def test_what_control_flow_lacks_is_named():
    stop = layer("loopBreak", "", "unused", name="stray")
    with pytest.raises(LoadError, match=r"layer 'stray' .*it is in no loop"):
        run([stop, layer("copy", "x", "y")], {"x": X})
    loop = layer("loop", "", "unused", name="lost", conditionVar="nothing", maxLoopIterations=2)
    with pytest.raises(LoadError, match=r"layer 'lost' .*'nothing' is made by nothing"):
        run([loop, layer("copy", "x", "y")], {"x": X})
