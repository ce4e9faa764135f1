"""Layers with weights that are not on images, nonlinearities and norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tlkit.errors import LoadError
from tlkit.formats.coreml.espresso.network import EspressoLayer
from tlkit.frontends.espresso.kit.making import DAMAGED, Fields, Held, Kit, espresso, flag, number, unknown, whole

_PLAIN = {0: "ReLU", 1: "tanh", 3: "sigmoid", 10: "softplus", 12: "softsign"}
_ALPHA = {8: "ELU", 9: "thresholdedReLU"}
_BOTH = {5: "scaledTanh", 6: "linear", 7: "sigmoidHard"}
_GELU = {19: 0, 21: 1, 22: 2}
_SELU = (1.6732632423543772, 1.0507009873554805)
_EPSILON = 1e-5


@espresso("inner_product")
def inner_product(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """A matrix and a vector; with ``is_lookup`` the matrix's columns are looked up by number."""
    if flag(layer, "has_prelu"):
        raise unknown(layer, "has_prelu")
    weights = k.array(held, "w_f16_t").T if "w_f16_t" in held else k.array(held, "weights")
    fields: dict[str, Any] = {"outputChannels": whole(layer, "nC"), "weights": k.params(weights)}
    if flag(layer, "has_biases"):
        fields |= {"hasBias": True, "bias": k.tensor(held, "bias")}
    if not flag(layer, "is_lookup"):
        k.add("innerProduct", layer, inputChannels=whole(layer, "nB"), **fields)
    elif k.exact:
        fields["embeddingSize"] = fields.pop("outputChannels")
        k.add("embeddingND", layer, vocabSize=whole(layer, "nB"), **fields)
    else:
        k.add("embedding", layer, inputDim=whole(layer, "nB"), **fields)


@espresso("batchnorm")
def batchnorm(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """gamma * (x - mean) / deviation + beta; the deviation is that of the input where ``training`` says so.

    The fourth number of a channel is sqrt(variance + epsilon): dividing gamma by it leaves a variance of 1.
    """
    gamma, beta, mean, deviation = k.array(held, "params").reshape(-1, 4).astype(np.float64).T
    fields: dict[str, Any] = {"channels": len(gamma), "beta": k.params(beta)}
    if flag(layer, "training"):
        instance = flag(layer, "training_instancenorm")
        epsilon = number(layer, "training_eps", _EPSILON)
        gone = {"gamma": k.params(gamma), "computeMeanVar": True, "instanceNormalization": instance}
        k.add("batchnorm", layer, epsilon=epsilon, **fields, **gone)
        return
    if not deviation.all():
        raise LoadError("a channel's deviation is 0", DAMAGED)
    rest = np.full(len(gamma), 1 - _EPSILON)
    fields |= {"gamma": k.params(gamma / deviation), "mean": k.params(mean), "variance": k.params(rest)}
    k.add("batchnorm", layer, epsilon=_EPSILON, **fields)


@espresso("activation")
def activation(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """One of Espresso's nonlinearities, by number."""
    mode, alpha, beta = whole(layer, "mode"), number(layer, "alpha"), number(layer, "beta")
    slopes = next((role for role in ("alpha", "weights") if role in held), "")
    if mode in (2, 4) and slopes:
        k.add("activation", layer, PReLU={"alpha": k.tensor(held, slopes)})
    elif mode == 2:
        k.add("activation", layer, leakyReLU={"alpha": alpha})
    elif mode in _PLAIN:
        k.add("activation", layer, **Fields({_PLAIN[mode]: {}}))
    elif mode in _ALPHA:
        k.add("activation", layer, **Fields({_ALPHA[mode]: {"alpha": alpha}}))
    elif mode in _BOTH:
        k.add("activation", layer, **Fields({_BOTH[mode]: {"alpha": alpha, "beta": beta}}))
    elif mode in _GELU:
        k.add("gelu", layer, mode=_GELU[mode])
    elif mode in _COMPOSED:
        _COMPOSED[mode](k, layer)
    else:
        raise unknown(layer, "mode")


def _selu(k: Kit, layer: EspressoLayer) -> None:
    inner = k.add("activation", layer, to=k.fresh(layer.outputs[0]), ELU={"alpha": _SELU[0]})
    k.add("activation", layer, inner, linear={"alpha": _SELU[1], "beta": 0.0})


def _gated(gate: dict[str, Any]) -> Callable[[Kit, EspressoLayer], object]:
    """Return what multiplies the input by a gate of it."""

    def make(k: Kit, layer: EspressoLayer) -> None:
        inner = k.add("activation", layer, to=k.fresh(layer.outputs[0]), **gate)
        k.add("multiplyBroadcastable", layer, layer.inputs[0], inner)

    return make


_COMPOSED: dict[int, Callable[[Kit, EspressoLayer], object]] = {
    13: lambda k, layer: k.add("unary", layer, type=7, alpha=number(layer, "alpha")),  # at least alpha
    16: _selu,
    20: lambda k, layer: k.add("erf", layer),
    25: _gated({"sigmoid": {}}),
    26: _gated({"sigmoidHard": {"alpha": 1 / 6, "beta": 0.5}}),
}


@espresso("softmax")
def softmax(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """A softmax; ``C`` is the axis: 0 the width, 1 the height, 2 channels, 3 the batch, 4 the sequence."""
    code = whole(layer, "C")
    if not 0 <= code <= 4:
        raise unknown(layer, "C")
    if code == 2:
        k.add("softmax", layer)
    else:
        k.add("softmaxND", layer, axis=-1 - code)


@espresso("l2_normalize")
def l2_normalize(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """Division by the L2 norm; with ``normalization_mode`` 1 mean and variance become 0 and 1."""
    mode, epsilon = whole(layer, "normalization_mode"), number(layer, "eps")
    if mode == 1:
        across, variance = flag(layer, "across_channels"), flag(layer, "normalize_variance")
        k.add("mvn", layer, acrossChannels=across, normalizeVariance=variance, epsilon=epsilon)
    elif mode == 0:
        k.add("l2normalize", layer, epsilon=epsilon)
    else:
        raise unknown(layer, "normalization_mode")


@espresso("batch_matmul")
def batch_matmul(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """A product of matrices, or of a matrix and a constant one."""
    if held:
        raise LoadError("its matrix is constant, and how it is stored is not known", DAMAGED)
    turned = Fields({f"transpose{side}": flag(layer, f"transpose_{side.lower()}") for side in "AB"})
    k.add("batchedMatmul", layer, **turned)


@espresso("load_constant")
def load_constant(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """A constant: of its own rank, or [k, h, w] in five dimensions."""
    data = k.array(held, "data")
    if k.exact:
        k.add("loadConstantND", layer, shape=list(data.shape), data=k.params(data))
    else:
        sizes = [max(1, whole(layer, side, 1)) for side in "khw"]
        k.add("loadConstant", layer, shape=sizes, data=k.params(data))
