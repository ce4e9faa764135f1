"""Activations."""

from __future__ import annotations

import math
from dataclasses import replace

from tlkit.engines.onnx.kit.graph import BOOL, GraphValue, OnnxGraph
from tlkit.engines.onnx.kit.registry import lowers
from tlkit.engines.onnx.lower.ops.kit import bounded, column
from tlkit.mil.ops import activation


@lowers(activation.relu, monotone=True, bounding=True)
def relu(g: OnnxGraph, x: GraphValue) -> GraphValue:
    """max(x, 0)."""
    return bounded(g, x, 0.0, math.inf)


@lowers(activation.relu6, monotone=True, bounding=True)
def relu6(g: OnnxGraph, x: GraphValue) -> GraphValue:
    """min(max(x, 0), 6)."""
    return bounded(g, x, 0.0, 6.0)


@lowers(activation.clamped_relu)
def clamped_relu(g: OnnxGraph, x: GraphValue, alpha: float, beta: float) -> GraphValue:
    """min(beta, x) where x >= 0, else min(beta, alpha * x)."""
    kept = g.op("Where", g.op("GreaterOrEqual", x, 0.0, dtype=BOOL), x, g.op("Mul", x, alpha), dtype=x.dtype)
    return bounded(g, kept, -math.inf, beta)


@lowers(activation.leaky_relu)
def leaky_relu(g: OnnxGraph, x: GraphValue, alpha: float) -> GraphValue:
    """x where x >= 0, else alpha * x."""
    return g.op("LeakyRelu", x, alpha=alpha)


@lowers(activation.prelu)
def prelu(g: OnnxGraph, x: GraphValue, alpha: GraphValue) -> GraphValue:
    """x where x > 0, else alpha * x, one ``alpha`` per channel."""
    return g.op("PRelu", x, column(g, alpha, x.rank))


@lowers(activation.thresholded_relu)
def thresholded_relu(g: OnnxGraph, x: GraphValue, alpha: float) -> GraphValue:
    """x where x >= alpha, else 0."""
    return g.op("Where", g.op("GreaterOrEqual", x, alpha, dtype=BOOL), x, 0.0, dtype=x.dtype)


@lowers(activation.elu)
def elu(g: OnnxGraph, x: GraphValue, alpha: float) -> GraphValue:
    """x where x > 0, else alpha * (exp(x) - 1)."""
    return g.op("Elu", x, alpha=alpha)


@lowers(activation.gelu)
def gelu(g: OnnxGraph, x: GraphValue, mode: str = "EXACT") -> GraphValue:
    """The Gaussian error linear unit."""
    if mode == "SIGMOID_APPROXIMATION":
        return g.op("Mul", x, g.op("Sigmoid", g.op("Mul", x, 1.702)))
    return g.op("Gelu", x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


@lowers(activation.silu)
def silu(g: OnnxGraph, x: GraphValue) -> GraphValue:
    """x * sigmoid(x)."""
    return g.op("Mul", x, g.op("Sigmoid", x))


@lowers(activation.sigmoid)
def sigmoid(g: OnnxGraph, x: GraphValue) -> GraphValue:
    """1 / (1 + exp(-x))."""
    return replace(g.op("Sigmoid", x), positive=True, small=True)


@lowers(activation.sigmoid_hard)
def sigmoid_hard(g: OnnxGraph, x: GraphValue, alpha: float, beta: float) -> GraphValue:
    """alpha * x + beta, clamped to 0..1."""
    return bounded(g, g.op("Add", g.op("Mul", x, alpha), beta), 0.0, 1.0)


@lowers(activation.linear_activation)
def linear_activation(g: OnnxGraph, x: GraphValue, alpha: float, beta: float) -> GraphValue:
    """alpha * x + beta."""
    return g.op("Add", g.op("Mul", x, alpha), beta)


@lowers(activation.scaled_tanh)
def scaled_tanh(g: OnnxGraph, x: GraphValue, alpha: float, beta: float) -> GraphValue:
    """alpha * tanh(beta * x)."""
    return g.op("Mul", g.op("Tanh", g.op("Mul", x, beta)), alpha)


@lowers(activation.softplus)
def softplus(g: OnnxGraph, x: GraphValue) -> GraphValue:
    """log(1 + exp(x))."""
    return replace(g.op("Softplus", x), positive=True)


@lowers(activation.softplus_parametric)
def softplus_parametric(g: OnnxGraph, x: GraphValue, alpha: GraphValue, beta: GraphValue) -> GraphValue:
    """alpha * log(1 + exp(beta * x)), one of each per channel."""
    inner = g.op("Mul", x, column(g, beta, x.rank))
    return g.op("Mul", g.op("Softplus", inner), column(g, alpha, x.rank))


@lowers(activation.softsign)
def softsign(g: OnnxGraph, x: GraphValue) -> GraphValue:
    """x / (1 + abs(x))."""
    return g.op("Div", x, g.op("Add", g.op("Abs", x), 1.0))


@lowers(activation.softmax)
def softmax(g: OnnxGraph, x: GraphValue, axis: int = -1) -> GraphValue:
    """exp(x) / sum(exp(x)) along ``axis``."""
    return replace(g.op("Softmax", x, axis=axis), positive=True, small=True)
