"""The kernels that convolutions take: those that the trial finds faster, with the same results, kept as they are.

Covers tlkit/engines/openvino/kernels.py, tlkit/engines/openvino/marks.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("openvino")

from tlkit.engines.onnx.kit.graph import F32, GraphValue, OnnxGraph, OnnxModel, Spelling, input_name
from tlkit.engines.openvino import kernels, marks
from tlkit.engines.openvino.runtime import OpenVINORuntime, OpenVINOSession

X = np.random.default_rng(0).standard_normal((1, 3, 9, 9), np.float32)


def model() -> OnnxModel:
    graph, draw = OnnxGraph(Spelling("")), np.random.default_rng(1)
    value = GraphValue(input_name(0), F32, X.shape)
    graph.inputs.append(value)
    for shape, group in (((16, 3, 1, 1), 1), ((16, 1, 3, 3), 16), ((32, 16, 1, 1), 1), ((8, 32, 3, 3), 1)):
        value = graph.op("Conv", value, draw.standard_normal(shape, np.float32), group=group)
    graph.outputs.append(GraphValue(value.name, F32, (1, 8, 5, 5)))
    return graph.model()


def kinds(session: OpenVINOSession) -> set[str]:
    told = [node.get_rt_info() for node in session._compiled.get_runtime_model().get_ops()]
    return {info["primitiveType"].value for info in told if "Convolution" in info["layerType"].value}


def compiled(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> OpenVINOSession:
    monkeypatch.setattr(kernels, "_SHORT", 0.0)
    monkeypatch.setattr(kernels, "trial", lambda calls: [call() for call in calls.values()] and seconds)
    return OpenVINORuntime("f32").compile(model())


def result(session: OpenVINOSession) -> Any:
    return np.array(session.bind([X])()[0])


def test_what_needs_less_time_is_taken_computes_the_same_and_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    own = compiled(monkeypatch, {"first": 1.0, "other": 0.99})
    if not any(kind.startswith("brgconv_avx2") for kind in kinds(own)):
        pytest.skip("OpenVINO has other kernels for this processor")
    other = compiled(monkeypatch, {"first": 1.0, "other": 0.9})
    assert kinds(other) == {"jit_avx2_1x1_f32", "jit_avx2_dw_f32", "jit_avx2_f32"}
    np.testing.assert_allclose(result(other), result(own), rtol=1e-4, atol=1e-4)
    blob = other.blob()
    assert blob is not None
    kept = OpenVINORuntime("f32").restore(blob)
    assert kinds(kept) == kinds(other)
    np.testing.assert_array_equal(result(kept), result(other))


def test_an_openvino_that_does_not_know_the_kernels_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = result(compiled(monkeypatch, {"first": 1.0, "other": 1.0}))
    monkeypatch.setitem(marks._BLOCKED, "value", "cpu:no_such_kernel")
    np.testing.assert_array_equal(result(compiled(monkeypatch, {"first": 1.0, "other": 0.5})), wanted)


def test_a_short_inference_is_not_worth_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(calls: object) -> dict[str, float]:
        raise AssertionError("tried")

    monkeypatch.setattr(kernels, "_SHORT", 1e9)
    monkeypatch.setattr(kernels, "trial", refuse)
    assert np.isfinite(result(OpenVINORuntime("f32").compile(model()))).all()
