"""MIL's matrix products.

From iOS17 on a constant operand's type may differ from the other's. The product of integers and floats is computed in
floats and converted to the type of the operand that is not constant. All float types compute in f32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from tlkit.mil.ops.kit.narrow import mark_of
from tlkit.mil.ops.kit.registry import Tensor, Tensors, declared_carrier, op


@op()
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x times the transposed weight, plus bias: [*D, in] by [out, in] is [*D, out], of x's type."""
    if mark_of(weight) is not None:
        return _by_parts(x, weight, bias)
    common = torch.promote_types(x.dtype, weight.dtype)
    inputs, weight = x.to(common), weight.to(common)
    if common.is_floating_point:
        return F.linear(inputs, weight, None if bias is None else bias.to(common)).to(x.dtype)
    product = torch.matmul(inputs, weight.T)
    return product if bias is None else product + bias


def _by_parts(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same with a narrow weight, of which no more than a part need be widened at a time."""
    mark = mark_of(weight)
    assert mark is not None
    inputs, found, start = x.to(torch.float32), [], 0
    for part in mark.parts(weight):
        stop = start + len(part)
        found.append(F.linear(inputs, part, None if bias is None else bias[start:stop].to(torch.float32)))
        start = stop
    return (found[0] if len(found) == 1 else torch.cat(found, -1)).to(x.dtype)


@op()
def matmul(output_types: Any, x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """The product over the last two axes, numpy's broadcasting over the rest; a vector is a row of x, a column of y."""
    if transpose_x and x.ndim > 1:
        x = x.mT
    if transpose_y and y.ndim > 1:
        y = y.mT
    if x.dtype == y.dtype:
        return torch.matmul(x, y)
    common = torch.promote_types(x.dtype, y.dtype)
    return torch.matmul(x.to(common), y.to(common)).to(declared_carrier(output_types))


@op()
def einsum(values: Tensors, equation: str) -> Tensor:
    """The product of two tensors that ``equation`` describes (``nchw,nwhu->nchu``); an axis of length 1 broadcasts."""
    return torch.einsum(equation, *values)
