"""Elementwise operations on one and two tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tlkit.engines.onnx.kit.graph import BOOL, F32, I32, GraphValue, OnnxGraph, UnsupportedGraph
from tlkit.engines.onnx.kit.registry import lowers
from tlkit.engines.onnx.kit.rounding import clamped_raw
from tlkit.engines.onnx.lower.ops.kit import bounded, need_floats, reshaped
from tlkit.mil.ops import control_flow, quantization
from tlkit.mil.ops import elementwise_binary as two
from tlkit.mil.ops import elementwise_unary as one
from tlkit.mil.types import DType

_UNARY: dict[Callable[..., Any], str] = {
    one.acos: "Acos", one.asin: "Asin", one.atan: "Atan", one.atanh: "Atanh", one.cos: "Cos", one.cosh: "Cosh",
    one.erf: "Erf", one.exp: "Exp", one.sin: "Sin", one.sinh: "Sinh", one.sqrt: "Sqrt", one.tan: "Tan",
    one.tanh: "Tanh",
}  # fmt: skip
_STEPS: dict[Callable[..., Any], str] = {
    one.ceil: "Ceil", one.floor: "Floor", one.round_: "Round", one.sign: "Sign",
}  # fmt: skip
_WITHIN_ONE = {"Erf", "Sin", "Cos", "Tanh"}
_COMPARED: dict[Callable[..., Any], str] = {
    two.equal: "Equal", two.greater: "Greater", two.greater_equal: "GreaterOrEqual", two.less: "Less",
    two.less_equal: "LessOrEqual",
}  # fmt: skip
_CASTS = {
    DType.INT8: ("int8", -128.0, 127.0),
    DType.UINT8: ("uint8", 0.0, 255.0),
    DType.INT16: ("int16", -32768.0, 32767.0),
    DType.UINT16: (I32, 0.0, 65535.0),
    DType.INT32: (I32, 0.0, 0.0),
}
"""The type that carries an integer type here, and the range that a float is clamped to (int32's is done apart)."""
_ORDER = (BOOL, "uint8", "int8", "int16", I32, "int64", F32)


def _register() -> None:
    for operation, kind in _UNARY.items():
        lowers(operation)(_unary(kind))
    for operation, kind in _STEPS.items():
        lowers(operation)(_step(kind))
    for operation, kind in _COMPARED.items():
        lowers(operation)(_comparison(kind))
    for operation, kind in ((two.logical_and, "And"), (two.logical_or, "Or"), (two.logical_xor, "Xor")):
        lowers(operation)(_logical(kind))
    for operation, kind in ((two.add, "Add"), (two.sub, "Sub"), (two.mul, "Mul")):
        lowers(operation)(_arithmetic(kind))


def _unary(kind: str) -> Callable[..., GraphValue]:
    def lowering(g: OnnxGraph, x: GraphValue) -> GraphValue:
        need_floats(x)
        return replace(g.op(kind, x), positive=kind in ("Exp", "Sqrt"), small=kind in _WITHIN_ONE)

    return lowering


def _step(kind: str) -> Callable[..., GraphValue]:
    def lowering(g: OnnxGraph, x: GraphValue) -> GraphValue:
        return g.op(kind, x) if x.is_float or kind == "Sign" else x

    return lowering


def _alike(g: OnnxGraph, x: GraphValue, y: GraphValue) -> tuple[GraphValue, GraphValue]:
    """Return two operands in their common type."""
    if x.dtype == y.dtype:
        return x, y
    common = max((x.dtype, y.dtype), key=lambda name: _ORDER.index(name) if name in _ORDER else -1)
    return tuple(item if item.dtype == common else g.cast(item, common) for item in (x, y))  # type: ignore[return-value]


def _comparison(kind: str) -> Callable[..., GraphValue]:
    def lowering(g: OnnxGraph, x: GraphValue, y: GraphValue) -> GraphValue:
        x, y = _alike(g, x, y)
        if x.dtype == BOOL and kind != "Equal":
            raise UnsupportedGraph("it compares booleans by size")
        return g.op(kind, x, y, dtype=BOOL)

    return lowering


def _logical(kind: str) -> Callable[..., GraphValue]:
    def lowering(g: OnnxGraph, x: GraphValue, y: GraphValue) -> GraphValue:
        return g.op(kind, truth(g, x), truth(g, y), dtype=BOOL)

    return lowering


def _arithmetic(kind: str) -> Callable[..., GraphValue]:
    def lowering(g: OnnxGraph, x: GraphValue, y: GraphValue) -> GraphValue:
        x, y = _alike(g, x, y)
        if x.dtype == BOOL:
            raise UnsupportedGraph("it computes with booleans")
        return g.op(kind, x, y)

    return lowering


def truth(g: OnnxGraph, x: GraphValue) -> GraphValue:
    """Return x != 0."""
    return x if x.dtype == BOOL else g.op("Not", g.op("Equal", x, 0, dtype=BOOL), dtype=BOOL)


@lowers(two.not_equal)
def not_equal(g: OnnxGraph, x: GraphValue, y: GraphValue) -> GraphValue:
    """x != y."""
    return g.op("Not", g.op("Equal", *_alike(g, x, y), dtype=BOOL), dtype=BOOL)


@lowers(two.real_div)
def real_div(g: OnnxGraph, x: GraphValue, y: GraphValue) -> GraphValue:
    """x / y."""
    need_floats(x, y)
    return g.op("Div", x, y)


@lowers(two.mod)
def mod(g: OnnxGraph, x: GraphValue, y: GraphValue) -> GraphValue:
    """The remainder, with y's sign."""
    need_floats(x, y)
    rest = g.op("Mod", x, y, fmod=1)
    other = g.op("Less", g.op("Mul", g.op("Sign", rest), g.op("Sign", y)), 0.0, dtype=BOOL)
    return g.op("Where", other, g.op("Add", rest, y), rest, dtype=F32)


@lowers(two.floor_div)
def floor_div(g: OnnxGraph, x: GraphValue, y: GraphValue) -> GraphValue:
    """x / y rounded down, as torch has it: what the remainder leaves, divided, is whole but for the last bit."""
    rest = mod(g, x, y)
    whole = g.op("Round", g.op("Div", g.op("Sub", x, rest), y))
    return g.op("Where", g.op("Equal", y, 0.0, dtype=BOOL), g.op("Div", x, y), whole, dtype=F32)


@lowers(two.pow_)
def power(g: OnnxGraph, x: GraphValue, y: GraphValue) -> GraphValue:
    """x to the power of y."""
    need_floats(x, y)
    return g.op("Pow", x, y)


def _extreme(g: OnnxGraph, x: GraphValue, y: GraphValue, kind: str, beats: str) -> GraphValue:
    x, y = (clamped_raw(g, item) for item in _alike(g, x, y))
    if not (g.spelling.careful and x.is_float):
        return g.op(kind, x, y)
    # y is taken unless x is better or a NaN; a NaN of y is taken because no comparison with it holds.
    first = g.op("Where", g.op(beats, x, y, dtype=BOOL), x, y, dtype=F32)
    return g.op("Where", g.op("LessOrEqual", x, math.inf, dtype=BOOL), first, x, dtype=F32)


def _bound(x: GraphValue, y: GraphValue) -> tuple[GraphValue, float] | None:
    """Return one operand, and the other if that is one finite constant of f16 (its value then)."""
    for item, other in ((x, y), (y, x)):
        if item.is_float and other.array is not None and other.array.size == 1 and other.rank <= item.rank:
            value = float(other.array.item())
            if is_half(value):
                return item, value
    return None


@lowers(two.maximum, monotone=True, bounding=True)
def maximum(g: OnnxGraph, x: GraphValue, y: GraphValue) -> GraphValue:
    """The larger one."""
    found = _bound(x, y)
    return bounded(g, found[0], found[1], math.inf) if found else _extreme(g, x, y, "Max", "Greater")


@lowers(two.minimum, monotone=True, bounding=True)
def minimum(g: OnnxGraph, x: GraphValue, y: GraphValue) -> GraphValue:
    """The smaller one."""
    found = _bound(x, y)
    return bounded(g, found[0], -math.inf, found[1]) if found else _extreme(g, x, y, "Min", "Less")


@lowers(one.abs_, monotone=True, bounding=True)
def absolute(g: OnnxGraph, x: GraphValue) -> GraphValue:
    """The absolute value; rounding is the same on both sides of 0."""
    return replace(g.op("Abs", clamped_raw(g, x)), positive=True, small=x.small)


def is_half(value: Any) -> bool:
    """Whether it is a number that f16 has."""
    return isinstance(value, int | float) and (
        math.isinf(value) or (abs(value) <= 65504 and float(np.float16(value)) == value)
    )


@lowers(one.clip, monotone=lambda given: is_half(given["alpha"]) and is_half(given["beta"]), bounding=True)
def clip(g: OnnxGraph, x: GraphValue, alpha: float, beta: float) -> GraphValue:
    """min(max(x, alpha), beta)."""
    return bounded(g, x, alpha, beta)


@lowers(one.threshold, monotone=lambda given: is_half(given["alpha"]), bounding=True)
def threshold(g: OnnxGraph, x: GraphValue, alpha: float) -> GraphValue:
    """max(x, alpha)."""
    return bounded(g, x, alpha, math.inf)


@lowers(one.exp2)
def exp2(g: OnnxGraph, x: GraphValue) -> GraphValue:
    """2 to the power of x."""
    need_floats(x)
    return g.op("Pow", g.constant(np.array(2.0, np.float32)), x)


@lowers(one.inverse)
def inverse(g: OnnxGraph, x: GraphValue, epsilon: float = 1e-4) -> GraphValue:
    """1 / (x + epsilon)."""
    need_floats(x)
    return g.op("Reciprocal", g.op("Add", x, epsilon))


@lowers(one.log)
def log(g: OnnxGraph, x: GraphValue, epsilon: float = 1e-45) -> GraphValue:
    """The natural logarithm of x + epsilon."""
    need_floats(x)
    return g.op("Log", g.op("Add", x, epsilon))


@lowers(one.rsqrt)
def rsqrt(g: OnnxGraph, x: GraphValue, epsilon: float = 1e-12) -> GraphValue:
    """1 / sqrt(x + epsilon)."""
    need_floats(x)
    return g.op("Reciprocal", g.op("Sqrt", g.op("Add", x, epsilon)))


@lowers(one.square)
def square(g: OnnxGraph, x: GraphValue) -> GraphValue:
    """x * x."""
    return replace(g.op("Mul", x, x), positive=x.is_float)


@lowers(one.logical_not)
def logical_not(g: OnnxGraph, x: GraphValue) -> GraphValue:
    """Whether x is false."""
    return g.op("Not", truth(g, x), dtype=BOOL)


@lowers(control_flow.select)
def select(g: OnnxGraph, cond: GraphValue, a: GraphValue, b: GraphValue) -> GraphValue:
    """a where ``cond`` holds, b elsewhere."""
    a, b = _alike(g, a, b)
    return g.op("Where", truth(g, cond), a, b, dtype=a.dtype)


@lowers(one.cast)
def cast(g: OnnxGraph, x: GraphValue, dtype: str) -> GraphValue:
    """x as MIL's ``dtype``: a float is cut toward 0 and clamped, with NaN as 0."""
    target = DType.named(dtype)
    if target is DType.BOOL:
        return truth(g, x)
    if target in (DType.FP16, DType.FP32):
        return g.op("Identity", x) if x.is_float else g.cast(x, F32)
    if target not in _CASTS:
        raise UnsupportedGraph(f"a cast to {dtype}")
    carrier, low, high = _CASTS[target]
    if not x.is_float:
        whole = x if x.dtype == carrier else g.cast(x, carrier)
        return g.op("BitwiseAnd", whole, 0xFFFF) if target is DType.UINT16 else whole
    if target is not DType.INT32:
        number = g.op("Where", g.op("Equal", x, x, dtype=BOOL), x, 0.0, dtype=F32)
        return g.cast(g.cast(g.op("Clip", number, low, high), I32), carrier)
    number = g.op("Where", g.op("Equal", x, x, dtype=BOOL), x, 0.0, dtype=F32)
    # f32's largest number below 2^31; what lies above becomes int32's largest, which f32 does not have.
    within = g.cast(g.op("Clip", number, -(2.0**31), 2147483520.0), I32)
    above = g.op("GreaterOrEqual", number, 2.0**31, dtype=BOOL)
    return g.op("Where", above, g.constant(np.array(2**31 - 1, np.int32)), within, dtype=I32)


@lowers(quantization.quantize)
def quantize(
    g: OnnxGraph,
    input: GraphValue,
    scale: GraphValue,
    output_dtype: str,
    zero_point: GraphValue | None = None,
    axis: int | None = None,
) -> GraphValue:
    """round(input / scale) + zero_point, clamped to int8 or uint8. Not ONNX's own operation: what compilers make of
    that and of the products around it adds up in integers."""
    need_floats(input, scale)
    steps = g.op("Round", g.op("Div", input, _along(g, scale, input.rank, axis)))
    if zero_point is not None:
        steps = g.op("Add", steps, g.cast(_along(g, zero_point, input.rank, axis), F32))
    return cast(g, steps, output_dtype)


@lowers(quantization.dequantize)
def dequantize(
    g: OnnxGraph, input: GraphValue, scale: GraphValue, zero_point: GraphValue | None = None, axis: int | None = None
) -> GraphValue:
    """scale * (input - zero_point)."""
    values = g.cast(input, F32)
    if zero_point is not None:
        values = g.op("Sub", values, g.cast(_along(g, zero_point, input.rank, axis), F32))
    return g.op("Mul", values, _along(g, scale, input.rank, axis))


def _along(g: OnnxGraph, vector: GraphValue, rank: int, axis: int | None) -> GraphValue:
    """Align a vector with ``axis`` of a tensor of ``rank``; a scalar stays."""
    if axis is None or vector.rank == 0:
        return vector
    return reshaped(g, vector, (-1, *(1,) * (rank - 1 - axis % rank)))


_register()
