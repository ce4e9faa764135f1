"""Activations."""

from __future__ import annotations

import math
from dataclasses import replace

from tlkit.engines.onnx.lower.graph import BOOL, Graph, Value
from tlkit.engines.onnx.lower.ops.kit import bounded, column
from tlkit.engines.onnx.lower.registry import lowers
from tlkit.mil.ops import activation


@lowers(activation.relu, monotone=True, bounding=True)
def relu(g: Graph, x: Value) -> Value:
    """max(x, 0)."""
    return bounded(g, x, 0.0, math.inf)


@lowers(activation.relu6, monotone=True, bounding=True)
def relu6(g: Graph, x: Value) -> Value:
    """min(max(x, 0), 6)."""
    return bounded(g, x, 0.0, 6.0)


@lowers(activation.clamped_relu)
def clamped_relu(g: Graph, x: Value, alpha: float, beta: float) -> Value:
    """min(beta, x) where x >= 0, else min(beta, alpha * x)."""
    kept = g.op("Where", g.op("GreaterOrEqual", x, 0.0, dtype=BOOL), x, g.op("Mul", x, alpha), dtype=x.dtype)
    return bounded(g, kept, -math.inf, beta)


@lowers(activation.leaky_relu)
def leaky_relu(g: Graph, x: Value, alpha: float) -> Value:
    """x where x >= 0, else alpha * x."""
    return g.op("LeakyRelu", x, alpha=alpha)


@lowers(activation.prelu)
def prelu(g: Graph, x: Value, alpha: Value) -> Value:
    """x where x > 0, else alpha * x, one ``alpha`` per channel."""
    return g.op("PRelu", x, column(g, alpha, x.rank))


@lowers(activation.thresholded_relu)
def thresholded_relu(g: Graph, x: Value, alpha: float) -> Value:
    """x where x >= alpha, else 0."""
    return g.op("Where", g.op("GreaterOrEqual", x, alpha, dtype=BOOL), x, 0.0, dtype=x.dtype)


@lowers(activation.elu)
def elu(g: Graph, x: Value, alpha: float) -> Value:
    """x where x > 0, else alpha * (exp(x) - 1)."""
    return g.op("Elu", x, alpha=alpha)


@lowers(activation.gelu)
def gelu(g: Graph, x: Value, mode: str = "EXACT") -> Value:
    """The Gaussian error linear unit."""
    if mode == "SIGMOID_APPROXIMATION":
        return g.op("Mul", x, g.op("Sigmoid", g.op("Mul", x, 1.702)))
    return g.op("Gelu", x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


@lowers(activation.silu)
def silu(g: Graph, x: Value) -> Value:
    """x * sigmoid(x)."""
    return g.op("Mul", x, g.op("Sigmoid", x))


@lowers(activation.sigmoid)
def sigmoid(g: Graph, x: Value) -> Value:
    """1 / (1 + exp(-x))."""
    return replace(g.op("Sigmoid", x), positive=True, small=True)


@lowers(activation.sigmoid_hard)
def sigmoid_hard(g: Graph, x: Value, alpha: float, beta: float) -> Value:
    """alpha * x + beta, clamped to 0..1."""
    return bounded(g, g.op("Add", g.op("Mul", x, alpha), beta), 0.0, 1.0)


@lowers(activation.linear_activation)
def linear_activation(g: Graph, x: Value, alpha: float, beta: float) -> Value:
    """alpha * x + beta."""
    return g.op("Add", g.op("Mul", x, alpha), beta)


@lowers(activation.scaled_tanh)
def scaled_tanh(g: Graph, x: Value, alpha: float, beta: float) -> Value:
    """alpha * tanh(beta * x)."""
    return g.op("Mul", g.op("Tanh", g.op("Mul", x, beta)), alpha)


@lowers(activation.softplus)
def softplus(g: Graph, x: Value) -> Value:
    """log(1 + exp(x))."""
    return replace(g.op("Softplus", x), positive=True)


@lowers(activation.softplus_parametric)
def softplus_parametric(g: Graph, x: Value, alpha: Value, beta: Value) -> Value:
    """alpha * log(1 + exp(beta * x)), one of each per channel."""
    inner = g.op("Mul", x, column(g, beta, x.rank))
    return g.op("Mul", g.op("Softplus", inner), column(g, alpha, x.rank))


@lowers(activation.softsign)
def softsign(g: Graph, x: Value) -> Value:
    """x / (1 + abs(x))."""
    return g.op("Div", x, g.op("Add", g.op("Abs", x), 1.0))


@lowers(activation.softmax)
def softmax(g: Graph, x: Value, axis: int = -1) -> Value:
    """exp(x) / sum(exp(x)) along ``axis``."""
    return replace(g.op("Softmax", x, axis=axis), positive=True, small=True)
