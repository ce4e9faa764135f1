"""Recurrent layers. x is [sequence, batch, C, 1, 1], states are [1, batch, C, 1, 1].

MIL says those with the usual nonlinearities; the others become operations of tlkit's own (``mil/dialect``). What goes
into a nonlinearity is held between -50 and 50 there: at 50 and beyond, tanh and the sigmoid are the same in f32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tlkit.errors import LoadError
from tlkit.frontends.network.kit.blob import Blob
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.registry import Layer, layer
from tlkit.frontends.network.kit.weights import array_value, zeros
from tlkit.frontends.network.layers.activation import nonlinearity
from tlkit.mil.program import Value
from tlkit.mil.types import DType

_CLIP = 50.0
_GATES = ("inputGate", "forgetGate", "outputGate", "blockInput")  # in MIL's order: i, f, o, z
_MIL = {"tanh": "tanh", "sigmoid": "sigmoid", "ReLU": "relu", "sigmoidHard": "sigmoid_hard", "linear": "linear"}
_PARAMETERS = {"sigmoidHard": (0.2, 0.5), "linear": (1.0, 0.0)}  # what MIL uses, where they cannot be given
Nonlinearities = list[tuple[str, float, float]]


def _named(found: Nonlinearities) -> list[str] | None:
    """Return MIL's names of nonlinearities, None where it cannot say one."""
    for kind, alpha, beta in found:
        wanted = _PARAMETERS.get(kind, (alpha, beta))
        # A file holds 0.2 as an f32.
        if kind not in _MIL or max(abs(alpha - wanted[0]), abs(beta - wanted[1])) > 1e-6:
            return None
    return [_MIL[kind] for kind, _, _ in found]


def _listed(found: Nonlinearities) -> dict[str, Any]:
    return {
        "activations": [kind for kind, _, _ in found],
        "alphas": [float(alpha) for _, alpha, _ in found],
        "betas": [float(beta) for _, _, beta in found],
    }


def _activations(messages: Any, count: int) -> Nonlinearities:
    found = [nonlinearity(message) for message in messages]
    if len(found) != count:
        raise LoadError(f"{len(found)} nonlinearities where {count} are needed", "the file is damaged")
    return found


def _sequence(g: Graph, layer: Layer, size: int) -> Blob:
    """Return x as [sequence, batch, size]."""
    if layer.x.rank != 5:
        raise LoadError(f"a recurrent layer of {layer.x.logical}, which has not rank 5", "the network is damaged")
    x = g.lay(layer.x, 0, 2)
    if x.shape[2] not in (size, None):
        raise LoadError(f"a recurrent layer for {size} numbers meets {layer.x.logical}", "the network is damaged")
    return x


def _state(g: Graph, given: Blob | None, x: Blob, size: int) -> Blob:
    """Return a state as [batch, size]: what is given, or zeros."""
    if given is not None:
        # [1, batch, C, 1, 1] becomes [batch, C].
        state = g.lay(given, 1, 2) if given.rank == 5 else g.reshape(given, (x.shape[1], size))
        if state.shape[1] not in (size, None):
            raise LoadError(f"a state of {given.logical} where {size} numbers are needed", "the network is damaged")
        return Blob(state.name, state.shape)
    # The zeros' size has to be known when the program is made.
    if x.shape[1] is None:
        raise LoadError("a batch of an open size", "give the model a fixed shape")
    return g.tensor(zeros((x.shape[1], size)), "zeros")


def _outputs(names: Sequence[str], x: Blob, size: int, sequence: bool) -> list[Blob]:
    steps = x.shape[0] if sequence else 1
    y = Blob(names[0], (steps, x.shape[1], size), 0, 2)
    return [y, *(Blob(name, (x.shape[1], size), 1, 2) for name in names[1:])]


def _shapes(x: Blob, size: int, sequence: bool, states: int) -> list[tuple[tuple[int | None, ...], DType]]:
    steps = x.shape[0] if sequence else 1
    return [((steps, x.shape[1], size), DType.FP32), *[((x.shape[1], size), DType.FP32)] * states]


