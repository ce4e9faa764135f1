"""ONNX Runtime's properties before a model is loaded."""

from __future__ import annotations

from typing import Any

from tlkit.engines.onnx.kind import GraphKind


class OnnxRuntimeKind(GraphKind):
    """MIL programs compiled by ONNX Runtime for the CPU."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    module = "onnxruntime"
    extra = "onnxruntime"
    modes = ("onnxruntime",)
    memory = 6.5

    def runtime(self, precision: str, streams: int = 1) -> Any:
        """Return ONNX Runtime."""
        from tlkit.engines.onnxruntime.runtime import OnnxRuntime

        return OnnxRuntime(precision, streams)
