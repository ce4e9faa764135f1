"""States: their contents go in as inputs and come out as outputs; in between a write gives the state new contents."""

from __future__ import annotations

from dataclasses import replace

from tlkit.engines.onnx.lower.graph import Graph, Unsupported, Value
from tlkit.engines.onnx.lower.registry import lowers
from tlkit.mil.ops import state as mil


def _contents(g: Graph, state: Value) -> Value:
    if state.name not in g.states:
        raise Unsupported(f"'{state.name}' is no state")
    return g.states[state.name]


@lowers(mil.read_state)
def read_state(g: Graph, input: Value) -> Value:
    """The state's contents."""
    return _contents(g, input)


@lowers(mil.borrow)
def borrow(g: Graph, input: Value) -> Value:
    """The state's contents, or the value itself where it is not a state."""
    return g.states.get(input.name, input)


@lowers(mil.write_state)
def write_state(g: Graph, input: Value, data: Value) -> None:
    """Make ``data`` the state's contents."""
    g.states[input.name] = replace(g.states.get(data.name, data), shape=_contents(g, input).shape)


@lowers(mil.coreml_update_state)
def coreml_update_state(g: Graph, state: Value, value: Value) -> Value:
    """``write_state``, then ``read_state``."""
    write_state(g, state, value)
    return _contents(g, state)
