"""OpenVINO as a runtime of ONNX graphs."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import openvino
import torch

from tlkit.engines.onnx.kit.graph import Spelling, UnsupportedGraph, input_place
from tlkit.engines.onnx.runtime import Array
from tlkit.engines.openvino.library import core, last_line
from tlkit.errors import ExecutionError, UnavailableError


class OpenVINORuntime:
    """Compiles for the CPU, for one inference at a time, with as many threads as PyTorch has."""

    name = "OpenVINO"

    def __init__(self, precision: str) -> None:
        self.precision = precision
        if precision == "bf16" and not has_bf16():
            raise UnavailableError(
                "this processor computes no bf16: OpenVINO would compute in f32", "use --precision f32"
            )

    @property
    def spelling(self) -> Spelling:
        """f16's rounding as arithmetic: OpenVINO removes casts."""
        return Spelling("arithmetic" if self.precision == "f16" else "")

    def version(self) -> str:
        """Return OpenVINO's version, the precision and the number of threads."""
        return f"{openvino.get_version()} {self.precision} {torch.get_num_threads()}"

    def compile(self, model: bytes) -> OpenVINOSession:
        """Compile a serialized ONNX model."""
        try:
            return OpenVINOSession(core().compile_model(core().read_model(model), "CPU", self._settings()))
        except RuntimeError as error:
            raise UnsupportedGraph(f"OpenVINO refuses the graph: {last_line(error)}") from None

    def restore(self, blob: bytes) -> OpenVINOSession:
        """Return what was exported."""
        try:
            return OpenVINOSession(core().import_model(io.BytesIO(blob), "CPU", self._settings()))
        except RuntimeError as error:
            raise UnsupportedGraph(f"OpenVINO refuses what it compiled before: {last_line(error)}") from None

    def _settings(self) -> dict[str, Any]:
        computed = "bf16" if self.precision == "bf16" else "f32"
        threads = torch.get_num_threads()
        return {"INFERENCE_PRECISION_HINT": computed, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}


class OpenVINOSession:
    """A compiled model."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled

    def bind(self, inputs: Sequence[Array]) -> Callable[[], Sequence[Array]]:
        """Return a call that infers on ``inputs``, which share their memory with OpenVINO's tensors."""
        request = self._compiled.create_infer_request()
        for place, port in enumerate(self._compiled.inputs):
            array = inputs[input_place(port.names)]
            request.set_input_tensor(place, openvino.Tensor(array, shared_memory=True))
        count = len(self._compiled.outputs)

        def call() -> Sequence[Array]:
            try:
                request.infer(share_inputs=True, share_outputs=True)
            except RuntimeError as error:
                raise ExecutionError(f"OpenVINO stopped: {last_line(error)}") from None
            return [request.get_output_tensor(place).data for place in range(count)]

        call.held = inputs  # type: ignore[attr-defined]
        return call

    def blob(self) -> bytes | None:
        """Return the compiled model."""
        exported: bytes = self._compiled.export_model().getvalue()
        return exported


@cache
def has_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this processor."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
