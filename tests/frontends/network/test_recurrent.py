"""Recurrent layers beside PyTorch's modules and the specification's formulas.

Covers tlkit/frontends/network/layers/recurrent.py, tlkit/mil/dialect/recurrent.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.frontends.network.nets import layer, model, run
from tlkit.frontends.network.network import NeuralNetwork

STEPS, BATCH, IN, OUT = 4, 2, 3, 5
RNG = np.random.default_rng(1)
GATES = ("inputGate", "forgetGate", "blockInput", "outputGate")
TANH, SIGMOID = {"tanh": {}}, {"sigmoid": {}}


def drawn(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


X = drawn(STEPS, BATCH, IN)


def seen(x: np.ndarray) -> np.ndarray:
    return x[..., None, None]


def lstm_weights(peepholes: bool = False) -> dict[str, np.ndarray]:
    found = {f"{gate}WeightMatrix": drawn(OUT, IN) for gate in GATES}
    found |= {f"{gate}RecursionMatrix": drawn(OUT, OUT) for gate in GATES}
    found |= {f"{gate}BiasVector": drawn(OUT) for gate in GATES}
    if peepholes:
        found |= {f"{gate}PeepholeVector": drawn(OUT) for gate in GATES if gate != "blockInput"}
    return found


def torch_lstm(weights: list[dict[str, np.ndarray]]) -> torch.nn.LSTM:
    """torch stacks the gates as input, forget, cell, output."""
    module = torch.nn.LSTM(IN, OUT, bidirectional=len(weights) > 1)
    for index, held in enumerate(weights):
        suffix = "_reverse" if index else ""
        for name, part in (("weight_ih", "WeightMatrix"), ("weight_hh", "RecursionMatrix"), ("bias_ih", "BiasVector")):
            stacked = torch.from_numpy(np.concatenate([held[gate + part] for gate in GATES]))
            getattr(module, f"{name}_l0{suffix}").data.copy_(stacked)
        getattr(module, f"bias_hh_l0{suffix}").data.zero_()
    return module


def plain(sequence: bool = True, **more: object) -> dict[str, object]:
    params = {"sequenceOutput": sequence, "hasBiasVectors": True, "cellClipThreshold": 50000.0, **more}
    return {"inputVectorSize": IN, "outputVectorSize": OUT, "params": params}


@pytest.mark.parametrize("sequence", [True, False])
def test_an_lstm_with_states_is_torchs(sequence):
    weights, h, c = lstm_weights(), drawn(1, BATCH, OUT), drawn(1, BATCH, OUT)
    made = layer("uniDirectionalLSTM", "x h c", "y hn cn", activations=[SIGMOID, TANH, TANH], weightParams=weights)
    made.uniDirectionalLSTM.MergeFrom(layer("uniDirectionalLSTM", **plain(sequence)).uniDirectionalLSTM)
    for exact in (True, False):
        out = run(made, {"x": seen(X), "h": seen(h), "c": seen(c)}, ("y", "hn", "cn"), exact=exact)
        with torch.no_grad():
            y, (hn, cn) = torch_lstm([weights])(torch.from_numpy(X), (torch.from_numpy(h), torch.from_numpy(c)))
        wanted = y.numpy() if sequence else y.numpy()[-1:]
        for name, value in (("y", wanted), ("hn", hn.numpy()), ("cn", cn.numpy())):
            np.testing.assert_allclose(out[name], seen(value), rtol=1e-4, atol=1e-5)


def test_a_bidirectional_lstm_is_torchs():
    both = [lstm_weights(), lstm_weights()]
    three = [SIGMOID, TANH, TANH]
    given = {"activationsForwardLSTM": three, "activationsBackwardLSTM": three, "weightParams": both}
    names = ("y", "h", "c", "hr", "cr")
    out = run(layer("biDirectionalLSTM", "x", " ".join(names), **given, **plain()), {"x": seen(X)}, names)
    with torch.no_grad():
        y, (h, c) = torch_lstm(both)(torch.from_numpy(X))
    np.testing.assert_allclose(out["y"], seen(y.numpy()), rtol=1e-4, atol=1e-5)
    for name, value in (("h", h[:1]), ("hr", h[1:]), ("c", c[:1]), ("cr", c[1:])):
        np.testing.assert_allclose(out[name], seen(value.numpy()), rtol=1e-4, atol=1e-5)
    last = run(layer("biDirectionalLSTM", "x", "y", **given, **plain(False)), {"x": seen(X)})["y"]
    np.testing.assert_allclose(last, seen(np.concatenate([h[:1], h[1:]], -1)), rtol=1e-4, atol=1e-5)


def formula(weights, x, activations, *, coupled=False, clip=50.0, peepholes=True, forget=0.0):
    """The specification's formulas, step by step, in double."""
    gate, cell, out = activations
    h = c = np.zeros((x.shape[1], OUT))
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    found = []

    def pre(name, step, peep=None):
        total = step @ w[f"{name}WeightMatrix"].T + h @ w[f"{name}RecursionMatrix"].T + w[f"{name}BiasVector"]
        return np.clip(total + (0 if peep is None else peep * w[f"{name}PeepholeVector"]), -50, 50)

    for step in x.astype(np.float64):
        i = gate(pre("inputGate", step, c if peepholes else None))
        f = 1 - i if coupled else gate(pre("forgetGate", step, c if peepholes else None) + forget)
        z = cell(pre("blockInput", step))
        c = np.clip(f * c + i * z, -clip, clip)
        o = gate(pre("outputGate", step, c if peepholes else None))
        h = o * out(c)
        found.append(h)
    return np.stack(found)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


