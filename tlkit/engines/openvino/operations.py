"""MIL's operations in OpenVINO's words: those that language models are made of.

Each function takes the graph that is made and the operation's arguments by MIL's names, and returns OpenVINO's output.
Some are spelt as OpenVINO's own passes look for them (RMS norms, repeated keys), which makes one kernel of several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from tlkit.engines.openvino.library import openvino, ov
from tlkit.mil.program import Argument


class Lowered(Protocol):
    """The graph that is made, as operations see it."""

    def node(self, item: Argument) -> Any:
        """Return an argument as OpenVINO's output."""

    def known(self, item: Argument) -> Any:
        """Return a parameter as Python has it."""

    def integers(self, values: Any) -> Any:
        """Return an integer, or a list of them, as a constant; one for all that are equal."""

    def number(self, value: float) -> Any:
        """Return a number in f32 as a constant; one for all that are equal."""


Given = Mapping[str, tuple[Argument, ...]]
Lower = Callable[[Lowered, Given], Any]
OPERATIONS: dict[str, Lower] = {}
"""What is known, by MIL's names. Operations with several outputs return a list."""
TYPES = {
    "fp32": openvino.Type.f32,
    "fp16": openvino.Type.f16,
    "int32": openvino.Type.i32,
    "bool": openvino.Type.boolean,
}


def _lowers(name: str) -> Callable[[Lower], Lower]:
    def register(function: Lower) -> Lower:
        OPERATIONS[name] = function
        return function

    return register


def _one(name: str, make: Callable[[Any], Any]) -> None:
    OPERATIONS[name] = lambda graph, given: make(graph.node(given["x"][0]))


def _two(name: str, make: Callable[[Any, Any], Any]) -> None:
    OPERATIONS[name] = lambda graph, given: make(graph.node(given["x"][0]), graph.node(given["y"][0]))


for _name, _make in (
    ("tanh", ov.tanh),
    ("sigmoid", ov.sigmoid),
    ("silu", ov.swish),
    ("relu", ov.relu),
    ("identity", lambda x: x),
):
    _one(_name, _make)
for _name, _pair in (
    ("add", ov.add),
    ("sub", ov.subtract),
    ("real_div", ov.divide),
    ("less_equal", ov.less_equal),
    ("greater", ov.greater),
    ("greater_equal", ov.greater_equal),
    ("logical_and", ov.logical_and),
):
    _two(_name, _pair)


def parameter(graph: Lowered, given: Given, name: str, default: Any) -> Any:
    """Return a parameter, or what MIL takes where it is left out."""
    return graph.known(given[name][0]) if name in given else default


@_lowers("mul")
def _mul(graph: Lowered, given: Given) -> Any:
    x, y = graph.node(given["x"][0]), graph.node(given["y"][0])
    # The fusion of RMS norms looks for a power of 2.
    return ov.power(x, graph.number(2)) if given["x"] == given["y"] else ov.multiply(x, y)


@_lowers("rsqrt")
def _rsqrt(graph: Lowered, given: Given) -> Any:
    shifted = ov.add(graph.node(given["x"][0]), graph.number(parameter(graph, given, "epsilon", 1e-12)))
    return ov.power(shifted, graph.number(-0.5))


@_lowers("gelu")
def _gelu(graph: Lowered, given: Given) -> Any:
    x = graph.node(given["x"][0])
    if parameter(graph, given, "mode", "EXACT") == "EXACT":
        return ov.gelu(x, "erf")
    # (1 + tanh(y)) / 2 is sigmoid(2 y) = 1 / (1 + exp(-2 y)): of the approximation y = sqrt(2 / pi) (x + 0.044715 x^3).
    # OpenVINO puts its own GELU into the product before it, which takes a third more time for that with AVX2.
    root = 2 * np.sqrt(2 / np.pi)
    inner = ov.add(ov.multiply(ov.multiply(x, x), graph.number(-0.044715 * root)), graph.number(-root))
    return ov.divide(x, ov.add(ov.exp(ov.multiply(x, inner)), graph.number(1)))


@_lowers("cast")
def _cast(graph: Lowered, given: Given) -> Any:
    x, dtype = graph.node(given["x"][0]), graph.known(given["dtype"][0])
    return _half(graph, x) if dtype == "fp16" else ov.convert(x, TYPES[dtype])


def _half(graph: Lowered, x: Any) -> Any:
    """Return f32 rounded to f16 and carried in f32, by the arithmetic of ``engines/onnx/kit/rounding.py``: casts to f16
    are nothing to OpenVINO where it computes in f32."""
    x = ov.maximum(graph.number(-(2.0**20)), ov.minimum(graph.number(2.0**20), x))
    m = ov.maximum(ov.multiply(ov.abs(x), graph.number(8192)), graph.number(0.75))
    t = ov.add(x, m)
    beyond = ov.multiply(ov.subtract(t, ov.subtract(t, x)), graph.number(2.0**112))
    return ov.multiply(ov.maximum(graph.number(-np.inf), beyond), graph.number(2.0**-112))


@_lowers("reduce_mean")
def _reduce_mean(graph: Lowered, given: Given) -> Any:
    return ov.reduce_mean(graph.node(given["x"][0]), *_reduced(graph, given))


@_lowers("reduce_sum")
def _reduce_sum(graph: Lowered, given: Given) -> Any:
    return ov.reduce_sum(graph.node(given["x"][0]), *_reduced(graph, given))


def _reduced(graph: Lowered, given: Given) -> tuple[Any, bool]:
    return graph.integers(graph.known(given["axes"][0])), bool(parameter(graph, given, "keep_dims", False))


