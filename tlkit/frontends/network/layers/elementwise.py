"""Layers that work on each element: functions of one value, and arithmetic of several that broadcast."""

from __future__ import annotations

from tlkit.errors import LoadError
from tlkit.frontends.network.kit.arithmetic import aligned, binary, folded, number, truth, unary
from tlkit.frontends.network.kit.blob import Blob, broadcast
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.registry import Layer, layer
from tlkit.mil.types import DType

_PLAIN: tuple[str, ...] = ("ceil", "floor", "sign", "round", "exp2", "sin", "cos", "tan", "asin", "acos", "atan")
_PLAIN += ("sinh", "cosh", "tanh", "atanh", "erf")
_EPSILON = 1e-6  # NeuralNetwork.proto's, where none is set
_GELU = {0: "EXACT", 1: "TANH_APPROXIMATION", 2: "SIGMOID_APPROXIMATION"}


def _plain(kind: str) -> None:
    @layer(kind)
    def function(g: Graph, layer: Layer) -> Blob:
        return unary(g, kind, layer.x)


for _kind in _PLAIN:
    _plain(_kind)


@layer("asinh")
def asinh(g: Graph, layer: Layer) -> Blob:
    """sign(x) * ln(|x| + sqrt(x^2 + 1)): MIL has no such operation, and this form loses nothing at large -x."""
    size = unary(g, "abs", layer.x)
    root = unary(g, "sqrt", binary(g, "add", binary(g, "mul", size, size), 1.0))
    return binary(g, "mul", unary(g, "sign", layer.x), unary(g, "log", binary(g, "add", size, root), epsilon=0.0))


@layer("acosh")
def acosh(g: Graph, layer: Layer) -> Blob:
    """ln(x + sqrt(x^2 - 1)); NaN below 1."""
    x = layer.x
    root = unary(g, "sqrt", binary(g, "sub", binary(g, "mul", x, x), 1.0))
    return unary(g, "log", binary(g, "add", x, root), epsilon=0.0)


@layer("copy")
def copy(g: Graph, layer: Layer) -> Blob:
    """The input."""
    return unary(g, "identity", layer.x)


@layer("gelu")
def gelu(g: Graph, layer: Layer) -> Blob:
    """x times the normal distribution's function at x, exactly or in one of two approximations."""
    if layer.params.mode not in _GELU:
        raise LoadError(f"the unknown mode {layer.params.mode}", "the file is damaged")
    return unary(g, "gelu", layer.x, mode=_GELU[layer.params.mode])


@layer("clip")
def clip(g: Graph, layer: Layer) -> Blob:
    """The input, held between two numbers."""
    return unary(g, "clip", layer.x, alpha=layer.params.minVal, beta=layer.params.maxVal)


@layer("clampedReLU")
def clamped_relu(g: Graph, layer: Layer) -> Blob:
    """min(x, beta) from 0 on, min(beta, alpha * x) below."""
    return unary(g, "clamped_relu", layer.x, alpha=layer.params.alpha, beta=layer.params.beta)


@layer("unary")
def unary_function(g: Graph, layer: Layer) -> Blob:
    """A function of scale * x + shift, where an unset scale is 1."""
    p, x = layer.params, layer.x
    if p.scale not in (0, 1):
        x = binary(g, "mul", x, p.scale)
    if p.shift:
        x = binary(g, "add", x, p.shift)
    epsilon = p.epsilon or _EPSILON
    # By UnaryFunctionLayerParams: 0 sqrt, 1 rsqrt, 2 inverse, 3 power, 4 exp, 5 log, 6 abs, 7 threshold.
    if p.type == 3:
        return binary(g, "pow", x, p.alpha)
    if p.type in (1, 2):
        return unary(g, ("rsqrt", "inverse")[p.type - 1], x, epsilon=epsilon)
    if p.type == 5:
        # MIL's own log adds 1e-45.
        return unary(g, "log", x, epsilon=0.0)
    if p.type == 7:
        return unary(g, "threshold", x, alpha=p.alpha)
    named = {0: "sqrt", 4: "exp", 6: "abs"}
    if p.type not in named:
        raise LoadError(f"the unknown function {p.type}", "the file is damaged")
    return unary(g, named[p.type], x)


@layer("add")
def add(g: Graph, layer: Layer) -> Blob:
    """The sum of the inputs, or of one and alpha."""
    return folded(g, "add", layer.inputs) if len(layer.inputs) > 1 else binary(g, "add", layer.x, layer.params.alpha)


@layer("multiply")
def multiply(g: Graph, layer: Layer) -> Blob:
    """The product of the inputs, or of one and alpha."""
    return folded(g, "mul", layer.inputs) if len(layer.inputs) > 1 else binary(g, "mul", layer.x, layer.params.alpha)


