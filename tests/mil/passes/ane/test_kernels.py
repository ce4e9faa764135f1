"""Windows made smaller, against torch's convolution and pooling.

Covers tlkit/mil/passes/ane/draft.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.mil.programs import call, constant, function, tensor
from tlkit.mil.lower.lower import lower
from tlkit.mil.passes.ane.kernels import HIGHEST, POOL, WIDEST, SmallKernels
from tlkit.mil.passes.base import run_passes
from tlkit.mil.program import Function, Operation, Program
from tlkit.mil.work import steps

WIDE = st.integers(1, 40)


def settings_of(**given: Any) -> list[Operation]:
    kinds = {bool: "bool", str: "string"}
    return [constant(f"s_{name}", item, kinds.get(type(item), "int32")) for name, item in given.items()]


def windowed(op: str, x: tuple[int, ...], out: tuple[int, ...], consts: list[Operation], **given: Any) -> Function:
    names = {name: f"s_{name}" for name in given} | {item.outputs[0].name: item.outputs[0].name for item in consts}
    body = [*consts, *settings_of(**given), call(op, "y", tensor("fp32", *out), x="x", **names)]
    return function({"x": tensor("fp32", *x)}, body, ["y"])


def made_small(item: Function) -> Function:
    return run_passes(Program({"main": item}), [SmallKernels("main")]).program.function()


def ran(item: Function, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with torch.inference_mode():
        result = lower(item)(torch.from_numpy(x))
    found = result[0] if isinstance(result, tuple) else result
    return np.asarray(found)


def output_size(size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int]) -> int:
    return (size + sum(pads) - (kernel - 1) * dilation - 1) // stride + 1


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 36), WIDE, st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)), st.tuples(*[st.integers(0, 9)] * 4), st.sampled_from([1, 2]),
    st.integers(0, 99),
)  # fmt: skip
def test_a_split_convolution_is_torch_s(
    height: int, high: int, wide: int, strides: tuple[int, int], dilations: tuple[int, int],
    pads: tuple[int, int, int, int], groups: int, seed: int,
) -> None:  # fmt: skip
    size = (high * height, 41)
    out = tuple(
        output_size(size[axis], kernel, strides[axis], dilations[axis], (pads[2 * axis], pads[2 * axis + 1]))
        for axis, kernel in enumerate((high, wide))
    )
    assume(min(out) > 0)
    reach = [
        (out[axis] - 1) * strides[axis] + (kernel - 1) * dilations[axis] for axis, kernel in enumerate((high, wide))
    ]
    assume(reach[0] >= pads[0] and reach[1] >= pads[2])  # else nothing but padding is read
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 4, *size)).astype(np.float32)
    weight = rng.standard_normal((6, 4 // groups, high, wide)).astype(np.float32)
    bias = rng.standard_normal(6).astype(np.float32)
    consts = [constant("weight", weight, "fp32"), constant("bias", bias, "fp32")]
    given = {"strides": list(strides), "dilations": list(dilations), "groups": groups, "pad_type": "custom"}
    item = windowed("conv", x.shape, (2, 6, *out), consts, **given, pad=list(pads))
    small = made_small(item)
    padded = F.pad(torch.from_numpy(x), (pads[2], pads[3], pads[0], pads[1]))
    right = F.conv2d(padded, torch.from_numpy(weight), torch.from_numpy(bias), strides, 0, dilations, groups)
    np.testing.assert_allclose(ran(small, x), right, rtol=1e-4, atol=2e-4)
    kernels = [step.operands["weight"][0].shape[2:] for step in steps(small) if step.type == "conv"]
    assert kernels and all((h or 0) <= HIGHEST and (w or 0) <= WIDEST for h, w in kernels)
    assert (small == item) == (high <= HIGHEST and wide <= WIDEST)


@pytest.mark.parametrize(("kernel", "size", "types"), [(16, 32, ["pixel_unshuffle", "conv"]), (14, 28, ["conv"])])
def test_patches_become_one_convolution_of_their_pixels(kernel: int, size: int, types: list[str]) -> None:
    rng = np.random.default_rng(kernel)
    x = rng.standard_normal((2, 3, size, 2 * size)).astype(np.float32)
    weight = rng.standard_normal((8, 3, kernel, kernel)).astype(np.float32)
    given = {"strides": [kernel] * 2, "pad_type": "valid", "pad": [0] * 4, "dilations": [1, 1], "groups": 1}
    out = (2, 8, size // kernel, 2 * size // kernel)
    small = made_small(windowed("conv", x.shape, out, [constant("weight", weight, "fp32")], **given))
    right = F.conv2d(torch.from_numpy(x), torch.from_numpy(weight), None, kernel)
    np.testing.assert_allclose(ran(small, x), right, rtol=1e-4, atol=1e-4)
    assert [step.type for step in steps(small)] == types


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 33), st.tuples(st.integers(1, 4), st.integers(1, 20)),
    st.tuples(st.integers(0, 5), st.integers(0, 16)), st.integers(0, 99),
)  # fmt: skip
def test_a_wide_maximum_is_torch_s(
    high: int, wide: int, strides: tuple[int, int], pads: tuple[int, int], seed: int
) -> None:
    assume(pads[0] <= high // 2 and pads[1] <= wide // 2)
    x = np.random.default_rng(seed).standard_normal((1, 2, 13, 37)).astype(np.float32)
    right = F.max_pool2d(torch.from_numpy(x), (high, wide), strides, pads)
    given = {"kernel_sizes": [high, wide], "strides": list(strides), "pad_type": "custom", "ceil_mode": False}
    pad = [pads[0], pads[0], pads[1], pads[1]]
    small = made_small(windowed("max_pool", x.shape, tuple(right.shape), [], **given, pad=pad))
    np.testing.assert_array_equal(ran(small, x), right)
    spans = [step.setting("kernel_sizes")[-1] for step in steps(small)]
    assert all(span <= POOL for span in spans)
    assert (len(spans) == 1) == (wide <= POOL)


@pytest.mark.parametrize("kind", ["same", "same_lower"])
def test_padding_that_the_result_s_size_tells(kind: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1, 2, 5, 50)).astype(np.float32)
    weight = rng.standard_normal((3, 2, 2, 18)).astype(np.float32)
    given = {"strides": [1, 3], "pad_type": kind, "pad": [0] * 4, "dilations": [1, 1], "groups": 1}
    item = windowed("conv", x.shape, (1, 3, 5, 17), [constant("weight", weight, "fp32")], **given)
    np.testing.assert_allclose(ran(made_small(item), x), ran(item, x), rtol=1e-4, atol=1e-4)
    assert made_small(item) != item