@_lowers("layer_norm")
def _layer_norm(graph: Lowered, given: Given) -> Any:
    axes, epsilon = graph.integers(graph.known(given["axes"][0])), parameter(graph, given, "epsilon", 1e-5)
    made = ov.mvn(graph.node(given["x"][0]), axes, True, float(epsilon), "INSIDE_SQRT")
    made = ov.multiply(made, graph.node(given["gamma"][0])) if "gamma" in given else made
    return ov.add(made, graph.node(given["beta"][0])) if "beta" in given else made


@_lowers("linear")
def _linear(graph: Lowered, given: Given) -> Any:
    made = ov.matmul(graph.node(given["x"][0]), graph.node(given["weight"][0]), False, True)
    return ov.add(made, graph.node(given["bias"][0])) if "bias" in given else made


@_lowers("matmul")
def _matmul(graph: Lowered, given: Given) -> Any:
    turned = [bool(parameter(graph, given, name, False)) for name in ("transpose_x", "transpose_y")]
    x, y = graph.node(given["x"][0]), graph.node(given["y"][0])
    many, one = y.get_partial_shape(), x.get_partial_shape()
    if len(many) == 3 and many[0].is_static and many[0].get_length() > 1 and one[0] == 1:
        # Left to OpenVINO, one matrix times several constant ones is given the shape of one.
        x = ov.broadcast(x, graph.integers([many[0].get_length(), 1, 1]), broadcast_spec="BIDIRECTIONAL")
    return ov.matmul(x, y, *turned)


@_lowers("scaled_dot_product_attention")
def _attention(graph: Lowered, given: Given) -> Any:
    parts = [graph.node(given[name][0]) for name in ("query", "key", "value")]
    mask = graph.node(given["attn_mask"][0]) if "attn_mask" in given else None
    return ov.scaled_dot_product_attention(*parts, attention_mask=mask, causal=False)


@_lowers("softmax")
def _softmax(graph: Lowered, given: Given) -> Any:
    return ov.softmax(graph.node(given["x"][0]), parameter(graph, given, "axis", -1))


@_lowers("concat")
def _concat(graph: Lowered, given: Given) -> Any:
    parts, axis = [graph.node(item) for item in given["values"]], graph.known(given["axis"][0])
    # The fusion of rotations looks for the last axis by this name.
    return ov.concat(parts, -1 if axis == parts[0].get_partial_shape().rank.get_length() - 1 else axis)


@_lowers("reshape")
def _reshape(graph: Lowered, given: Given) -> Any:
    return ov.reshape(graph.node(given["x"][0]), graph.integers(graph.known(given["shape"][0])), False)


@_lowers("transpose")
def _transpose(graph: Lowered, given: Given) -> Any:
    return ov.transpose(graph.node(given["x"][0]), graph.integers(graph.known(given["perm"][0])))


@_lowers("expand_dims")
def _expand_dims(graph: Lowered, given: Given) -> Any:
    return ov.unsqueeze(graph.node(given["x"][0]), graph.integers(graph.known(given["axes"][0])))


@_lowers("squeeze")
def _squeeze(graph: Lowered, given: Given) -> Any:
    return ov.squeeze(graph.node(given["x"][0]), graph.integers(graph.known(given["axes"][0])))


@_lowers("tile")
def _tile(graph: Lowered, given: Given) -> Any:
    x, reps = graph.node(given["x"][0]), graph.known(given["reps"][0])
    lengths = x.get_partial_shape()
    # Ones repeated are a broadcast, which the fusion of attention looks for.
    if all(
        count == 1 or (lengths[axis].is_static and lengths[axis].get_length() == 1) for axis, count in enumerate(reps)
    ):
        return ov.broadcast(x, graph.integers(reps), broadcast_spec="BIDIRECTIONAL")
    return ov.tile(x, graph.integers(reps))


@_lowers("gather")
def _gather(graph: Lowered, given: Given) -> Any:
    axis = graph.integers(parameter(graph, given, "axis", 0))
    return ov.gather(graph.node(given["x"][0]), graph.node(given["indices"][0]), axis)


@_lowers("slice_by_index")
def _slice_by_index(graph: Lowered, given: Given) -> Any:
    x = graph.node(given["x"][0])
    begin, end = graph.known(given["begin"][0]), graph.known(given["end"][0])
    open_end = parameter(graph, given, "end_mask", None) or [False] * len(end)
    stops = [np.iinfo(np.int64).max if whole else stop for stop, whole in zip(end, open_end, strict=True)]
    # Axes that are taken whole are left out: the fewer, the faster.
    lengths = x.get_partial_shape()
    axes = [
        axis
        for axis, (first, stop) in enumerate(zip(begin, stops, strict=True))
        if first or not (open_end[axis] or (lengths[axis].is_static and lengths[axis].get_length() == stop))
    ]
    rows = [graph.integers([of[axis] for axis in axes]) for of in (begin, stops)]
    return ov.slice(x, *rows, graph.integers([1] * len(axes)), graph.integers(axes))


@_lowers("topk")
def _topk(graph: Lowered, given: Given) -> Any:
    ascending = bool(parameter(graph, given, "ascending", False))
    count, axis = graph.known(given["k"][0]), parameter(graph, given, "axis", -1)
    mode = "min" if ascending else "max"
    made = ov.topk(graph.node(given["x"][0]), graph.integers(count), axis, mode, "value", "i32")
    return [made.output(0), made.output(1)]
