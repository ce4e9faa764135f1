"""Rounding to f16 inside an f32 graph: to the nearest, ties to even, subnormals and infinities as in IEEE 754.

As casts to f16 and back it is two nodes, which ONNX Runtime executes as they are, and OpenVINO where it is told to
(``engines/openvino/marks.py``). Where it is not, it removes such a pair, since all values are f32 to it. For that case
there is f32 arithmetic that no compiler may simplify (floating point is not associative), and that OpenVINO fuses to
one loop over the values, too. With x between -2^20 and 2^20 and a = |x|::

    m = max(8192 a, 0.75)        t = x + m        r = t - (t - x)        result = 2^-112 (2^112 r)

The last place of t has 13 bits more weight than that of x, so that adding rounds x to 11 bits, and t - x is m as it was
rounded. From 2^-14 down m stays 0.75, whose last place is 2^-24, the step of f16's subnormals. What rounds to 2^16 is
made infinite by the scaling. Compared with numpy's casts for every f16 value, every middle of two neighbours and the
floats beside each: equal, but for the sign of 0 (tests/engines/onnx/kit/test_rounding.py). A runtime that breaks it
is found when it is loaded (``engines/onnx/selftest.py``).

The bounds of x, and those of a clamp that comes before, cost nothing more. They are written so that a NaN stays one,
measured with OpenVINO 2026.4: max(constant, x) keeps it and max(x, constant) does not, nor does the clamp that a
minimum and a maximum next to each other are fused to. So the casts stand between the two; in the arithmetic, a factor
of 2^-4 does, and a maximum that does nothing stands between the two factors of the end. Comparisons and selections cost
a third of a convolution more.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from tlkit.engines.onnx.kit.graph import BOOL, F32, GraphValue, OnnxGraph

_LARGEST = 65504.0
_BOUND = 2.0**20
"""Any bound above f16's numbers: it keeps the arithmetic finite."""
_APART = 2.0**-4
_SCALE = 2.0**112
"""Times 2^16 it is just infinite in f32."""


def rounded(graph: OnnxGraph, x: GraphValue) -> GraphValue:
    """Return ``x`` clamped and rounded to f16, carried in f32; not rounded where the graph does not round."""
    if not graph.spelling.rounding or not x.is_float:
        return clamped(graph, x)
    made = _arithmetic(graph, x) if graph.spelling.rounding == "arithmetic" else _casts(graph, x)
    return replace(made, shape=x.shape, raw=False, clamp=None, **_marks(x))


def _marks(x: GraphValue) -> dict[str, Any]:
    low, high = x.clamp or (-math.inf, math.inf)
    return {"positive": x.positive or low >= 0, "small": x.small or max(-low, high) <= _LARGEST}


def clamped(graph: OnnxGraph, x: GraphValue) -> GraphValue:
    """Return ``x`` within the bounds that it still has to be brought within; a NaN stays one."""
    if x.clamp is None:
        return replace(x, raw=False)
    made = _within(graph, x, *x.clamp)
    if graph.spelling.careful:
        number = graph.op("LessOrEqual", x, math.inf, dtype=BOOL)
        made = graph.op("Where", number, made, x, dtype=F32)
    return replace(made, shape=x.shape, clamp=None, raw=False, **_marks(x))


def clamped_raw(graph: OnnxGraph, value: GraphValue) -> GraphValue:
    """Return a value clamped, and still to be rounded if it was."""
    return replace(clamped(graph, value), raw=value.raw)


def _within(graph: OnnxGraph, x: GraphValue, low: float, high: float) -> GraphValue:
    """Return min(max(x, low), high) by the runtime's own operations."""
    if (low, high) == (0.0, math.inf):
        return graph.op("Relu", x)
    if low > high:
        return graph.op("Min", graph.op("Max", x, low), high)
    bounds = [None if math.isinf(bound) else graph.value(bound, x.dtype) for bound in (low, high)]
    return graph.op("Clip", x, *bounds)


def _casts(graph: OnnxGraph, x: GraphValue) -> GraphValue:
    from onnx import TensorProto

    low, high = x.clamp or (-math.inf, math.inf)
    between = graph.spelling.careful and low <= high
    if not between:
        x = clamped(graph, x)
    elif high < math.inf:
        x = graph.op("Min", _number(graph, high), x)
    half = graph.op("Cast", x, dtype="float16", to=TensorProto.FLOAT16)
    whole = graph.op("Cast", half, dtype=F32, to=TensorProto.FLOAT)
    return graph.op("Max", _number(graph, low), whole) if between and low > -math.inf else whole


def _arithmetic(graph: OnnxGraph, x: GraphValue) -> GraphValue:
    low, high = x.clamp or (-math.inf, math.inf)
    marks = _marks(x)
    low = max(0.0 if x.positive else -_BOUND, low)
    if low > high:
        low, x = -_BOUND, replace(clamped(graph, x), clamp=None)
    within = graph.op("Mul", graph.op("Min", _number(graph, min(high, _BOUND)), x), _APART)
    within = graph.op("Max", _number(graph, low * _APART), within)
    size = within if low >= 0 else graph.op("Abs", within)
    m = graph.op("Max", graph.op("Mul", size, 8192.0), 0.75 * _APART)
    t = graph.op("Add", within, m)
    found = graph.op("Sub", t, graph.op("Sub", t, within))
    if marks["small"]:
        return graph.op("Mul", found, 1 / _APART)
    beyond = graph.op("Max", _number(graph, -math.inf), graph.op("Mul", found, _SCALE / _APART))
    return graph.op("Mul", beyond, 1 / _SCALE)


def _number(graph: OnnxGraph, value: float) -> GraphValue:
    return graph.constant(np.array(value, np.float32))
