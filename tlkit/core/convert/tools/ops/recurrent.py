"""Recurrent networks: as torch.export records them, with a projection, and over packed sequences."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from tlkit.core.convert.tools.kit.mends import REPLACED, composed, mend
from tlkit.core.convert.tools.kit.reading import inputs_of

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


@mend("_pack_padded_sequence", "coremltools takes the lengths for the number of rows that each step has", replaces=True)
def _pack(context: Any, node: Any) -> None:
    """Leave the sequences padded, batch first; the lengths go with what stands for the number of rows of each step.

    Of these the first is the batch, from which states are made; no more is known before the model runs.
    """
    import numpy as np
    from coremltools.converters.mil import Builder as mb

    x, lengths, batch_first = inputs_of(context, node, "input lengths batch_first").values()
    x = mb.identity(x=x) if batch_first.val else mb.transpose(x=x, perm=[1, 0, 2])
    if not isinstance(x.shape[0], int):
        raise ValueError("packed sequences of a batch that is known only when the model runs")
    rows, sizes = node.outputs
    context.add(x, torch_name=rows)
    context.add(mb.const(val=np.full(1, x.shape[0], np.int32), name=sizes), torch_name=sizes)
    context.add(mb.cast(x=lengths, dtype="int32"), torch_name=_lengths_of(sizes))


def _lengths_of(sizes: str) -> str:
    """Return the name of the lengths of the sequences whose rows of each step are called ``sizes``."""
    return f"{sizes} lengths"


@mend("_pad_packed_sequence", "coremltools slices row by row, and only where all lengths are known", replaces=True)
def _pad(context: Any, node: Any) -> None:
    import numpy as np
    from coremltools.converters.mil import Builder as mb

    names = "data batch_sizes batch_first padding_value total_length"
    x, _, batch_first, value, total = inputs_of(context, node, names).values()
    lengths, length = context[_lengths_of(node.inputs[1])], -1 if total is None else int(total.val)
    inside = mb.expand_dims(x=_inside(x, 1, lengths), axes=[2])
    x = mb.select(cond=inside, a=x, b=np.float32(value.val))
    if length > (x.shape[1] if isinstance(x.shape[1], int) else length):
        x = mb.pad(x=x, pad=[0, 0, 0, length - x.shape[1], 0, 0], mode="constant", constant_val=np.float32(value.val))
    elif length in (-1, 1):  # as many steps as the longest has: torch asks how many rows `_pack` has noted, which is 1
        end = mb.concat(values=[0, mb.reduce_max(x=lengths, axes=[0]), 0], axis=0)
        x = mb.slice_by_index(x=x, begin=[0, 0, 0], end=end, begin_mask=[True] * 3, end_mask=[True, False, True])
    rows, counted = node.outputs
    context.add(mb.identity(x=x, name=rows) if batch_first.val else mb.transpose(x=x, perm=[1, 0, 2], name=rows))
    context.add(mb.identity(x=lengths, name=counted))


def _inside(x: Any, axis: int, lengths: Any) -> Any:
    """Return whether each step (``axis`` of ``x``) of each sequence is one of its ``lengths``, batch x steps."""
    from coremltools.converters.mil import Builder as mb

    count = x.shape[axis]
    count = count if isinstance(count, int) else mb.gather(x=mb.shape(x=x), indices=axis)
    return mb.less(x=mb.range_1d(start=0, end=count, step=1), y=mb.expand_dims(x=lengths, axes=[1]))


def _packed(kind: str) -> None:
    @mend(kind, "coremltools runs over the padding of packed sequences", replaces=True, applies=_is_packed)
    def translate(context: Any, node: Any) -> None:
        from coremltools.converters.mil import Builder as mb

        names = "data batch_sizes hx params has_biases num_layers dropout train bidirectional"
        given = inputs_of(context, node, names)
        states = [given["hx"]] if kind != "lstm" else list(given["hx"])
        lengths, ways = context[_lengths_of(node.inputs[1])], 2 if given["bidirectional"].val else 1
        layers = int(given["num_layers"].val)
        size = len(given["params"]) // (layers * ways)
        x, last = mb.transpose(x=given["data"], perm=[1, 0, 2]), []
        for layer in range(layers):
            made = []
            for way in range(ways):
                index = layer * ways + way
                begin = [mb.slice_by_size(x=state, begin=[index, 0, 0], size=[1, -1, -1]) for state in states]
                weights = given["params"][index * size : (index + 1) * size]
                steps = _turned(x, lengths) if way else x
                out, *ends = _layer(context, node, index, steps, lengths, begin, weights, given["has_biases"])
                turned = _turned(out, lengths)
                made.append(turned if way else out)
                # The last step of each sequence is the first of it turned round; only a cell stands still after it.
                first = mb.slice_by_size(x=turned, begin=[0, 0, 0], size=[1, -1, -1])
                last.append([first, *ends[1:]])
            x = made[0] if ways == 1 else mb.concat(values=made, axis=2)
        context.add(mb.transpose(x=x, perm=[1, 0, 2], name=node.outputs[0]))
        for name, parts in zip(node.outputs[1:], zip(*last, strict=True), strict=True):
            context.add(mb.concat(values=list(parts), axis=0, name=name))

    def _layer(
        context: Any, node: Any, index: int, x: Any, lengths: Any, states: list[Any], weights: list[Any], bias: Any
    ) -> list[Any]:
        """Run one layer one way over all steps, padding included; return what it gives, and its last states."""
        from coremltools.converters.mil import Builder as mb
        from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

        if kind == "lstm":
            x, weights = _standing(x, lengths, weights)
        numbers = {"layers": 1, "dropout": 0.0, "train": False, "both": False, "first": False}
        values = {"x": x, "states": states if kind == "lstm" else states[0], "weights": weights, "bias": bias}
        inner, prefix = copy(node), f"{node.name}_{index}"
        for name, value in {**values, **{name: mb.const(val=value) for name, value in numbers.items()}}.items():
            context.add(value, torch_name=f"{prefix}_{name}")
        inner.name, inner.inputs = prefix, [f"{prefix}_{name}" for name in (*values, *numbers)]
        inner.outputs = [f"{prefix}_output_{place}" for place in range(len(node.outputs))]
        _TORCH_OPS_REGISTRY.get_func(kind)(context, inner)
        return [context[name] for name in inner.outputs]

    del translate


def _turned(x: Any, lengths: Any) -> Any:
    """Return the steps of each sequence from its last to its first, the padding after them where it is."""
    from coremltools.converters.mil import Builder as mb

    return mb.reverse_sequence(x=x, lengths=lengths, seq_axis=0, batch_axis=1)


_SHUT = 1000.0  # what a gate is given to be 0 or 1, whatever else it is given


def _standing(x: Any, lengths: Any, weights: list[Any]) -> tuple[Any, list[Any]]:
    """Give an LSTM one more input, 1 in the padding, that keeps its cell as it is: nothing comes in, all is kept."""
    import numpy as np
    from coremltools.converters.mil import Builder as mb

    past = mb.cast(x=mb.logical_not(x=_inside(x, 0, lengths)), dtype="fp32")
    x = mb.concat(values=[x, mb.expand_dims(x=mb.transpose(x=past, perm=[1, 0]), axes=[2])], axis=2)
    plain = weights[0].val
    if plain is None:
        raise ValueError("a packed sequence, and weights that are computed when the model runs")
    gates = np.repeat([-_SHUT, _SHUT, 0, 0], len(plain) // 4).astype(plain.dtype)  # in, forget, cell, out
    return x, [mb.const(val=np.concatenate([plain, gates[:, None]], axis=1)), *weights[1:]]


for _kind in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
    _packed(_kind)


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
