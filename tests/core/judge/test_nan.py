"""The first NaN: named by operation, found by a search, and not where an infinity is a mask's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.formats import packages
from tests.formats.packages import immediate, tensor_type
from tlkit.core.judge.nan import SCALES, find_nan


def chain(path: Path, *steps: tuple[str, dict[str, float]]) -> Path:
    """A package that applies ``steps`` in f32 to x, 1x4: an operation's type and its constants."""
    body = packages.Body()
    body.input("x", tensor_type("fp32", 1, 4))
    last = "x"
    for index, (kind, constants) in enumerate(steps):
        given = {name: body.const(f"{name}{index}", immediate("fp32", value)) for name, value in constants.items()}
        name = "y" if index == len(steps) - 1 else f"v{index}"
        body.op(kind, {name: tensor_type("fp32", 1, 4)}, {"x": last, **given})
        last = name
    body.returns("y")
    model = packages.MODEL.Model(specificationVersion=8)
    for ports, name in ((model.description.input, "x"), (model.description.output, "y")):
        packages.array_feature(ports.add(), name, packages.ARRAYS.FLOAT32, 1, 4)
    model.mlProgram.CopyFrom(body.message)
    return packages.write(path, model)


def test_a_search_provokes_what_a_plain_input_does_not(tmp_path: Path) -> None:
    path = chain(tmp_path / "net.mlpackage", ("abs", {}), ("exp", {}), ("mul", {"y": 0.0}))
    found = find_nan(path)
    assert (found.operation, found.type, found.ok) == ("v1", "exp", False)
    # exp leaves f32 from 88.7 on, which standard normals reach when they are a hundred times as large.
    assert len(found.tried) == 1 + SCALES.index(100.0) and "100 times" in found.case
    assert found.operands[0][2] > 88.7 and "exponential" in found.why


def test_zeros_are_tried_and_given_inputs_are_all_that_is(tmp_path: Path) -> None:
    path = chain(tmp_path / "net.mlpackage", ("abs", {}), ("rsqrt", {"epsilon": 0.0}))
    found = find_nan(path)
    assert found.type == "rsqrt" and found.case == "zeros"
    assert find_nan(path, inputs=["x=[[1,2,3,4]]"]).ok
    assert find_nan(path, inputs=["x=[[1,2,3,0]]"]).infinite == 1


def test_nothing_is_said_of_a_sound_model(tmp_path: Path) -> None:
    found = find_nan(chain(tmp_path / "net.mlpackage", ("tanh", {}), ("mul", {"y": 2.0})))
    assert found.ok and len(found.tried) >= 8


def test_a_mask_of_minus_infinity_is_no_find_and_what_makes_nan_of_it_is(tmp_path: Path) -> None:
    masked = chain(tmp_path / "a.mlpackage", ("add", {"y": -np.inf}), ("exp", {}))
    assert find_nan(masked).ok
    broken = chain(tmp_path / "b.mlpackage", ("add", {"y": -np.inf}), ("mul", {"y": 0.0}))
    found = find_nan(broken)
    assert (found.type, found.nan) == ("mul", 4)
