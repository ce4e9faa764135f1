"""Prepare a lowered function for export: ports as described, states as buffers, outputs by name.

torch.export then decomposes every operation into torch's own, so that the saved program does not need tlkit. Importing
this imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from tlkit.mil.lower.lower import lower
from tlkit.mil.ops import CARRIERS, round_f16
from tlkit.mil.program import Function, StateType, TensorType
from tlkit.mil.types import DType
from tlkit.types import LARGEST, TensorSpec

_SMALL = ("int8", "uint8", "int16")


def exportable(function: Function, precision: str, *, narrow: bool = True, strict_mil: bool = False) -> fx.GraphModule:
    """Lower ``function`` to a module that takes the inputs in order and returns ``{output: tensor}``.

    fp16 inputs come as float32 and are rounded (not with ``precision="f32"``); rank-0 inputs and outputs have one
    axis of one element, as Core ML hands them over; states are buffers. A classifier's label is the class's index.
    ``narrow=False`` carries 8 and 16-bit integers that a cast makes in 32 bits: the same values, more often supported.
    ``strict_mil`` takes the specification's ops where Core ML was measured to do something else.
    """
    module = lower(function, precision=precision, strict=strict_mil)
    places = [node for node in module.graph.nodes if node.op == "placeholder"]
    # A graph's placeholders have to come first.
    with module.graph.inserting_before(places[-1].next if places else None):
        for node, item in zip(places, function.inputs, strict=True):
            if isinstance(item.type, StateType):
                _state_to_buffer(module, node, item.type)
            elif isinstance(item.type, TensorType):
                _enter(module.graph, node, item.type, precision)
    if not narrow:
        _widen(module.graph)
    _name_outputs(module.graph, function)
    module.recompile()
    return module


def _enter(graph: fx.Graph, node: fx.Node, kind: TensorType, precision: str) -> None:
    # Before the new nodes use it too.
    users = list(node.users)
    value = graph.call_function(torch.reshape, (node, ())) if kind.shape == () else node
    if kind.dtype is DType.FP16 and precision == "f16":
        value = graph.call_function(round_f16, (value,))
    for user in users:
        user.replace_input_with(node, value)


def _widen(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        operation = node.meta.get("mil")
        if operation is None or operation.type != "cast" or node.kwargs["dtype"] not in _SMALL:
            continue
        with graph.inserting_after(node):
            wide = graph.call_method("to", (node, torch.int32))
        node.replace_all_uses_with(wide, lambda user, wide=wide: user is not wide)


def _state_to_buffer(module: fx.GraphModule, node: fx.Node, kind: StateType) -> None:
    """Make a state a buffer: torch.export supports buffers that change, but not inputs that do."""
    name = f"state_{node.name}"
    shape = [int(size or 0) for size in kind.wrapped.shape or ()]
    module.register_buffer(name, torch.zeros(shape, dtype=CARRIERS[kind.wrapped.dtype]))
    node.replace_all_uses_with(module.graph.get_attr(name))
    module.graph.erase_node(node)


def _name_outputs(graph: fx.Graph, function: Function) -> None:
    types = {item.name: item.type for item in function.inputs}
    types |= {item.name: item.type for operation in function.block.operations for item in operation.outputs}
    (output,) = (node for node in graph.nodes if node.op == "output")
    named = {}
    with graph.inserting_before(output):
        for name, value in zip(function.block.outputs, output.args[0], strict=True):
            kind = types.get(name)
            scalar = isinstance(kind, TensorType) and kind.shape == ()
            named[name] = graph.call_function(torch.reshape, (value, (1,))) if scalar else value
    output.args = (named,)


def examples(function: Function, ports: Sequence[TensorSpec]) -> dict[str, Tensor]:
    """Return zeros for each input, in shapes that torch does not mistake for fixed ones (an open length is over 1)."""
    kinds = {item.name: item.type for item in function.inputs}
    found = {}
    for port in ports:
        kind = kinds[port.name]
        assert isinstance(kind, TensorType)
        spans = open_lengths(port)
        shape = [_length(size, spans.get(axis)) for axis, size in enumerate(port.shape or (1,))]
        found[port.name] = torch.zeros(shape, dtype=CARRIERS[kind.dtype])
    return found


def open_lengths(port: TensorSpec) -> dict[int, tuple[int, int | None]]:
    """Return the axes whose length may vary, with the lowest and the highest (None: no end)."""
    spans = enumerate(port.spans)
    return {axis: (low, None if high == LARGEST else high) for axis, (low, high) in spans if low != high}


def _length(size: int, span: tuple[int, int | None] | None) -> int:
    if span is None:
        return size
    low, high = span
    return max(low, 2 if high is None or high >= 2 else high, size if size > 1 else 1)
