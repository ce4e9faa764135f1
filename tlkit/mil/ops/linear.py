"""MIL's matrix products. From iOS17 on a constant operand may have another float type, which changes nothing here."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tlkit.mil.ops._registry import Tensor, Tensors, op


@op()
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x times the transposed weight, plus bias: [*D, in] by [out, in] is [*D, out]."""
    if x.is_floating_point():
        return F.linear(x, weight, bias)
    product = torch.matmul(x, weight.T.to(x.dtype))
    return product if bias is None else product + bias.to(x.dtype)


@op()
def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """The product over the last two axes, numpy's broadcasting over the rest; a vector is a row of x, a column of y."""
    if transpose_x and x.ndim > 1:
        x = x.mT
    if transpose_y and y.ndim > 1:
        y = y.mT
    return torch.matmul(x, y)


@op()
def einsum(values: Tensors, equation: str) -> Tensor:
    """The product of two tensors that ``equation`` describes (``nchw,nwhu->nchu``); an axis of length 1 broadcasts."""
    return torch.einsum(equation, *values)
