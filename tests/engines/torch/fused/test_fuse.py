"""Fused operations against the same function run operation by operation in f32 carriers.

Covers tlkit/engines/torch/fused/attention.py, tlkit/engines/torch/fused/convolution.py,
tlkit/engines/torch/fused/kernels.py, tlkit/engines/torch/fused/bounds.py,
tlkit/engines/torch/fused/triton_kernels.py.
On the CPU what runs is PyTorch's own words for the kernels; on CUDA the kernels.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from tests.engines.torch.fused.programs import attention, plain
from tests.mil.programs import call, constant, function, tensor
from tlkit.engines.torch.engine import TorchEngine
from tlkit.engines.torch.fused.fuse import fuse
from tlkit.mil.program import Function
from tlkit.types import Unit

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def engines(program: Function, device: str) -> tuple[TorchEngine, TorchEngine]:
    unit = Unit.GPU if device == "cuda" else Unit.CPU
    return TorchEngine(program, unit=unit, halves=True), TorchEngine(program, halves=False)


def agree(program: Function, arrays: dict[str, Any], device: str, fused: dict[str, int]) -> dict[str, Any]:
    """Run fused and operation by operation; the fused functions are those expected, by name."""
    ours, reference = engines(program, device)
    made = fuse(ours.module, program)
    names = Counter(getattr(node.target, "__name__", "") for node in made.graph.nodes)
    assert {name: names[name] for name in ("attention", "convolved")} == {"attention": 0, "convolved": 0, **fused}
    found, wanted = ours.run(arrays), reference.run(arrays)
    for name in wanted:
        finite = np.isfinite(wanted[name])
        np.testing.assert_array_equal(np.isfinite(found[name]), finite)
        largest = np.abs(wanted[name][finite]).max(initial=0.0)
        np.testing.assert_allclose(found[name][finite], wanted[name][finite], rtol=0, atol=3 * 2**-11 * largest)
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("scaled", "factor"), [("scores", 0.3535), ("query", 0.3535), ("query", 0.25)])
def test_attention_with_bounded_scores_is_one_kernel(device: str, scaled: str, factor: float) -> None:
    program, arrays = attention(0.5, scaled=scaled, factor=factor)
    agree(program, arrays, device, {"attention": 1})


@pytest.mark.parametrize("device", DEVICES)
def test_scores_that_may_overflow_are_not_hidden(device: str) -> None:
    program, arrays = attention(60.0)
    found = agree(program, arrays, device, {})
    assert np.isnan(found["mixed"]).any()  # infinite scores


def test_scores_of_rows_without_a_bound_are_left_alone() -> None:
    program, arrays = attention(0.5, normalized=False)
    agree(program, arrays, "cpu", {})


def test_scores_that_something_else_reads_are_left_alone() -> None:
    program, arrays = attention(0.5)
    both = function({"x": program.inputs[0].type}, list(program.block.operations), ["mixed", "scores"])
    agree(both, arrays, "cpu", {})


def block(*, bias: bool = True, residual: bool = True, after: tuple[str, ...] = ("relu",)) -> tuple[Function, Any]:
    """A convolution of 4 channels to 6, padded by 1, with what follows it."""
    rng = np.random.default_rng(5)
    wide = tensor("fp16", 2, 6, 5, 7)
    operations = [
        constant("weight", rng.standard_normal((6, 4, 3, 3)).astype(np.float16), "fp16"),
        constant("bias", rng.standard_normal(6).astype(np.float16), "fp16"),
        constant("zero", np.float16(0), "fp16"),
        constant("six", np.float16(6), "fp16"),
    ]
    given: dict[str, Any] = {"bias": "bias"} if bias else {}
    sizes = {"strides": (1, 1), "pad": (1, 1, 1, 1), "dilations": (1, 1)}
    parameters: dict[str, Any] = {name: plain(value) for name, value in sizes.items()}
    operations.append(
        call("conv", "made", wide, x="x", weight="weight", pad_type=plain("custom"), **given, **parameters)
    )
    last = "made"
    if residual:
        operations.append(call("add", "sum", wide, x="skip", y=last))
        last = "sum"
    for place, kind in enumerate(after):
        name = f"after{place}"
        others: dict[str, Any] = {"maximum": {"y": "zero"}, "minimum": {"y": "six"}}.get(kind, {})
        operations.append(call(kind, name, wide, x=last, **others))
        last = name
    inputs: dict[str, Any] = {"x": tensor("fp16", 2, 4, 5, 7), "skip": wide}
    arrays = {name: (3 * rng.standard_normal(kind.shape)).astype(np.float32) for name, kind in inputs.items()}
    return function(inputs, operations, [last]), arrays


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("after", [("relu",), ("relu6",), ("maximum", "minimum"), ()])
def test_what_follows_a_convolution_goes_into_it(
    device: str, residual: bool, bias: bool, after: tuple[str, ...]
) -> None:
    program, arrays = block(bias=bias, residual=residual, after=after)
    agree(program, arrays, device, {"convolved": int(residual or bias or bool(after))})


@pytest.mark.parametrize("device", DEVICES)
def test_an_overflow_and_a_nan_show_through_bounds(device: str) -> None:
    program, arrays = block(residual=True, after=())
    arrays["x"][0, 0, 2, 2] = 60000.0
    arrays["skip"][0, 0, 0, 0] = math.nan
    found = agree(program, arrays, device, {"convolved": 1})
    assert np.isinf(found["sum"]).any() and np.isnan(found["sum"]).any()
    program, arrays = block(residual=True, after=("relu",))
    arrays["skip"][0, 0, 0, 0] = math.nan
    assert np.isnan(agree(program, arrays, device, {"convolved": 1})["after0"]).sum() == 1


def test_bounds_of_a_linear_layer_hold_for_its_worst_row() -> None:
    """The bound is the largest norm that any input reaches, as its singular vector shows."""
    from tlkit.engines.torch.fused.bounds import _gain

    weight = torch.from_numpy(np.random.default_rng(1).standard_normal((12, 7)).astype(np.float32))
    worst = max(float(torch.linalg.matrix_norm(weight[place : place + 4], 2)) for place in (0, 4, 8))
    assert worst <= _gain(weight, 4) <= 1.01 * worst
