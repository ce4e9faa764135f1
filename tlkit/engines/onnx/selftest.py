"""Whether a runtime keeps f16's rounding: known values through a small graph, once per process.

The graph has what a compiler may want to fuse: a convolution, a clamp, the rounding, a product and a second rounding.
The values are ties, subnormals, both sides of an overflow, infinities and NaN.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tlkit.engines.onnx.kit.graph import F32, GraphValue, OnnxGraph, Spelling, input_name
from tlkit.engines.onnx.kit.rounding import rounded
from tlkit.engines.onnx.runtime import Array, Runtime

_FACTOR = 1.0009765625
_VALUES = (0.0, 1.0, -1.0, 1.00048828125, 1.00146484375, -2049.0, 2051.0, 0.1, 7.9997611, 65503.9, 65519.99, 65520.0,
           -65520.0, 70000.0, -1e9, 1e38, np.inf, -np.inf, np.nan, 2.0**-14, 6.1e-5, 6.103e-5, 5.96e-8, 2.98e-8,
           2.9803e-8, -8.95e-8, 3.14159274, 1024.5, -1025.5, 333.333, 1e-3, 12345.678)  # fmt: skip

_FOUND: dict[str, Spelling | None] = {}


def spelling_for(runtime: Runtime) -> Spelling | None:
    """Return the first of the runtime's spellings that rounds as numpy's casts to f16 do, or that does not round; None
    where it keeps none."""
    version = runtime.version()
    if version not in _FOUND:
        kept = (way for way in runtime.spellings if not way.rounding or keeps_rounding(runtime, way))
        _FOUND[version] = next(kept, None)
    return _FOUND[version]


def keeps_rounding(runtime: Runtime, spelling: Spelling) -> bool:
    """Whether the values come out as numpy's casts to f16 make them."""
    values = np.array(_VALUES, np.float32).reshape(1, 8, 4, 1).repeat(4, 3)
    try:
        session = runtime.compile(check_graph(spelling, values.shape).model())
        found = session.bind([values])()
    except Exception:  # whatever it is, this runtime is not used
        return False
    return all(_same(got, want) for got, want in zip(found, expected(values), strict=True))


def check_graph(spelling: Spelling, shape: tuple[int, ...]) -> OnnxGraph:
    """Return the graph: a convolution by 1 and its rounding, clamped at 0, and multiplied and rounded again."""
    graph = OnnxGraph(spelling)
    x = GraphValue(input_name(0), F32, shape)
    graph.inputs.append(x)
    ones = np.ones((shape[1], 1, 1, 1), np.float32)
    made = replace(graph.op("Conv", x, ones, group=shape[1]), shape=shape, raw=True)
    whole = rounded(graph, made)
    cut = rounded(graph, replace(made, clamp=(0.0, float("inf"))))
    again = rounded(graph, replace(graph.op("Mul", whole, _FACTOR), shape=shape, raw=True))
    graph.outputs += [replace(graph.op("Identity", item), shape=shape) for item in (whole, cut, again)]
    return graph


def expected(values: Array) -> tuple[Array, Array, Array]:
    """Return what the graph gives for ``values``, computed by numpy."""
    with np.errstate(all="ignore"):
        whole = values.astype(np.float16).astype(np.float32)
        cut = np.maximum(whole, np.float32(0))
        return whole, cut, (whole * np.float32(_FACTOR)).astype(np.float16).astype(np.float32)


def _same(found: Array, wanted: Array) -> bool:
    return bool(np.all((found == wanted) | (np.isnan(found) & np.isnan(wanted))))
