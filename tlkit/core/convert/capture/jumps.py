"""Where a result jumps: operations of floating numbers that give steps, of which a rounding may choose the other.

Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_STEPS = frozenset(["floor", "ceil", "round", "trunc", "fix", "sign", "sgn", "heaviside"])
_ORDERS = frozenset(["lt", "le", "gt", "ge"])
_WHOLE = frozenset([torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])


def step_of(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> tuple[Tensor, Tensor] | None:
    """Return what decides an operation's step, and a tensor that is the same as long as the step is; None for others.

    ``name`` is aten's, ``args``, ``kwargs`` and ``result`` what the operation took and gave. Comparisons and casts to
    integers are steps, remainders jump where their quotient reaches a whole number.
    """
    value = args[1] if name == "searchsorted" and len(args) > 1 else args[0] if args else None
    if not isinstance(value, Tensor) or not isinstance(result, Tensor) or not value.is_floating_point():
        return None
    if name in _STEPS or name in _ORDERS or name in ("bucketize", "searchsorted", "floor_divide"):
        return value, result
    if name == "_to_copy":
        return (value, result) if result.dtype in _WHOLE else None
    if name == "threshold":
        return value, value > args[1]
    if name == "hardshrink":
        return value, result != 0
    if name == "frac":
        return value, value.trunc()
    if name in ("remainder", "fmod"):
        return value, (value / args[1]).trunc() if name == "fmod" else (value / args[1]).floor()
    return (value, result) if name == "div" and kwargs.get("rounding_mode") else None
