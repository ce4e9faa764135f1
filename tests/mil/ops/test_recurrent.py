"""MIL's recurrent networks, against step-by-step numpy, and PyTorch's modules where they say the same."""

import numpy as np
import torch

from tests.mil.ops.optable import case, rows, table

RNG = np.random.default_rng(9)
SEQUENCE, BATCH, INPUT, HIDDEN = 4, 3, 5, 2
X = RNG.normal(size=(SEQUENCE, BATCH, INPUT))
H, C = RNG.normal(size=(BATCH, HIDDEN)), RNG.normal(size=(BATCH, HIDDEN))
ACTIVATIONS = ("tanh", "scaled_tanh", "sigmoid", "hard_sigmoid", "relu", "linear")


def weights(gates, suffix=""):
    return {
        f"weight_ih{suffix}": RNG.normal(size=(gates * HIDDEN, INPUT)) / 2,
        f"weight_hh{suffix}": RNG.normal(size=(gates * HIDDEN, HIDDEN)) / 2,
    }


def bias(gates):
    return RNG.normal(size=(gates * HIDDEN,)) / 2


def activate(name, x):
    if name in ("tanh", "scaled_tanh"):
        return np.tanh(x)
    if name == "sigmoid":
        return 1 / (1 + np.exp(-x))
    if name in ("hard_sigmoid", "sigmoid_hard"):
        return np.minimum(1, np.maximum(0, x / 5 + 0.5))
    return np.maximum(x, 0) if name == "relu" else x


def ends(steps, output_sequence):
    return np.stack(steps) if output_sequence else steps[-1][None]


def rnn(x, initial_h, weight_ih, weight_hh, bias=0.0, direction="forward", output_sequence=False, activation="tanh"):
    h, steps = initial_h, []
    for step in x[::-1] if direction == "reverse" else x:
        h = activate(activation, step @ weight_ih.T + h @ weight_hh.T + bias)
        steps.append(h)
    return ends(steps, output_sequence), h


def gru(
    x,
    initial_h,
    weight_ih,
    weight_hh,
    bias=None,
    direction="forward",
    output_sequence=False,
    recurrent_activation="sigmoid",
    activation="tanh",
    reset_after=False,
    input_bias=None,
):
    zeros = np.zeros(3 * HIDDEN)
    (w_r, w_o, w_z), (u_r, u_o, u_z) = np.split(weight_ih, 3), np.split(weight_hh, 3)
    b_r, b_o, b_z = np.split(zeros if bias is None else bias, 3)
    i_r, i_o, i_z = np.split(zeros if input_bias is None else input_bias, 3)
    h, steps = initial_h, []
    for step in x[::-1] if direction == "reverse" else x:
        r = activate(recurrent_activation, step @ w_r.T + i_r + h @ u_r.T + b_r)
        z = activate(recurrent_activation, step @ w_z.T + i_z + h @ u_z.T + b_z)
        held = r * (h @ u_o.T + b_o) if reset_after else (r * h) @ u_o.T + b_o
        h = (1 - z) * activate(activation, step @ w_o.T + i_o + held) + z * h
        steps.append(h)
    return ends(steps, output_sequence), h


def lstm_steps(x, h, c, weight_ih, weight_hh, bias, peephole, gate, cell, out, clip):
    p_i, p_f, p_o = np.split(np.zeros(3 * HIDDEN) if peephole is None else peephole, 3)
    steps = []
    for step in x:
        i, f, o, z = np.split(step @ weight_ih.T + h @ weight_hh.T + (0 if bias is None else bias), 4, axis=1)
        c = activate(gate, f + p_f * c) * c + activate(gate, i + p_i * c) * activate(cell, z)
        c = c if clip is None else np.clip(c, -clip, clip)
        h = activate(gate, o + p_o * c) * activate(out, c)
        steps.append(h)
    return steps, h, c


def lstm(
    x,
    initial_h,
    initial_c,
    weight_ih,
    weight_hh,
    bias=None,
    peephole=None,
    weight_ih_back=None,
    weight_hh_back=None,
    bias_back=None,
    peephole_back=None,
    direction="forward",
    output_sequence=False,
    recurrent_activation="sigmoid",
    cell_activation="tanh",
    activation="tanh",
    clip=None,
):
    names = (recurrent_activation, cell_activation, activation, clip)
    ahead, back = (weight_ih, weight_hh, bias, peephole), (weight_ih_back, weight_hh_back, bias_back, peephole_back)
    if direction != "bidirectional":
        given = x[::-1] if direction == "reverse" else x
        steps, h, c = lstm_steps(given, initial_h, initial_c, *ahead, *names)
        return ends(steps, output_sequence), h, c
    (h_f, h_b), (c_f, c_b) = np.split(initial_h, 2, axis=1), np.split(initial_c, 2, axis=1)
    steps_f, h_f, c_f = lstm_steps(x, h_f, c_f, *ahead, *names)
    steps_b, h_b, c_b = lstm_steps(x[::-1], h_b, c_b, *back, *names)
    last = np.concatenate([h_f, h_b], 1)
    pairs = [np.concatenate(pair, 1) for pair in zip(steps_f, steps_b[::-1], strict=True)]
    return np.stack(pairs) if output_sequence else last[None], last, np.concatenate([c_f, c_b], 1)


