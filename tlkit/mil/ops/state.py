"""States (iOS18): a state is the tensor that outlives the call.

A read is a copy, so that a value read before an update keeps its contents. ``lower/states.py`` drops the copies that
nothing needs and updates slices in place, which is why a KV cache costs only its new row.
"""

from __future__ import annotations

from torch import fx

from tlkit.mil.ops.kit.registry import Tensor, op


@op(since=18, exact=True)
def read_state(input: Tensor) -> Tensor:
    """The state's contents."""
    return input.clone()


@op(since=18, exact=True)
def write_state(input: Tensor, data: Tensor) -> None:
    """Make ``data`` the state's contents; a program's file has this op, coremltools' builder has the next one."""
    if data is not input:
        input.copy_(data)


@op(since=18, exact=True)
def coreml_update_state(state: Tensor, value: Tensor) -> Tensor:
    """``write_state``, then ``read_state``."""
    write_state(state, value)
    return state.clone()


def borrow(input: Tensor) -> Tensor:
    """``read_state`` without the copy, where no update can be seen through it."""
    return input


fx.has_side_effect(write_state)
fx.has_side_effect(coreml_update_state)
