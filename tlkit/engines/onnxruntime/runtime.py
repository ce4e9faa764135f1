"""ONNX Runtime as a runtime of ONNX graphs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tlkit.engines.onnx.kit.graph import OnnxModel, Spelling, UnsupportedGraph, input_place
from tlkit.engines.onnx.runtime import Array
from tlkit.errors import ExecutionError, reason
from tlkit.host.machine import threads
from tlkit.host.scratch import temporary_files

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime


class OnnxRuntime:
    """Compiles for the CPU, with as many threads as PyTorch has."""

    name = "ONNX Runtime"

    def __init__(self, precision: str, streams: int = 1) -> None:
        self.precision, self.streams = precision, min(streams or threads(), threads())

    @property
    def spellings(self) -> tuple[Spelling, ...]:
        """f16's rounding as casts: ONNX Runtime does them as they are, and does not fuse arithmetic."""
        return (Spelling("casts" if self.precision == "f16" else ""),)

    def version(self) -> str:
        """Return ONNX Runtime's version, the precision and the number of threads."""
        return f"{onnxruntime.__version__} {self.precision} {threads()}"

    def compile(self, model: OnnxModel, *, keep: bool = True) -> OnnxRuntimeSession:
        """Compile an ONNX model; ONNX Runtime reads large constants where they lie."""
        from onnx import TensorProto

        for tensor in model.message.graph.initializer:
            if tensor.name in model.apart:
                tensor.data_location = TensorProto.EXTERNAL
                tensor.external_data.add(key="location", value=tensor.name)
        held = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in model.apart.items()}
        data = model.message.SerializeToString()
        if not keep:
            return OnnxRuntimeSession(_session(data, None, self.streams, held), None, self.streams, held)
        with temporary_files("tlkit-onnxruntime-") as folder:
            optimized = folder / "optimized.ort"
            session = _session(data, optimized, self.streams, held)
            try:
                blob = optimized.read_bytes()
            except OSError:
                blob = None
        return OnnxRuntimeSession(session, blob, self.streams, held)

    def restore(self, blob: bytes) -> OnnxRuntimeSession:
        """Return what was optimized."""
        return OnnxRuntimeSession(_session(blob, None, self.streams), blob, self.streams)


def _session(model: bytes, optimized: Path | None, streams: int, held: Mapping[str, Any] | None = None) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = max(1, threads() // streams)
    settings.log_severity_level = 4
    if optimized is not None:
        settings.optimized_model_filepath = str(optimized)
        settings.add_session_config_entry("session.save_model_format", "ORT")
    if held:
        settings.add_external_initializers(list(held), list(held.values()))
    try:
        return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UnsupportedGraph(f"ONNX Runtime refuses the graph: {reason(error)}") from None


class OnnxRuntimeSession:
    """A session; ``blob`` is its optimized graph, ``held`` the constants that it reads where they lie."""

    def __init__(self, session: Any, blob: bytes | None, streams: int, held: Mapping[str, Any] | None = None) -> None:
        self._session, self._blob, self.streams, self._held = session, blob, streams, held

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
