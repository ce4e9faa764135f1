"""MIL's elementwise operations on two tensors, with numpy's broadcasting. int32 operands give int32."""

from __future__ import annotations

import torch

from tlkit.mil.ops.kit.registry import Tensor, op


@op()
def add(x: Tensor, y: Tensor) -> Tensor:
    """x + y."""
    return x + y


@op()
def sub(x: Tensor, y: Tensor) -> Tensor:
    """x - y."""
    return x - y


@op()
def mul(x: Tensor, y: Tensor) -> Tensor:
    """x * y."""
    return x * y


@op()
def real_div(x: Tensor, y: Tensor) -> Tensor:
    """x / y; of integers, the quotient toward 0."""
    return x / y if x.is_floating_point() else _whole(x, y, "trunc")


@op()
def floor_div(x: Tensor, y: Tensor) -> Tensor:
    """x / y rounded down."""
    return torch.floor_divide(x, y) if x.is_floating_point() else _whole(x, y, "floor")


@op()
def mod(x: Tensor, y: Tensor) -> Tensor:
    """The remainder of floor_div: it has y's sign."""
    if x.is_floating_point():
        return torch.remainder(x, y)
    # torch refuses a remainder by 0 on the CPU, as it does a quotient (see _whole).
    return torch.where(y == 0, 0, torch.remainder(x, torch.where(y == 0, 1, y)))


@op("pow")
def pow_(x: Tensor, y: Tensor) -> Tensor:
    """x to the power of y."""
    return torch.pow(x, y)


@op(exact=True)
def maximum(x: Tensor, y: Tensor) -> Tensor:
    """The larger one."""
    return torch.maximum(x, y)


@op(exact=True)
def minimum(x: Tensor, y: Tensor) -> Tensor:
    """The smaller one."""
    return torch.minimum(x, y)


@op(exact=True)
def equal(x: Tensor, y: Tensor) -> Tensor:
    """x == y, a bool."""
    return x == y


@op(exact=True)
def not_equal(x: Tensor, y: Tensor) -> Tensor:
    """x != y, a bool."""
    return x != y


@op(exact=True)
def greater(x: Tensor, y: Tensor) -> Tensor:
    """x > y, a bool."""
    return x > y


@op(exact=True)
def greater_equal(x: Tensor, y: Tensor) -> Tensor:
    """x >= y, a bool."""
    return x >= y


@op(exact=True)
def less(x: Tensor, y: Tensor) -> Tensor:
    """x < y, a bool."""
    return x < y


@op(exact=True)
def less_equal(x: Tensor, y: Tensor) -> Tensor:
    """x <= y, a bool."""
    return x <= y


@op(exact=True)
def logical_and(x: Tensor, y: Tensor) -> Tensor:
    """Whether both are true."""
    return torch.logical_and(x, y)


@op(exact=True)
def logical_or(x: Tensor, y: Tensor) -> Tensor:
    """Whether one is true."""
    return torch.logical_or(x, y)


@op(exact=True)
def logical_xor(x: Tensor, y: Tensor) -> Tensor:
    """Whether just one is true."""
    return torch.logical_xor(x, y)


def _whole(x: Tensor, y: Tensor, rounding: str) -> Tensor:
    """The integer quotient, 0 where y is 0: torch refuses that on the CPU."""
    quotient = torch.div(x, torch.where(y == 0, 1, y), rounding_mode=rounding)
    return torch.where(y == 0, 0, quotient)