@layer("simpleRecurrent")
def simple_recurrent(g: Graph, layer: Layer) -> Sequence[Blob]:
    """h = f(W x + R h + b)."""
    p, size = layer.params, layer.params.outputVectorSize
    x = _sequence(g, layer, p.inputVectorSize)
    found: Nonlinearities = [nonlinearity(p.activation)]
    given = {
        "x": x,
        "initial_h": _state(g, layer.input(1), x, size),
        "weight_ih": layer.weights.tensor(p.weightMatrix, (size, p.inputVectorSize)),
        "weight_hh": layer.weights.tensor(p.recursionMatrix, (size, size)),
        "bias": layer.weights.tensor(p.biasVector, (size,)) if p.hasBiasVector else None,
        "output_sequence": bool(p.sequenceOutput),
    }
    names = _named(found)
    if names:
        how: dict[str, Any] = {"direction": _turned(p.reverseInput), "activation": names[0]}
        made = g.emit("rnn", _shapes(x, size, p.sequenceOutput, 1), **given, **how)
    else:
        how = {"reverse": bool(p.reverseInput), **_listed(found)}
        made = g.emit("tlkit.simple_recurrent", _shapes(x, size, p.sequenceOutput, 1), **given, **how)
    return _outputs(made, x, size, p.sequenceOutput)


@layer("gru")
def gru(g: Graph, layer: Layer) -> Sequence[Blob]:
    """A gated recurrent unit whose reset gate comes before the matrix."""
    p, size = layer.params, layer.params.outputVectorSize
    x, found = _sequence(g, layer, p.inputVectorSize), _activations(p.activations, 2)

    def stacked(part: str, shape: tuple[int, ...]) -> Value:
        several = [getattr(p, f"{gate}Gate{part}") for gate in ("reset", "output", "update")]
        return layer.weights.joined(several, [shape] * 3)

    given = {
        "x": x,
        "initial_h": _state(g, layer.input(1), x, size),
        "weight_ih": stacked("WeightMatrix", (size, p.inputVectorSize)),
        "weight_hh": stacked("RecursionMatrix", (size, size)),
        "bias": stacked("BiasVector", (size,)) if p.hasBiasVectors else None,
        "output_sequence": bool(p.sequenceOutput),
    }
    names = _named(found)
    if names:
        how: dict[str, Any] = {"direction": _turned(p.reverseInput)}
        how |= {"recurrent_activation": names[0], "activation": names[1]}
        made = g.emit("gru", _shapes(x, size, p.sequenceOutput, 1), **given, **how)
    else:
        other = {"reverse": bool(p.reverseInput), **_listed(found)}
        made = g.emit("tlkit.gated_recurrent", _shapes(x, size, p.sequenceOutput, 1), **given, **other)
    return _outputs(made, x, size, p.sequenceOutput)


def _lstm_weights(layer: Layer, p: Any, w: Any, size: int, width: int) -> dict[str, Any]:
    """Return the weights of one direction by MIL's names, gates in MIL's order (i, f, o, z)."""

    def stacked(part: str, shape: tuple[int, ...], plus: Sequence[float] = ()) -> Value:
        several = [getattr(w, f"{gate}{part}") for gate in _GATES]
        return layer.weights.joined(several, [shape] * 4, plus=plus)

    bias = peephole = None
    if p.hasBiasVectors:
        # i, f, o, z: forgetBias adds 1 to the forget gate's.
        bias = stacked("BiasVector", (size,), (0.0, 1.0, 0.0, 0.0) if p.forgetBias else ())
    elif p.forgetBias:
        bias = _forget_bias(size)
    if p.hasPeepholeVectors:
        several = [getattr(w, f"{gate}PeepholeVector") for gate in _GATES[:3]]
        peephole = layer.weights.joined(several, [(size,)] * 3)
    return {
        "weight_ih": stacked("WeightMatrix", (size, width)),
        "weight_hh": stacked("RecursionMatrix", (size, size)),
        "bias": bias,
        "peephole": peephole,
    }


def _forget_bias(size: int) -> Value:
    return array_value(np.repeat(np.array([0, 1, 0, 0], np.float32), size))


