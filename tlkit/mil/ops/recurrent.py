"""MIL's recurrent networks. x is [sequence, batch, input]; fp16 came with iOS17.

All steps are computed in f32 and only the results are rounded. torch's kernels compute what they can; a loop over the
sequence does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F

from tlkit.errors import LoadError
from tlkit.mil.ops.kit.registry import Tensor, op

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "scaled_tanh": torch.tanh,  # its scales cannot be given and are 1
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "sigmoid_hard": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "relu": torch.relu,
    "linear": lambda x: x,
}


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    found = _ACTIVATIONS.get(name.lower())
    if found is None:
        raise LoadError(f"unknown activation '{name}'", f"it is one of {', '.join(_ACTIVATIONS)}")
    return found


def _directed(x: Tensor, direction: str) -> Tensor:
    if direction not in ("forward", "reverse"):
        raise LoadError(f"unknown direction '{direction}'")
    return x.flip(0) if direction == "reverse" else x


def _joined(steps: Sequence[Tensor], output_sequence: bool) -> Tensor:
    return torch.stack(tuple(steps)) if output_sequence else steps[-1].unsqueeze(0)


@op()
def rnn(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    activation: str = "tanh",
) -> tuple[Tensor, Tensor]:
    """h = activation(weight_ih x + weight_hh h + bias). Returns every step's h (or only the last) and the last h."""
    run = _activation(activation)
    h, steps = initial_h, []
    # The input's share for all steps is one product; only the state's share depends on the previous step.
    for part in F.linear(_directed(x, direction), weight_ih, bias).unbind(0):
        h = run(part + F.linear(h, weight_hh))
        steps.append(h)
    return _joined(steps, output_sequence), h


@op()
def gru(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
    reset_after: bool = False,
    input_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A gated recurrent unit; weights and biases stack the reset, output and update gates' (r, o, z).

    Without ``reset_after`` (iOS18) the output gate is weight_ho (r * h) + bias_o; with it, r * (weight_ho h + bias_o),
    as in PyTorch. ``input_bias`` (iOS18) is added to the inputs' side. Returns as ``rnn`` does.
    """
    gate, run = _activation(recurrent_activation), _activation(activation)
    size = weight_hh.shape[1]
    h, steps = initial_h, []
    extra = bias if bias is not None else x.new_zeros(3 * size)
    for part in F.linear(_directed(x, direction), weight_ih, input_bias).unbind(0):
        part_r, part_o, part_z = part.split(size, -1)
        if reset_after:
            held_r, held_o, held_z = F.linear(h, weight_hh, extra).split(size, -1)
            r, z = gate(part_r + held_r), gate(part_z + held_z)
            o = run(part_o + r * held_o)
        else:
            hidden_r, hidden_o, hidden_z = weight_hh.split(size)
            bias_r, bias_o, bias_z = extra.split(size)
            r, z = gate(part_r + F.linear(h, hidden_r, bias_r)), gate(part_z + F.linear(h, hidden_z, bias_z))
            o = run(part_o + F.linear(r * h, hidden_o, bias_o))
        h = (1 - z) * o + z * h
        steps.append(h)
    return _joined(steps, output_sequence), h


@op()
def lstm(
    x: Tensor,
    initial_h: Tensor,
    initial_c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    peephole: Tensor | None = None,
    weight_ih_back: Tensor | None = None,
    weight_hh_back: Tensor | None = None,
    bias_back: Tensor | None = None,
    peephole_back: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Long short-term memory; weights stack the input, forget, output and cell gates' (i, f, o, z).

    ``clip`` clamps the cell state to -clip..clip. Returns every step's h (or only the last), the last h and the last c;
    ``bidirectional`` concatenates those of both directions.
    """
    names = (recurrent_activation.lower(), cell_activation.lower(), activation.lower())
    ahead = (weight_ih, weight_hh, bias, peephole)
    if direction != "bidirectional":
        states = _directed(x, direction), initial_h, initial_c
        steps, h, c = _lstm(*states, ahead, names, clip)
        return (steps if output_sequence else steps[-1:]), h, c
    if weight_ih_back is None or weight_hh_back is None:
        raise LoadError("a bidirectional lstm without weights for the backward direction")
    back = (weight_ih_back, weight_hh_back, bias_back, peephole_back)
    # [batch, 2 * hidden]: the forward half comes first
    (h_f, h_b), (c_f, c_b) = initial_h.chunk(2, -1), initial_c.chunk(2, -1)
    steps_f, h_f, c_f = _lstm(x, h_f, c_f, ahead, names, clip)
    steps_b, h_b, c_b = _lstm(x.flip(0), h_b, c_b, back, names, clip)
    if output_sequence:
        # The backward half in the input's order, or its last step, which has seen the whole sequence.
        steps = torch.cat((steps_f, steps_b.flip(0)), -1)
    else:
        steps = torch.cat((steps_f[-1:], steps_b[-1:]), -1)
    return steps, torch.cat((h_f, h_b), -1), torch.cat((c_f, c_b), -1)


def _lstm(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weights: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    names: tuple[str, str, str],
    clip: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction: every step's h, the last h and the last c."""
    weight_ih, weight_hh, bias, peephole = weights
    if names == ("sigmoid", "tanh", "tanh") and peephole is None and clip is None:
        ordered = [_torch_order(w) for w in (weight_ih, weight_hh)]
        if bias is not None:
            # torch has a second bias, which is added to the state's product.
            ordered += [_torch_order(bias), torch.zeros_like(bias)]
        state = (h.unsqueeze(0).contiguous(), c.unsqueeze(0).contiguous())
        # With biases, 1 layer, no dropout, not training, one direction, the sequence as axis 0.
        steps, h, c = torch.lstm(x, state, ordered, bias is not None, 1, 0.0, False, False, False)
        return steps, h[0], c[0]
    gate, cell, run = (_activation(name) for name in names)
    peep_i, peep_f, peep_o = peephole.chunk(3) if peephole is not None else (0.0, 0.0, 0.0)
    found = []
    for part in F.linear(x, weight_ih, bias).unbind(0):
        i, f, o, z = (part + F.linear(h, weight_hh)).chunk(4, -1)
        # The input's and forget gate's peepholes see the old cell, the output gate's the new one.
        c = gate(f + peep_f * c) * c + gate(i + peep_i * c) * cell(z)
        if clip is not None:
            c = c.clamp(-clip, clip)
        h = gate(o + peep_o * c) * run(c)
        found.append(h)
    return torch.stack(found), h, c


def _torch_order(weight: Tensor) -> Tensor:
    """Reorder the gates from MIL's i, f, o, z to torch's i, f, z, o."""
    i, f, o, z = weight.chunk(4)
    return torch.cat((i, f, z, o))
