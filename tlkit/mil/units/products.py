"""Convolutions, matrix products and attention by a unit's accumulator, with MIL's inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from tlkit.mil.ops.conv import transposed_cut
from tlkit.mil.ops.kit.registry import Ints, Tensor, Tensors
from tlkit.mil.ops.kit.window import pairs_for_torch, window_pads
from tlkit.mil.ops.linear import einsum as plain_einsum
from tlkit.mil.ops.linear import matmul as plain_matmul
from tlkit.mil.units.accumulators import Accumulator


def conv(
    sums: Accumulator,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """MIL's conv; a sum goes over the input channels, and in each over the kernel's places."""
    rank = x.ndim - 2
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    before, after = window_pads(x, weight.shape[2:], strides, pad_type, pad, dilations)
    padded = F.pad(x, pairs_for_torch(before, after)) if any(before) or any(after) else x
    return _convolved(sums, padded, weight, bias, strides, dilations, groups)


def _convolved(
    sums: Accumulator, x: Tensor, weight: Tensor, bias: Tensor | None, strides: Ints, dilations: Ints, groups: int
) -> Tensor:
    """A convolution without padding: the windows of each group [n * M, K] times its weights [K, N]."""
    quick = sums.convolve(x, weight, bias, strides, dilations, groups)
    if quick is not None:
        return quick
    windows, places = _windows(x, weight.shape[2:], strides, dilations)  # [n, C, kernel, M]
    count, inputs = x.shape[0], weight.shape[1]
    # The channels outside, the kernel's places inside: [n, groups, C / groups * kernel, M]
    parts = windows.unflatten(1, (groups, inputs)).flatten(2, 3)
    left = parts.permute(1, 0, 3, 2).reshape(groups, -1, parts.shape[2])
    right = weight.reshape(groups, -1, left.shape[2]).mT
    made = sums.product(left, right, None if bias is None else bias.reshape(groups, -1))
    made = made.reshape(groups, count, -1, right.shape[2]).permute(1, 0, 3, 2)
    return made.reshape(count, weight.shape[0], *places)


def _windows(x: Tensor, kernel: Sequence[int], strides: Ints, dilations: Ints) -> tuple[Tensor, list[int]]:
    """The windows of x [n, C, *D] as [n, C, kernel's places, positions], and the positions of each axis."""
    rank = len(kernel)
    for axis, (size, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        reach = (size - 1) * dilation + 1
        # Each unfolded axis adds its window as a last axis.
        x = x.unfold(axis + 2, reach, stride)[..., ::dilation]
    places = list(x.shape[2 : 2 + rank])
    return x.flatten(2 + rank).flatten(2, 1 + rank).mT, places


def conv_transpose(
    sums: Accumulator,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Ints | None = None,
    output_shape: Ints | None = None,
    pad_type: str = "valid",
    strides: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """MIL's conv_transpose: a convolution of x with zeros between its elements by the weight turned around."""
    rank = x.ndim - 2
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    kernel = weight.shape[2:]
    full = [(d - 1) * s + (k - 1) * e + 1 for d, s, k, e in zip(x.shape[2:], strides, kernel, dilations, strict=True)]
    before, after = transposed_cut(x, full, pad_type, pad, output_shape, strides)
    spread = x.new_zeros(*x.shape[:2], *((d - 1) * s + 1 for d, s in zip(x.shape[2:], strides, strict=True)))
    places: Any = (..., *(slice(None, None, s) for s in strides))
    spread[places] = x
    reach = [(k - 1) * e for k, e in zip(kernel, dilations, strict=True)]
    # A negative cut adds zeros, whose sums are the bias.
    sides = ([r - b for r, b in zip(reach, before, strict=True)], [r - a for r, a in zip(reach, after, strict=True)])
    spread = F.pad(spread, pairs_for_torch(*sides))
    # [C_in, C_out / groups, *K] to [C_out, C_in / groups, *K], each kernel turned around
    turned = weight.flip(tuple(range(2, 2 + rank))).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return _convolved(sums, spread, turned, bias, (1,) * rank, dilations, groups)


def linear(sums: Accumulator, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """MIL's linear: [*D, in] by [out, in]."""
    made = sums.product(x.reshape(1, -1, x.shape[-1]), weight.mT.unsqueeze(0), bias)
    return made.reshape(*x.shape[:-1], weight.shape[0])


def matmul(
    sums: Accumulator,
    output_types: Any,
    x: Tensor,
    y: Tensor,
    transpose_x: bool = False,
    transpose_y: bool = False,
) -> Tensor:
    """MIL's matmul of floats; of integers, the executor's own."""
    if not (x.is_floating_point() and y.is_floating_point()):
        return plain_matmul(output_types, x, y, transpose_x, transpose_y)
    left = x.mT if transpose_x and x.ndim > 1 else x
    right = y.mT if transpose_y and y.ndim > 1 else y
    row, column = left.ndim == 1, right.ndim == 1
    left, right = (left.unsqueeze(0) if row else left), (right.unsqueeze(-1) if column else right)
    made = batched(sums, left, right)
    made = made.squeeze(-2) if row else made
    return made.squeeze(-1) if column else made


def batched(sums: Accumulator, left: Tensor, right: Tensor) -> Tensor:
    """The product over the last two axes, numpy's broadcasting over the rest."""
    if right.ndim == 2:  # one matrix for all batches: their rows are those of one product
        made = sums.product(left.reshape(1, -1, left.shape[-1]), right.unsqueeze(0))
        return made.reshape(*left.shape[:-1], right.shape[-1])
    outer = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    flat = [item.expand(*outer, *item.shape[-2:]).reshape(-1, *item.shape[-2:]) for item in (left, right)]
    return sums.product(flat[0], flat[1]).reshape(*outer, left.shape[-2], right.shape[-1])


def einsum(sums: Accumulator, values: Tensors, equation: str) -> Tensor:
    """MIL's einsum of two tensors, as one batched product."""
    given, _, out = equation.replace(" ", "").partition("->")
    first, _, second = given.partition(",")
    x, y = values
    single = set(first) ^ set(second)
    if any(len(set(names)) != len(names) for names in (first, second)) or not single <= set(out) or "." in equation:
        return plain_einsum(values, equation)
    pairs = [*zip(first, x.shape, strict=True), *zip(second, y.shape, strict=True)]
    sizes = {axis: size for axis, size in pairs if size > 1}
    both = [axis for axis in first if axis in second and axis in out]
    summed = [axis for axis in first if axis in second and axis not in out]
    mine, yours = [a for a in first if a not in second], [a for a in second if a not in first]
    left = _arranged(x, first, both + mine + summed, sizes)
    right = _arranged(y, second, both + summed + yours, sizes)
    shape = [sizes.get(axis, 1) for axis in (*both, *mine, *yours)]
    b, m, k, n = (math.prod(sizes.get(axis, 1) for axis in part) for part in (both, mine, summed, yours))
    made = sums.product(left.reshape(b, m, k), right.reshape(b, k, n)).reshape(shape)
    order = [*both, *mine, *yours]
    return made.permute([order.index(axis) for axis in out])


def _arranged(value: Tensor, names: str, order: Sequence[str], sizes: dict[str, int]) -> Tensor:
    moved = value.permute([names.index(axis) for axis in order])
    return moved.expand([sizes.get(axis, 1) for axis in order])