def torch_gru(x, initial_h, weight_ih, weight_hh, bias, input_bias, **rest):
    """PyTorch's own module, whose gates are in the order r, z, o."""

    def ordered(stacked):
        r, o, z = np.split(stacked, 3)
        return torch.tensor(np.concatenate([r, z, o]))

    module = torch.nn.GRU(INPUT, HIDDEN, dtype=torch.float64)
    names = {"weight_ih_l0": weight_ih, "weight_hh_l0": weight_hh, "bias_ih_l0": input_bias, "bias_hh_l0": bias}
    module.load_state_dict({name: ordered(value) for name, value in names.items()})
    with torch.no_grad():
        steps, h = module(torch.tensor(x), torch.tensor(initial_h)[None])
    return steps.numpy(), h[0].numpy()


def torch_lstm(x, initial_h, initial_c, weight_ih, weight_hh, bias, **rest):
    """PyTorch's own module, whose gates are in the order i, f, z, o."""

    def ordered(stacked):
        i, f, o, z = np.split(stacked, 4)
        return torch.tensor(np.concatenate([i, f, z, o]))

    module = torch.nn.LSTM(INPUT, HIDDEN, dtype=torch.float64)
    names = {"weight_ih_l0": weight_ih, "weight_hh_l0": weight_hh, "bias_ih_l0": bias, "bias_hh_l0": 0 * bias}
    module.load_state_dict({name: ordered(value) for name, value in names.items()})
    with torch.no_grad():
        steps, (h, c) = module(torch.tensor(x), (torch.tensor(initial_h)[None], torch.tensor(initial_c)[None]))
    return steps.numpy(), h[0].numpy(), c[0].numpy()


def both(op, inputs, oracle, label, **parameters):
    """fp32 from iOS15 on, fp16 from iOS17 on."""
    shared = {"parameters": parameters, "expected": oracle, "label": label}
    return case(op, inputs, dtypes=("fp32",), **shared) + case(
        op, inputs, dtypes=("fp32", "fp16"), since=17, **(shared | {"label": f"{label}-17"})
    )


RUN, PAIR = {"x": X, "initial_h": H}, {"x": X, "initial_h": H, "initial_c": C}
TWICE = {"x": X, "initial_h": np.tile(H, 2), "initial_c": np.concatenate([C, -C], 1)}
LSTM = weights(4)
BOTH_WAYS = {**LSTM, **weights(4, "_back"), "direction": "bidirectional"}
DIRECTIONS = [(d, s) for d in ("forward", "reverse") for s in (False, True)]

CASES = rows(
    *[
        both("rnn", RUN, rnn, f"{d}-{s}", **weights(1), bias=bias(1), direction=d, output_sequence=s)
        for d, s in DIRECTIONS
    ],
    *[both("rnn", RUN, rnn, name, **weights(1), activation=name) for name in (*ACTIVATIONS, "sigmoid_hard")],
    *[
        both("gru", RUN, gru, f"{d}-{s}", **weights(3), bias=bias(3), direction=d, output_sequence=s)
        for d, s in DIRECTIONS
    ],
    *[
        both("gru", RUN, gru, f"{a}-{b}", **weights(3), recurrent_activation=a, activation=b)
        for a, b in (("tanh", "sigmoid"), ("hard_sigmoid", "relu"), ("linear", "scaled_tanh"))
    ],
    *[
        case(
            "gru",
            RUN,
            parameters={
                **weights(3),
                "input_bias": bias(3),
                "bias": bias(3),
                "reset_after": after,
                "output_sequence": True,
            },
            expected=oracle,
            since=18,
            label=label,
        )
        for label, after, oracle in (
            ("reset-before", False, gru),
            ("reset-after", True, gru),
            ("as-torch", True, torch_gru),
        )
    ],
    *[
        both("lstm", PAIR, lstm, f"{d}-{s}", **LSTM, bias=bias(4), direction=d, output_sequence=s)
        for d, s in DIRECTIONS
    ],
    both("lstm", PAIR, lstm, "no-bias", **LSTM),
    both("lstm", PAIR, torch_lstm, "as-torch", **LSTM, bias=bias(4), output_sequence=True),
    *[both("lstm", PAIR, lstm, f"clip-{clip}", **LSTM, clip=clip, output_sequence=True) for clip in (50.0, 0.2)],
    *[
        both("lstm", PAIR, lstm, f"{a}-{b}-{c}", **LSTM, recurrent_activation=a, cell_activation=b, activation=c)
        for a, b, c in [("sigmoid", "tanh", name) for name in ACTIVATIONS] + [("hard_sigmoid", "relu", "linear")]
    ],
    *[
        both(
            "lstm",
            PAIR,
            lstm,
            f"peephole-{d}",
            **LSTM,
            bias=bias(4),
            peephole=bias(3),
            direction=d,
            output_sequence=True,
        )
        for d in ("forward", "reverse")
    ],
    *[both("lstm", TWICE, lstm, f"both-{s}", **BOTH_WAYS, output_sequence=s) for s in (False, True)],
    both(
        "lstm",
        TWICE,
        lstm,
        "both-all",
        **BOTH_WAYS,
        bias=bias(4),
        bias_back=bias(4),
        peephole=bias(3),
        peephole_back=bias(3),
        clip=0.5,
        output_sequence=True,
    ),
    case(
        "lstm",
        PAIR,
        parameters={**LSTM, "output_sequence": True},
        dims={"x": (None, BATCH, INPUT)},
        dtypes=("fp32",),
        expected=lstm,
        label="open-sequence",
    ),
)

test_op = table(CASES)
