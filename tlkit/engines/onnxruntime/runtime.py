"""ONNX Runtime as a runtime of ONNX graphs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tlkit.engines.onnx.kit.graph import Spelling, UnsupportedGraph, input_place
from tlkit.engines.onnx.runtime import Array
from tlkit.errors import ExecutionError, reason
from tlkit.host.scratch import temporary_files

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime


class OnnxRuntime:
    """Compiles for the CPU, with as many threads as PyTorch has."""

    name = "ONNX Runtime"

    def __init__(self, precision: str) -> None:
        self.precision = precision

    @property
    def spelling(self) -> Spelling:
        """f16's rounding as casts: ONNX Runtime does them as they are, and does not fuse arithmetic."""
        return Spelling("casts" if self.precision == "f16" else "")

    def version(self) -> str:
        """Return ONNX Runtime's version, the precision and the number of threads."""
        return f"{onnxruntime.__version__} {self.precision} {torch.get_num_threads()}"

    def compile(self, model: bytes) -> OnnxRuntimeSession:
        """Compile a serialized ONNX model."""
        with temporary_files("tlkit-onnxruntime-") as folder:
            optimized = folder / "optimized.ort"
            session = _session(model, optimized)
            try:
                blob = optimized.read_bytes()
            except OSError:
                blob = None
        return OnnxRuntimeSession(session, blob)

    def restore(self, blob: bytes) -> OnnxRuntimeSession:
        """Return what was optimized."""
        return OnnxRuntimeSession(_session(blob, None), blob)


def _session(model: bytes, optimized: Path | None) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.log_severity_level = 4
    if optimized is not None:
        settings.optimized_model_filepath = str(optimized)
        settings.add_session_config_entry("session.save_model_format", "ORT")
    try:
        return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UnsupportedGraph(f"ONNX Runtime refuses the graph: {reason(error)}") from None


class OnnxRuntimeSession:
    """A session; ``blob`` is its optimized graph."""

    def __init__(self, session: Any, blob: bytes | None) -> None:
        self._session, self._blob = session, blob

    def bind(self, inputs: Sequence[Array]) -> Callable[[], Sequence[Array]]:
        """Return a call that runs on ``inputs``, which ONNX Runtime reads where they are."""
        given = {item.name: inputs[input_place([item.name])] for item in self._session.get_inputs()}

        def call() -> Sequence[Array]:
            try:
                found: Sequence[Array] = self._session.run(None, given)
            except Exception as error:
                raise ExecutionError(f"ONNX Runtime stopped: {reason(error)}") from None
            return found

        return call

    def blob(self) -> bytes | None:
        """Return the optimized graph; None from the second time on, since it is large."""
        blob, self._blob = self._blob, None
        return blob
