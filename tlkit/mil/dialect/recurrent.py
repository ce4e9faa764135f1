"""Recurrent networks as ``NeuralNetwork.proto`` has them: any nonlinearity with its parameters, coupled gates, clips.

The formulas are those of ``SimpleRecurrentLayerParams``, ``GRULayerParams`` and ``LSTMParams``: what goes into a
nonlinearity is held between -50 and 50. x is [sequence, batch, input]; all states are [batch, hidden].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F

from tlkit.errors import LoadError
from tlkit.mil.ops.kit.registry import Floats, Tensor, dialect

_CLIP = 50.0
_FUNCTIONS: Mapping[str, Callable[[Tensor, float, float], Tensor]] = {
    "ReLU": lambda x, a, b: torch.relu(x),
    "tanh": lambda x, a, b: torch.tanh(x),
    "sigmoid": lambda x, a, b: torch.sigmoid(x),
    "softsign": lambda x, a, b: F.softsign(x),
    "softplus": lambda x, a, b: F.softplus(x),
    "leakyReLU": lambda x, a, b: torch.where(x >= 0, x, a * x),
    "thresholdedReLU": lambda x, a, b: torch.where(x >= a, x, 0.0),
    "ELU": lambda x, a, b: torch.where(x >= 0, x, a * torch.expm1(x)),
    "linear": lambda x, a, b: a * x + b,
    "scaledTanh": lambda x, a, b: a * torch.tanh(b * x),
    "sigmoidHard": lambda x, a, b: (a * x + b).clamp(0, 1),
}


def _function(name: str, alpha: float, beta: float) -> Callable[[Tensor], Tensor]:
    found = _FUNCTIONS.get(name)
    if found is None:
        raise LoadError(f"unknown nonlinearity '{name}'", f"it is one of {', '.join(_FUNCTIONS)}")
    return lambda x: found(x.clamp(-_CLIP, _CLIP), alpha, beta)


def _functions(names: Sequence[str], alphas: Floats, betas: Floats) -> list[Callable[[Tensor], Tensor]]:
    return [_function(*item) for item in zip(names, alphas, betas, strict=True)]


def _directed(x: Tensor, reverse: bool) -> Tensor:
    return x.flip(0) if reverse else x


def _steps(found: Sequence[Tensor], sequence: bool) -> Tensor:
    # [steps, batch, hidden], or [1, batch, hidden]
    return torch.stack(tuple(found)) if sequence else found[-1].unsqueeze(0)


@dialect()
def simple_recurrent(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    activations: Sequence[str],
    alphas: Floats,
    betas: Floats,
    bias: Tensor | None = None,
    reverse: bool = False,
    output_sequence: bool = False,
) -> tuple[Tensor, Tensor]:
    """h = f(weight_ih x + weight_hh h + bias): each step's h, or only the last one's, and the last."""
    (run,), h, found = _functions(activations, alphas, betas), initial_h, []
    # The input's share for all steps is one product; only the state's share depends on the previous step.
    for part in F.linear(_directed(x, reverse), weight_ih, bias).unbind(0):
        h = run(part + F.linear(h, weight_hh))
        found.append(h)
    return _steps(found, output_sequence), h


@dialect()
def gated_recurrent(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    activations: Sequence[str],
    alphas: Floats,
    betas: Floats,
    bias: Tensor | None = None,
    reverse: bool = False,
    output_sequence: bool = False,
) -> tuple[Tensor, Tensor]:
    """A GRU whose reset gate comes before the matrix; weights stack the reset, output and update gates' rows."""
    gate, run = _functions(activations, alphas, betas)
    h, found = initial_h, []
    hidden_r, hidden_o, hidden_z = weight_hh.chunk(3)
    for part in F.linear(_directed(x, reverse), weight_ih, bias).unbind(0):
        # each [batch, hidden]
        part_r, part_o, part_z = part.chunk(3, -1)
        r, z = gate(part_r + F.linear(h, hidden_r)), gate(part_z + F.linear(h, hidden_z))
        # Like Keras with reset_after=False; torch's own GRU resets after the matrix.
        o = run(part_o + F.linear(r * h, hidden_o))
        h = (1 - z) * o + z * h
        found.append(h)
    return _steps(found, output_sequence), h


@dialect()
def long_short_term(
    x: Tensor,
    initial_h: Tensor,
    initial_c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    activations: Sequence[str],
    alphas: Floats,
    betas: Floats,
    bias: Tensor | None = None,
    peephole: Tensor | None = None,
    coupled: bool = False,
    clip: float = _CLIP,
    reverse: bool = False,
    output_sequence: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """An LSTM; weights stack the input, forget, output and cell gates' rows. ``activations`` are those of the gates,
    the cell and the output. ``coupled`` has 1 - i for the forget gate; the output gate's peephole sees the new cell."""
    gate, cell, run = _functions(activations, alphas, betas)
    peep_i, peep_f, peep_o = peephole.chunk(3) if peephole is not None else (0.0, 0.0, 0.0)
    h, c, found = initial_h, initial_c, []
    for part in F.linear(_directed(x, reverse), weight_ih, bias).unbind(0):
        i, f, o, z = (part + F.linear(h, weight_hh)).chunk(4, -1)
        i = gate(i + peep_i * c)
        f = 1 - i if coupled else gate(f + peep_f * c)
        # The cell has a limit of its own, apart from the 50 of what goes into a nonlinearity.
        c = (f * c + i * cell(z)).clamp(-clip, clip)
        h = gate(o + peep_o * c) * run(c)
        found.append(h)
    return _steps(found, output_sequence), h, c
