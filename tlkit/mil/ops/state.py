"""States (iOS18): a state is the tensor that outlives the call.

A read copies, so that a value read before an update keeps its contents. ``lower/states.py`` removes unneeded copies and
updates slices in place, which is why a KV cache costs only its new row.
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
    """Make ``data`` the state's contents. Program files contain this op; coremltools' builder has the next one."""
    if data is not input:
        input.copy_(data)


@op(since=18, exact=True)
def coreml_update_state(state: Tensor, value: Tensor) -> Tensor:
    """``write_state``, then ``read_state``."""
    write_state(state, value)
    return state.clone()


def borrow(input: Tensor) -> Tensor:
    """``read_state`` without the copy, for reads through which no update can be seen."""
    return input


# Otherwise fx would remove them as dead code: nothing uses their results.
fx.has_side_effect(write_state)
fx.has_side_effect(coreml_update_state)