def _clip(p: Any, x: Blob, stateful: bool) -> float | None:
    """Return how far the cell may go, None where it cannot get there: it moves by 1 a step at most, from 0."""
    clip = float(p.cellClipThreshold) or _CLIP
    steps = x.shape[0]
    return None if steps is not None and steps <= clip and not stateful else clip


@layer("uniDirectionalLSTM")
def lstm(g: Graph, layer: Layer) -> Sequence[Blob]:
    """A long short-term memory: each step's output, or the last one's, and the last states."""
    p = layer.params
    size, width, how = p.outputVectorSize, p.inputVectorSize, p.params
    x, found = _sequence(g, layer, width), _activations(p.activations, 3)
    states = [_state(g, layer.input(place), x, size) for place in (1, 2)]
    weights = _lstm_weights(layer, how, p.weightParams, size, width)
    made = _direction(g, x, states, weights, found, how, bool(p.reverseInput), layer.input(2) is not None)
    return _outputs(made, x, size, how.sequenceOutput)


def _direction(
    g: Graph,
    x: Blob,
    states: Sequence[Blob],
    weights: dict[str, Any],
    found: Nonlinearities,
    how: Any,
    reverse: bool,
    stateful: bool,
) -> tuple[str, ...]:
    shapes = _shapes(x, states[0].shape[1] or 0, how.sequenceOutput, 2)
    given = {"x": x, "initial_h": states[0], "initial_c": states[1], "output_sequence": bool(how.sequenceOutput)}
    names = None if how.coupledInputAndForgetGate else _named(found)
    if names:
        # MIL's lstm spells it the other way round than its rnn.
        names = ["hard_sigmoid" if name == "sigmoid_hard" else name for name in names]
        said = dict(zip(("recurrent_activation", "cell_activation", "activation"), names, strict=True))
        # Only then does the cell move by at most 1 per step.
        bounded = names[0] in ("sigmoid", "hard_sigmoid") and names[1] in ("tanh", "sigmoid", "hard_sigmoid")
        clip = _clip(how, x, stateful or not bounded)
        return g.emit("lstm", shapes, **given, **weights, **said, direction=_turned(reverse), clip=clip)
    other = {"reverse": reverse, "clip": float(how.cellClipThreshold) or _CLIP, **_listed(found)}
    coupled = bool(how.coupledInputAndForgetGate)
    return g.emit("tlkit.long_short_term", shapes, **given, **weights, **other, coupled=coupled)


def _turned(reverse: bool) -> str:
    return "reverse" if reverse else "forward"


@layer("biDirectionalLSTM")
def bidirectional_lstm(g: Graph, layer: Layer) -> Sequence[Blob]:
    """Two LSTMs, one from each end: outputs side by side, in the input's order; then the states of both."""
    p = layer.params
    size, width, how = p.outputVectorSize, p.inputVectorSize, p.params
    if len(p.weightParams) != 2:
        raise LoadError(f"the weights of {len(p.weightParams)} directions", "the file is damaged")
    x, made = _sequence(g, layer, width), []
    for index, messages in enumerate((p.activationsForwardLSTM, p.activationsBackwardLSTM)):
        found = _activations(messages, 3)
        places = (1 + 2 * index, 2 + 2 * index)
        states = [_state(g, layer.input(place), x, size) for place in places]
        weights = _lstm_weights(layer, how, p.weightParams[index], size, width)
        stateful = layer.input(places[1]) is not None
        made.append(_direction(g, x, states, weights, found, how, bool(index), stateful))
    steps = x.shape[0] if how.sequenceOutput else 1
    shape = (steps, x.shape[1], size)
    forward, backward = (Blob(names[0], shape) for names in made)
    if how.sequenceOutput:
        # A reversed direction returns its steps in its own order, the sequence's end first.
        backward = g.op("reverse", shape, x=backward, axes=[0])
    both = g.op("concat", (steps, x.shape[1], 2 * size), values=[forward, backward], axis=2)
    last = [Blob(name, (x.shape[1], size), 1, 2) for names in made for name in names[1:]]
    return [Blob(both.name, both.shape, 0, 2), *last]
