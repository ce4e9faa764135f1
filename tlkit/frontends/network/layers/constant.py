"""Layers that make values of nothing: constants, ranges, fillings and random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tlkit.errors import LoadError
from tlkit.frontends.network.kit.arithmetic import binary, filled, integers, number, unary
from tlkit.frontends.network.kit.blob import Blob, product
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.registry import Layer, layer
from tlkit.frontends.network.kit.weights import array_value
from tlkit.frontends.network.layers.arrangement import vector
from tlkit.host import budget
from tlkit.mil.types import DType

_SMALL = 64  # numbers; shapes and indices are shorter, and what is made of known ones has a known shape


@layer("loadConstant", inputs=0)
def load_constant(g: Graph, layer: Layer) -> Blob:
    """A constant of [C, H, W]."""
    made = _loaded(g, layer)
    return Blob(made.name, made.shape, max(0, layer.network.constant_rank - len(made.shape)))


@layer("loadConstantND", inputs=0)
def load_constant_nd(g: Graph, layer: Layer) -> Blob:
    """A constant of any shape."""
    return _loaded(g, layer)


def _loaded(g: Graph, layer: Layer) -> Blob:
    shape = tuple(int(length) for length in layer.params.shape) or (1,)
    made = g.tensor(layer.weights.tensor(layer.params.data, shape))
    if (product(shape) or 0) <= _SMALL:
        g.know(made, [float(value) for value in layer.weights.numbers(layer.params.data)[: product(shape)]])
    return made


@layer("fillLike")
def fill_like(g: Graph, layer: Layer) -> Blob:
    """One number in the input's shape."""
    return filled(g, layer.x, layer.params.value)


@layer("fillStatic", inputs=0)
def fill_static(g: Graph, layer: Layer) -> Blob:
    """One number in a shape."""
    shape = tuple(int(length) for length in layer.params.targetShape)
    return g.op("fill", shape, shape=list(shape), value=float(layer.params.value))


@layer("fillDynamic")
def fill_dynamic(g: Graph, layer: Layer) -> Blob:
    """One number in the shape that the input holds."""
    shape, place = shape_in(g, layer.x)
    return g.op("fill", shape, shape=place, value=float(layer.params.value))


def shape_in(g: Graph, x: Blob) -> tuple[tuple[int | None, ...], Any]:
    """Return the shape that a value holds, as far as it is known, and what an operation is given for it."""
    known = g.known(x)
    if known is not None:
        return tuple(int(length) for length in known), [int(length) for length in known]
    rank = product(x.shape)
    if rank is None:
        raise LoadError("a rank that only a run tells", "tlkit needs the rank of each value before it runs")
    return (None,) * rank, integers(g, g.lay(x))


@layer("rangeStatic", inputs=0)
def range_static(g: Graph, layer: Layer) -> Blob:
    """Numbers from a start up to an end."""
    p = layer.params
    count = (p.endValue - p.startValue) / p.stepSizeValue if p.stepSizeValue else float("inf")
    said = budget.over(count)
    if said or not np.isfinite(count):
        raise LoadError(
            f"a range from {p.startValue:g} to {p.endValue:g} by {p.stepSizeValue:g}", "the file is damaged"
        )
    values = np.arange(p.startValue, p.endValue, p.stepSizeValue, dtype=np.float32)
    if 0 < len(values) <= _SMALL:
        return vector(g, values.tolist())
    return g.tensor(array_value(values))


@layer("rangeDynamic")
def range_dynamic(g: Graph, layer: Layer) -> Blob:
    """Numbers up to the first input; start and step may be inputs, too."""
    p = layer.params
    # In the order of the inputs: end, start, step.
    values: list[Any] = [0.0, float(p.startValue), float(p.stepSizeValue)]
    known = [g.known(item) for item in layer.inputs[:3]]
    for index, item in enumerate(layer.inputs[:3]):
        found = known[index]
        values[index] = found[0] if found is not None else g.op("squeeze", (), x=g.reshape(item, (1,)), axes=[0])
    if all(isinstance(value, float) for value in values) and values[2]:
        numbers = np.arange(values[1], values[0], values[2], dtype=np.float32)
        if 0 < len(numbers) <= _SMALL:
            return vector(g, numbers.tolist())
    return g.op("range_1d", (None,), end=values[0], start=values[1], step=values[2])


def _random(name: str, mil: str, given: Callable[[Any], dict[str, float]]) -> None:
    def settings(p: Any) -> dict[str, Any]:
        # MIL's seed is an int32: a larger one is left out.
        return {"seed": int(p.seed), **given(p)} if abs(p.seed) < 1 << 31 else given(p)

    @layer(f"{name}Like")
    def like(g: Graph, layer: Layer) -> Blob:
        x = g.lay(layer.x)
        static = None not in x.shape
        place: Any = list(x.shape) if static else g.op("shape", (len(x.shape),), out=DType.INT32, x=x)
        return g.op(mil, x.shape, shape=place, **settings(layer.params))

    @layer(f"{name}Static", inputs=0)
    def static(g: Graph, layer: Layer) -> Blob:
        shape = tuple(int(length) for length in layer.params.outputShape)
        return g.op(mil, shape, shape=list(shape), **settings(layer.params))

    @layer(f"{name}Dynamic")
    def dynamic(g: Graph, layer: Layer) -> Blob:
        shape, place = shape_in(g, layer.x)
        return g.op(mil, shape, shape=place, **settings(layer.params))


_random("randomNormal", "random_normal", lambda p: {"mean": float(p.mean), "stddev": float(p.stdDev)})
_random("randomUniform", "random_uniform", lambda p: {"low": float(p.minVal), "high": float(p.maxVal)})
_random("randomBernoulli", "random_bernoulli", lambda p: {"prob": float(p.prob)})


@layer("categoricalDistribution")
def categorical_distribution(g: Graph, layer: Layer) -> Blob:
    """Samples of the classes whose probabilities, or logits, the last axis holds."""
    p, x = layer.params, g.lay(layer.x)
    if not p.isLogits:
        x = unary(g, "log", binary(g, "add", x, p.eps) if p.eps else x, epsilon=0.0)
    # 0 is unset.
    if p.temperature not in (0, 1):
        x = binary(g, "mul", x, 1 / p.temperature)
    size = max(1, int(p.numSamples))
    seed = int(p.seed) if abs(p.seed) < 1 << 31 else None
    made = g.op("random_categorical", (*x.shape[:-1], size), x=x, mode="logits", size=size, seed=seed)
    return number(g, made, DType.FP32)
