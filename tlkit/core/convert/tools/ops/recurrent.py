"""Recurrent networks: as torch.export records them, and with a projection."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from tlkit.core.convert.tools.kit.mends import REPLACED, composed, mend

if TYPE_CHECKING:
    from torch import Tensor


def _projects(given: Sequence[Any]) -> bool:
    states = given[1]
    # With a projection h has its size, c the hidden one.
    return isinstance(states, list | tuple) and states[0].shape[-1] != states[1].shape[-1]


@composed("lstm", "MIL's lstm has no projection: step by step, at a fixed length", replaces=True, applies=_projects)
def _lstm(x: Tensor, states: Any, *rest: Any) -> Any:
    import torch
    from torch._decomp import decomposition_table

    if not isinstance(states, list | tuple) or states[0].shape[-1] == states[1].shape[-1]:
        return NotImplemented
    return decomposition_table[torch.ops.aten.lstm.input](x, states, *rest)


def _is_packed(given: Sequence[Any]) -> bool:
    # Rows and how many of them each step has, in place of steps and a state.
    return len(given) > 3 and hasattr(given[1], "sym_type") and isinstance(given[3], list | tuple)


def _refuse_packed(kind: str) -> None:
    @mend(kind, "says of packed sequences what is wrong", replaces=True, applies=_is_packed)
    def refuse(context: Any, node: Any) -> None:
        raise ValueError(
            "a packed sequence, whose lengths Core ML's recurrent layers do not take: run them on padded sequences, "
            "and take what lies at each length"
        )


for _packed in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
    _refuse_packed(_packed)


def _whole(kind: str) -> None:
    @mend(f"{kind}.input", "torch.export's name: taken apart it would be as many operations as there are steps")
    def translate(context: Any, node: Any) -> None:
        from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

        count = 3 if kind == "lstm" else 2
        inner = copy(node)
        inner.kind, inner.outputs = kind, [f"{node.name}_output_{index}" for index in range(count)]
        call = REPLACED.get(kind) or _TORCH_OPS_REGISTRY.get_func(kind)
        call(context, inner)
        context.add(tuple(context[name] for name in inner.outputs), torch_name=node.name)


for _kind in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
    _whole(_kind)
