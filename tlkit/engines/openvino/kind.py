"""OpenVINO's properties before a model is loaded."""

from __future__ import annotations

from typing import Any

from tlkit.engines.onnx.kind import GraphKind


class OpenVINOKind(GraphKind):
    """MIL programs compiled by OpenVINO for the CPU."""

    name = "openvino"
    title = "OpenVINO"
    module = "openvino"
    extra = "openvino"
    modes = ("openvino",)
    memory = 2.5
    precisions = ("f16", "f32", "bf16")

    def runtime(self, precision: str, streams: int = 1) -> Any:
        """Return OpenVINO; UnavailableError where the processor has no bf16 and that is asked for."""
        from tlkit.engines.openvino.runtime import OpenVINORuntime

        return OpenVINORuntime(precision, streams)
