"""Recurrent networks with the usual activations. A reversed one runs forwards over the reversed sequence, as in MIL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tlkit.engines.onnx.kit.graph import GraphValue, OnnxGraph, UnsupportedGraph
from tlkit.engines.onnx.kit.registry import lowers
from tlkit.engines.onnx.lower.ops.kit import known, need_floats, reshaped
from tlkit.engines.onnx.lower.ops.transformation import reverse
from tlkit.mil.ops import recurrent as mil


def _stacked(weights: Sequence[GraphValue | None], order: Sequence[int], gates: int, size: int) -> np.ndarray:
    """Return constant weights with their gates in ONNX's order, one more dimension for the directions."""
    found = []
    for weight in weights:
        array = np.zeros(gates * size, np.float32) if weight is None else known(weight)
        parts = np.split(array, gates)
        found.append(np.concatenate([parts[place] for place in order]))
    return np.stack(found)


def _refuse(what: object, usual: object) -> None:
    if what != usual:
        raise UnsupportedGraph(f"a recurrent network with {what}")


@lowers(mil.lstm)
def lstm(
    g: OnnxGraph,
    x: GraphValue,
    initial_h: GraphValue,
    initial_c: GraphValue,
    weight_ih: GraphValue,
    weight_hh: GraphValue,
    bias: GraphValue | None = None,
    peephole: GraphValue | None = None,
    weight_ih_back: GraphValue | None = None,
    weight_hh_back: GraphValue | None = None,
    bias_back: GraphValue | None = None,
    peephole_back: GraphValue | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: float | None = None,
) -> tuple[GraphValue, GraphValue, GraphValue]:
    """Long short-term memory; MIL's gates are i, f, o, z and ONNX's i, o, f, z."""
    need_floats(x)
    _refuse((recurrent_activation.lower(), cell_activation.lower(), activation.lower()), ("sigmoid", "tanh", "tanh"))
    _refuse((peephole, peephole_back, clip), (None, None, None))
    two = direction == "bidirectional"
    size, batch = weight_hh.known[1], x.known[1]
    pairs = ((weight_ih, weight_ih_back), (weight_hh, weight_hh_back), (bias, bias_back))
    kept = [pair if two else pair[:1] for pair in pairs]
    w, r, b = (_stacked(pair, (0, 2, 1, 3), 4, size) for pair in kept)
    states = [_directions(g, state, batch, size, two) for state in (initial_h, initial_c)]
    sequence = reverse(g, x, (0,)) if direction == "reverse" else x
    both = np.concatenate((b, np.zeros_like(b)), 1)
    how: dict[str, Any] = {"direction": "bidirectional" if two else "forward", "hidden_size": size}
    steps, h, c = g.ops("LSTM", sequence, w, r, both, None, *states, count=3, **how)
    return _steps(g, x, steps, h, size, two, output_sequence), _joined(g, h, two), _joined(g, c, two)


@lowers(mil.gru)
def gru(
    g: OnnxGraph,
    x: GraphValue,
    initial_h: GraphValue,
    weight_ih: GraphValue,
    weight_hh: GraphValue,
    bias: GraphValue | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
    reset_after: bool = False,
    input_bias: GraphValue | None = None,
) -> tuple[GraphValue, GraphValue]:
    """A gated recurrent unit; MIL's gates are r, o, z and ONNX's z, r, o."""
    need_floats(x)
    _refuse((recurrent_activation.lower(), activation.lower()), ("sigmoid", "tanh"))
    size = weight_hh.known[1]
    w, r, wb, rb = (_stacked([item], (2, 0, 1), 3, size) for item in (weight_ih, weight_hh, input_bias, bias))
    sequence = reverse(g, x, (0,)) if direction == "reverse" else x
    state = reshaped(g, initial_h, (1, x.known[1], size))
    both = np.concatenate((wb, rb), 1)
    how: dict[str, Any] = {"hidden_size": size, "linear_before_reset": int(reset_after)}
    steps, h = g.ops("GRU", sequence, w, r, both, None, state, count=2, **how)
    return _steps(g, x, steps, h, size, False, output_sequence), _joined(g, h, False)


def _directions(g: OnnxGraph, state: GraphValue, batch: int, size: int, two: bool) -> GraphValue:
    """Return a state [batch, directions * size] as [directions, batch, size]."""
    if not two:
        return reshaped(g, state, (1, batch, size))
    return g.op("Transpose", reshaped(g, state, (batch, 2, size)), perm=[1, 0, 2])


def _joined(g: OnnxGraph, state: GraphValue, two: bool) -> GraphValue:
    """Return a state [directions, batch, size] as [batch, directions * size]."""
    axes = np.array([0], np.int64)
    if not two:
        return g.op("Squeeze", state, axes)
    moved = g.op("Transpose", state, perm=[1, 0, 2])
    return g.op("Reshape", moved, np.array([0, -1], np.int64))


def _steps(
    g: OnnxGraph, x: GraphValue, steps: GraphValue, h: GraphValue, size: int, two: bool, sequence: bool
) -> GraphValue:
    """Return every step [length, batch, directions * size], or the last one of each direction."""
    if not sequence:
        return g.op("Unsqueeze", _joined(g, h, two), np.array([0], np.int64))
    moved = g.op("Transpose", steps, perm=[0, 2, 1, 3])
    shape = np.array([x.known[0], x.known[1], size * (2 if two else 1)], np.int64)
    return replace(g.op("Reshape", moved, shape), small=True)
