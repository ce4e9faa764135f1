"""Tensors of more than five axes folded, against numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mil.programs import call, constant, function, tensor
from tlkit.mil.lower.lower import lower
from tlkit.mil.passes.ane.ranks import FewerAxes
from tlkit.mil.passes.base import run_passes
from tlkit.mil.program import Function, Operation, Program, TensorType
from tlkit.mil.work import steps


def folded(item: Function) -> Function:
    return run_passes(Program({"main": item}), [FewerAxes("main")]).program.function()


def ran(item: Function, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with torch.inference_mode():
        found = lower(item)(torch.from_numpy(x))
    return np.asarray(found[0] if isinstance(found, tuple) else found)


def largest(item: Function) -> int:
    return max(len(value.shape) for step in steps(item) for value in step.results)


def moved(shape: tuple[int, ...], perm: list[int], end: tuple[int, ...]) -> Function:
    """A matrix as many axes, transposed, through an activation and an addition, and as ``end``."""
    turned = tuple(shape[axis] for axis in perm)
    body: list[Operation] = [
        constant("wide", np.array(shape), "int32"),
        constant("perm", np.array(perm), "int32"),
        constant("end", np.array(end), "int32"),
        constant("half", 0.5, "fp32"),
        call("reshape", "a", tensor("fp32", *shape), x="x", shape="wide"),
        call("transpose", "b", tensor("fp32", *turned), x="a", perm="perm"),
        call("relu", "c", tensor("fp32", *turned), x="b"),
        call("add", "d", tensor("fp32", *turned), x="c", y="half"),
        call("reshape", "y", tensor("fp32", *end), x="d", shape="end"),
    ]
    return function({"x": tensor("fp32", shape[0], math.prod(shape[1:]))}, body, ["y"])


# Neighbours that stay together, so that few enough axes are left: windows of pictures are moved so.
@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3]), min_size=6, max_size=8), st.permutations(range(4)), st.data())
def test_a_folded_transposition_is_numpy_s(shape: list[int], order: list[int], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(1, len(shape) - 1), min_size=3, max_size=3, unique=True)))
    groups = [list(range(a, b)) for a, b in zip([0, *cuts], [*cuts, len(shape)], strict=True)]
    perm = [axis for index in order for axis in groups[index]]
    x = np.random.default_rng(0).standard_normal((shape[0], math.prod(shape[1:]))).astype(np.float32)
    right = (np.maximum(x.reshape(shape).transpose(perm), 0) + np.float32(0.5)).reshape(x.shape[::-1])
    made = folded(moved(tuple(shape), perm, x.shape[::-1]))
    assert largest(made) <= 5
    np.testing.assert_array_equal(ran(made, x), right)


def test_what_cannot_be_folded_stays_as_it_is_and_keeps_its_result() -> None:
    """All six axes reversed: no two stay neighbours."""
    shape = (2, 3, 2, 3, 2, 3)
    x = np.random.default_rng(0).standard_normal((2, 108)).astype(np.float32)
    made = folded(moved(shape, [5, 4, 3, 2, 1, 0], (108, 2)))
    right = (np.maximum(x.reshape(shape).transpose(), 0) + np.float32(0.5)).reshape(108, 2)
    np.testing.assert_array_equal(ran(made, x), right)


def test_a_program_of_few_axes_is_left_alone() -> None:
    item = moved((2, 3, 4), [2, 0, 1], (4, 6))
    assert folded(item) is item or folded(item) == item
    assert isinstance(item.inputs[0].type, TensorType)
