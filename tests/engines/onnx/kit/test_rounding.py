"""The rounding to f16 in an f32 graph, by both runtimes, against numpy's casts.

Covers tlkit/engines/onnx/kit/rounding.py, tlkit/engines/onnx/kit/graph.py, tlkit/engines/onnx/selftest.py,
tlkit/engines/onnx/runtime.py, tlkit/engines/openvino/runtime.py, tlkit/engines/openvino/marks.py,
tlkit/engines/onnxruntime/runtime.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tlkit.engines.onnx import selftest
from tlkit.engines.onnx.kit.graph import F32, GraphValue, OnnxGraph, Spelling, input_name
from tlkit.engines.onnx.kit.rounding import rounded

CLAMPS = (None, (0.0, math.inf), (0.0, 6.0), (-1.0, 1.0), (-math.inf, 5.0), (3.0, 2.0))
FACTOR = np.float32(1.0009765625)


def values() -> np.ndarray:
    """Every f16 value, every middle of two, their neighbours in f32, and random bits."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    finite = np.sort(every[np.isfinite(every)])
    middles = ((finite[1:].astype(np.float64) + finite[:-1]) / 2).astype(np.float32)
    beside = [np.nextafter(each, np.float32(end)) for each in (finite, middles) for end in (-np.inf, np.inf)]
    bits = np.random.default_rng(0).integers(0, 1 << 32, 100_000, dtype=np.uint32).view(np.float32)
    edge = np.array([65519.99, 65520, -65520, 65536, 1e38, -1e38, np.inf, -np.inf, np.nan], np.float32)
    found = np.concatenate([every, middles, *beside, bits, edge])
    return np.resize(found, (1, 16, -(-found.size // 256), 16)).astype(np.float32)


def runtime(name: str, precision: str = "f16") -> Any:
    if name == "openvino":
        pytest.importorskip("openvino")
        from tlkit.engines.openvino.runtime import OpenVINORuntime

        return OpenVINORuntime(precision)
    from tlkit.engines.onnxruntime.runtime import OnnxRuntime

    return OnnxRuntime(precision)


def wanted(x: np.ndarray, clamp: tuple[float, float] | None) -> np.ndarray:
    with np.errstate(all="ignore"):
        half = x.astype(np.float16).astype(np.float32)
        return half if clamp is None else np.minimum(np.maximum(half, np.float32(clamp[0])), np.float32(clamp[1]))


WAYS = [("openvino", way) for way in ("casts", "arithmetic")] + [("onnxruntime", "casts")]


def spelt(library: Any, way: str) -> Spelling:
    return next(item for item in library.spellings if item.rounding == way)


@pytest.mark.parametrize(("name", "way", "convolved"), [(*way, after) for way in WAYS for after in (False, True)])
def test_it_is_numpys_cast_alone_clamped_and_after_a_convolution(name: str, way: str, convolved: bool) -> None:
    library, x = runtime(name), values()
    graph = OnnxGraph(spelt(library, way))
    port = GraphValue(input_name(0), F32, x.shape)
    graph.inputs.append(port)
    ones = np.ones((16, 1, 1, 1), np.float32)
    made = replace(graph.op("Conv", port, ones, group=16) if convolved else port, shape=x.shape, raw=True)
    for clamp in CLAMPS:
        once = rounded(graph, replace(made, clamp=clamp))
        twice = rounded(graph, replace(graph.op("Mul", once, float(FACTOR)), raw=True, shape=x.shape, clamp=clamp))
        graph.outputs += [replace(graph.op("Identity", item), shape=x.shape) for item in (once, twice)]
    found = library.compile(graph.model()).bind([x])()
    for place, clamp in enumerate(CLAMPS):
        once = wanted(x, clamp)
        with np.errstate(all="ignore"):
            again = wanted(once * FACTOR, clamp)
        np.testing.assert_array_equal(found[2 * place], once, err_msg=str(clamp))
        np.testing.assert_array_equal(found[2 * place + 1], again, err_msg=str(clamp))


@pytest.mark.parametrize(("name", "way"), WAYS)
def test_the_runtimes_pass_the_self_test(name: str, way: str) -> None:
    library = runtime(name)
    assert selftest.keeps_rounding(library, spelt(library, way))


@pytest.mark.parametrize(("name", "way"), WAYS)
def test_what_was_kept_rounds_as_what_was_compiled(name: str, way: str) -> None:
    library, x = runtime(name), np.linspace(-9, 70000, 4096, dtype=np.float32).reshape(1, 16, 16, 16)
    blob = library.compile(selftest.check_graph(spelt(library, way), x.shape).model()).blob()
    for found, want in zip(library.restore(blob).bind([x])(), selftest.expected(x), strict=True):
        np.testing.assert_array_equal(found, want)


def test_casts_are_the_choice() -> None:
    assert [selftest.spelling_for(runtime(name)).rounding for name in ("openvino", "onnxruntime")] == ["casts"] * 2


def test_an_openvino_that_removes_casts_is_found_and_gets_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    library = runtime("openvino")
    monkeypatch.setattr("tlkit.engines.openvino.runtime.marked", lambda model, blocked: model)
    monkeypatch.setattr(selftest, "_FOUND", {})
    assert not selftest.keeps_rounding(library, spelt(library, "casts"))
    assert selftest.spelling_for(library) == spelt(library, "arithmetic")


def test_the_self_test_finds_that_nothing_rounds() -> None:
    library = runtime("onnxruntime", "f32")
    assert not selftest.keeps_rounding(library, Spelling(""))
