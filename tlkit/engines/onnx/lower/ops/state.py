"""States: their contents go in as inputs and come out as outputs; in between a write gives the state new contents."""

from __future__ import annotations

from dataclasses import replace

from tlkit.engines.onnx.kit.graph import GraphValue, OnnxGraph, UnsupportedGraph
from tlkit.engines.onnx.kit.registry import lowers
from tlkit.mil.ops import state as mil


def _contents(g: OnnxGraph, state: GraphValue) -> GraphValue:
    if state.name not in g.states:
        raise UnsupportedGraph(f"'{state.name}' is no state")
    return g.states[state.name]


@lowers(mil.read_state)
def read_state(g: OnnxGraph, input: GraphValue) -> GraphValue:
    """The state's contents."""
    return _contents(g, input)


@lowers(mil.borrow)
def borrow(g: OnnxGraph, input: GraphValue) -> GraphValue:
    """The state's contents, or the value itself where it is not a state."""
    return g.states.get(input.name, input)


@lowers(mil.write_state)
def write_state(g: OnnxGraph, input: GraphValue, data: GraphValue) -> None:
    """Make ``data`` the state's contents."""
    g.states[input.name] = replace(g.states.get(data.name, data), shape=_contents(g, input).shape)


@lowers(mil.coreml_update_state)
def coreml_update_state(g: OnnxGraph, state: GraphValue, value: GraphValue) -> GraphValue:
    """``write_state``, then ``read_state``."""
    write_state(g, state, value)
    return _contents(g, state)
