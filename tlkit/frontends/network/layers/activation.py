"""``activation`` layers, and the nonlinearities inside recurrent ones."""

from __future__ import annotations

from typing import Any

from tlkit.errors import LoadError
from tlkit.frontends.network.kit.arithmetic import unary
from tlkit.frontends.network.kit.blob import Blob
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.registry import Layer, layer
from tlkit.frontends.network.kit.weights import array_value

_PLAIN = {"ReLU": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "softsign": "softsign", "softplus": "softplus"}
_ALPHA = {"leakyReLU": "leaky_relu", "thresholdedReLU": "thresholded_relu", "ELU": "elu"}
_BOTH = {"linear": "linear_activation", "scaledTanh": "scaled_tanh", "sigmoidHard": "sigmoid_hard"}
_USUAL = {"sigmoidHard": (0.2, 0.5), "linear": (1.0, 0.0), "scaledTanh": (1.0, 1.0)}


@layer("activation")
def activation(g: Graph, layer: Layer) -> Blob:
    """One of thirteen nonlinearities."""
    kind = layer.params.WhichOneof("NonlinearityType")
    p: Any = getattr(layer.params, kind) if kind else None
    if kind in _PLAIN:
        return unary(g, _PLAIN[kind], layer.x)
    if kind in _ALPHA:
        return unary(g, _ALPHA[kind], layer.x, alpha=p.alpha)
    if kind in _BOTH:
        return unary(g, _BOTH[kind], layer.x, alpha=p.alpha, beta=p.beta)
    if kind == "PReLU":
        return _by_channel(g, layer, "prelu", alpha=p.alpha)
    if kind == "parametricSoftplus":
        return _by_channel(g, layer, "softplus_parametric", alpha=p.alpha, beta=p.beta)
    raise LoadError("an activation of no known kind", "the file is damaged")


def _by_channel(g: Graph, layer: Layer, kind: str, **params: Any) -> Blob:
    """A nonlinearity with a number for each channel, or one for all."""
    x = g.images(layer.x)
    channels = x.shape[1]
    if channels is None:
        raise LoadError("an open number of channels", "give the model a fixed shape")
    given: dict[str, Any] = {}
    for name, message in params.items():
        numbers = layer.weights.numbers(message)
        if len(numbers) not in (1, channels):
            raise LoadError(f"{len(numbers)} values for {channels} channels", "the file is damaged")
        # MIL takes one number per channel.
        given[name] = array_value(numbers.repeat(channels) if len(numbers) < channels else numbers)
    return g.restored(unary(g, kind, x, **given), layer.x)


def nonlinearity(message: Any) -> tuple[str, float, float]:
    """Return what a recurrent layer applies: the kind as the specification names it, alpha and beta.

    Converters leave both out in recurrent layers (as coremltools' builder does), and mean :data:`_USUAL`.
    """
    kind = message.WhichOneof("NonlinearityType") or ""
    if kind not in (*_PLAIN, *_ALPHA, *_BOTH):
        raise LoadError(f"the nonlinearity '{kind}' in a recurrent layer", "the file is damaged")
    p = getattr(message, kind)
    # Most messages lack one or both of them.
    fields = {field.name for field in p.DESCRIPTOR.fields}
    given = (p.alpha if "alpha" in fields else 0.0, p.beta if "beta" in fields else 0.0)
    return (kind, *(given if any(given) else _USUAL.get(kind, given)))