HARD = {"sigmoidHard": {"alpha": 0.2, "beta": 0.5}}
ODD = {"scaledTanh": {"alpha": 1.2, "beta": 0.8}}
CASES = [
    ([SIGMOID, TANH, TANH], (sigmoid, np.tanh, np.tanh), {}, {"hasPeepholeVectors": True}),
    ([HARD, TANH, TANH], (lambda x: np.clip(0.2 * x + 0.5, 0, 1), np.tanh, np.tanh), {"peepholes": False}, {}),
    ([SIGMOID, ODD, TANH], (sigmoid, lambda x: 1.2 * np.tanh(0.8 * x), np.tanh), {"peepholes": False}, {}),
    (
        [SIGMOID, TANH, TANH],
        (sigmoid, np.tanh, np.tanh),
        {"peepholes": False, "coupled": True},
        {"coupledInputAndForgetGate": True},
    ),
    ([SIGMOID, TANH, TANH], (sigmoid, np.tanh, np.tanh), {"peepholes": False, "clip": 0.3}, {"cellClipThreshold": 0.3}),
    ([SIGMOID, TANH, TANH], (sigmoid, np.tanh, np.tanh), {"peepholes": False, "forget": 1.0}, {"forgetBias": True}),
]


@pytest.mark.parametrize(("activations", "functions", "how", "params"), CASES)
def test_every_kind_of_lstm(activations, functions, how, params):
    weights = lstm_weights(how.get("peepholes", True))
    given = {"activations": activations, "weightParams": weights, **plain(**params)}
    out = run(layer("uniDirectionalLSTM", **given), {"x": seen(X)})["y"]
    np.testing.assert_allclose(out, seen(formula(weights, X, functions, **how)), rtol=1e-4, atol=1e-5)
    back = run(layer("uniDirectionalLSTM", reverseInput=True, **given), {"x": seen(X)})["y"]
    np.testing.assert_allclose(back, seen(formula(weights, X[::-1], functions, **how)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activations", [[SIGMOID, TANH], [HARD, ODD]])
def test_a_gru_resets_before_the_matrix(activations):
    gates = ("updateGate", "resetGate", "outputGate")
    weights = {f"{gate}WeightMatrix": drawn(OUT, IN) for gate in gates}
    weights |= {f"{gate}RecursionMatrix": drawn(OUT, OUT) for gate in gates}
    weights |= {f"{gate}BiasVector": drawn(OUT) for gate in gates}
    gate = sigmoid if "sigmoid" in activations[0] else lambda x: np.clip(0.2 * x + 0.5, 0, 1)
    run_ = np.tanh if "tanh" in activations[1] else lambda x: 1.2 * np.tanh(0.8 * x)
    h, found = np.zeros((BATCH, OUT)), []
    for step in X.astype(np.float64):

        def pre(name, held, step=step):
            parts = step @ weights[f"{name}WeightMatrix"].T + held @ weights[f"{name}RecursionMatrix"].T
            return parts + weights[f"{name}BiasVector"]

        z, r = gate(pre("updateGate", h)), gate(pre("resetGate", h))
        h = (1 - z) * run_(pre("outputGate", r * h)) + z * h
        found.append(h)
    sizes = {"inputVectorSize": IN, "outputVectorSize": OUT, "sequenceOutput": True, "hasBiasVectors": True}
    out = run(layer("gru", "x", "y h", activations=activations, **sizes, **weights), {"x": seen(X)}, ("y", "h"))
    np.testing.assert_allclose(out["y"], seen(np.stack(found)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out["h"], seen(h[None]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", [TANH, {"softsign": {}}])
def test_a_simple_recurrent_network(activation):
    w, r, b = drawn(OUT, IN), drawn(OUT, OUT), drawn(OUT)
    function = np.tanh if "tanh" in activation else lambda x: x / (1 + np.abs(x))
    h = np.zeros((BATCH, OUT))
    for step in X[::-1].astype(np.float64):
        h = function(step @ w.T + h @ r.T + b)
    sizes = {"inputVectorSize": IN, "outputVectorSize": OUT, "hasBiasVector": True, "reverseInput": True}
    weights = {"weightMatrix": w, "recursionMatrix": r, "biasVector": b}
    out = run(layer("simpleRecurrent", activation=activation, **sizes, **weights), {"x": seen(X)})["y"]
    np.testing.assert_allclose(out, seen(h[None]), rtol=1e-4, atol=1e-5)


def test_the_usual_lstm_is_an_operation_of_mil_and_others_are_tlkits():
    for activations, wanted in (([SIGMOID, TANH, TANH], "lstm"), ([SIGMOID, ODD, TANH], "tlkit.long_short_term")):
        made = layer("uniDirectionalLSTM", activations=activations, weightParams=lstm_weights(), **plain())
        program = NeuralNetwork(model([made], {"x": seen(X).shape})).program()
        assert wanted in [operation.type for operation in program.function().block.operations]


def test_a_nonlinearity_that_says_nothing_is_the_usual_one():
    """coremltools' builder writes them so for Keras' hard sigmoid: with slope and offset 0, gates would stay shut."""
    weights = lstm_weights()
    several = [{"sigmoidHard": {}}, TANH, {"linear": {}}]
    made = layer("uniDirectionalLSTM", activations=several, weightParams=weights, **plain())
    hard = (lambda x: np.clip(0.2 * x + 0.5, 0, 1), np.tanh, lambda x: x)
    wanted = formula(weights, X, hard, clip=50000.0, peepholes=False)
    np.testing.assert_allclose(run(made, {"x": seen(X)})["y"], seen(wanted), rtol=1e-4, atol=1e-5)


def test_a_nonlinearity_that_says_something_is_that():
    weights = lstm_weights()
    several = [{"sigmoidHard": {"alpha": 0.4}}, TANH, TANH]
    made = layer("uniDirectionalLSTM", activations=several, weightParams=weights, **plain())
    wanted = formula(weights, X, (lambda x: np.clip(0.4 * x, 0, 1), np.tanh, np.tanh), clip=50000.0, peepholes=False)
    np.testing.assert_allclose(run(made, {"x": seen(X)})["y"], seen(wanted), rtol=1e-4, atol=1e-5)