@layer("average")
def average(g: Graph, layer: Layer) -> Blob:
    """The mean of the inputs."""
    return binary(g, "mul", folded(g, "add", layer.inputs), 1 / len(layer.inputs))


@layer("dot", inputs=2)
def dot(g: Graph, layer: Layer) -> Blob:
    """The scalar product over C, H and W; of the two as unit vectors with ``cosineSimilarity``."""
    one, two = (g.images(x) for x in layer.inputs[:2])
    if layer.params.cosineSimilarity:
        one, two = (unary(g, "l2_norm", x, epsilon=_EPSILON) for x in (one, two))
    both = binary(g, "mul", one, two)
    made = g.op("reduce_sum", (both.shape[0], 1, 1, 1), x=both, axes=[1, 2, 3], keep_dims=True)
    return g.restored(made, layer.x)


def _several(kind: str, mil: str, least: int) -> None:
    @layer(kind, inputs=least)
    def function(g: Graph, layer: Layer) -> Blob:
        return folded(g, mil, layer.inputs)


for _kind, _mil in (("max", "maximum"), ("min", "minimum")):
    _several(_kind, _mil, 1)
for _kind, _mil in (("max", "maximum"), ("min", "minimum"), ("add", "add"), ("multiply", "mul")):
    _several(f"{_kind}Broadcastable", _mil, 2)


def _two(kind: str, mil: str) -> None:
    @layer(kind, inputs=2)
    def function(g: Graph, layer: Layer) -> Blob:
        return binary(g, mil, *layer.inputs[:2])


for _kind, _mil in (
    ("mod", "mod"),
    ("pow", "pow"),
    ("divide", "real_div"),
    ("floorDiv", "floor_div"),
    ("subtract", "sub"),
):
    _two(f"{_kind}Broadcastable", _mil)


def _comparison(kind: str, mil: str) -> None:
    @layer(kind)
    def function(g: Graph, layer: Layer) -> Blob:
        other = layer.inputs[1] if len(layer.inputs) > 1 else layer.params.alpha
        return number(g, binary(g, mil, layer.x, other, out=DType.BOOL))


for _kind, _mil in (
    ("equal", "equal"),
    ("notEqual", "not_equal"),
    ("lessThan", "less"),
    ("lessEqual", "less_equal"),
    ("greaterThan", "greater"),
    ("greaterEqual", "greater_equal"),
):
    _comparison(_kind, _mil)


def _logical(kind: str, mil: str) -> None:
    @layer(kind, inputs=2)
    def function(g: Graph, layer: Layer) -> Blob:
        one, two = (truth(g, x) for x in layer.inputs[:2])
        return number(g, binary(g, mil, one, two, out=DType.BOOL))


for _kind in ("or", "xor", "and"):
    _logical(f"logical{_kind.capitalize()}", f"logical_{_kind}")


@layer("logicalNot")
def logical_not(g: Graph, layer: Layer) -> Blob:
    """1 where the input is 0."""
    return number(g, unary(g, "equal", layer.x, out=DType.BOOL, y=0.0))


@layer("whereBroadcastable", inputs=3)
def where(g: Graph, layer: Layer) -> Blob:
    """The second input where the first is not 0, else the third."""
    condition, one, two = aligned(g, layer.inputs[:3])
    shape = broadcast(condition.shape, one.shape, two.shape)
    made = g.op("select", shape, cond=truth(g, condition), a=one, b=two)
    return Blob(made.name, shape, max(x.rank for x in layer.inputs) - len(shape) - one.trail, one.trail)


@layer("scale")
def scale(g: Graph, layer: Layer) -> Blob:
    """The input times a constant of [1], [C], [1, H, W] or [C, H, W], plus another."""
    p = layer.params
    made = binary(g, "mul", layer.x, _constant(g, layer, p.scale, p.shapeScale))
    return binary(g, "add", made, _constant(g, layer, p.bias, p.shapeBias)) if p.hasBias else made


@layer("bias")
def bias(g: Graph, layer: Layer) -> Blob:
    """The input plus a constant of [1], [C], [1, H, W] or [C, H, W]."""
    return binary(g, "add", layer.x, _constant(g, layer, layer.params.bias, layer.params.shape))


def _constant(g: Graph, layer: Layer, params: object, shape: object) -> Blob:
    lengths = tuple(int(length) for length in shape) or (1,)  # type: ignore[attr-defined]
    if len(lengths) > 1 or layer.x.rank < 3:
        return g.tensor(layer.weights.tensor(params, lengths))
    # [C] means [C, 1, 1]; the ones that x has outside the program stay outside here too.
    trail = min(layer.x.trail, 2)
    made = g.tensor(layer.weights.tensor(params, (*lengths, *(1,) * (2 - trail))))
    return Blob(made.name, made.shape, 0, trail)
