"""ONNX Runtime as a runtime of ONNX graphs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.engines.onnx.keep import LARGE
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
        """Compile an ONNX model; ONNX Runtime reads large constants where they lie.

        The f16 weights of a large model are inputs, which each inference widens one by one: as constants they would
        all be widened, transposed and packed, each time into a copy.
        """
        from onnx import TensorProto

        narrow = {name: array for name, array in model.apart.items() if array.dtype == np.float16}
        if sum(array.nbytes for array in narrow.values()) <= LARGE:
            narrow = {}
        for tensor in model.message.graph.initializer:
            if tensor.name in model.apart and tensor.name not in narrow:
                tensor.data_location = TensorProto.EXTERNAL
                tensor.external_data.add(key="location", value=tensor.name)
        held = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(array)
            for name, array in model.apart.items()
            if name not in narrow
        }
        if narrow:
            _widen_late(model.message.graph)
        data = model.with_inputs(narrow)
        if narrow or not keep:
            session = _session(data, None, self.streams, held, planned=not narrow)
            return OnnxRuntimeSession(session, None, self.streams, held, narrow)
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


def _widen_late(graph: Any) -> None:
    """Move what widens weights to the front of the graph.

    ONNX Runtime orders nodes from the outputs back, and what comes later in the graph first: so it widens a weight when
    all else that its product needs is there, and else it would widen all of them before the first product.
    """
    known = {item.name for item in graph.initializer}
    first: list[Any] = []
    then: list[Any] = []
    for node in graph.node:
        early = bool(node.input) and all(name in known for name in node.input)
        known.update(node.output if early else ())
        (first if early else then).append(node)
    del graph.node[:]
    graph.node.extend([*first, *then])


def _session(
    model: bytes, optimized: Path | None, streams: int, held: Mapping[str, Any] | None = None, *, planned: bool = True
) -> Any:
    """Return a session; ``planned`` lets it keep one block of memory for all values of an inference."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = max(1, threads() // streams)
    settings.log_severity_level = 4
    settings.enable_mem_pattern = planned
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
    """A session; ``blob`` is its optimized graph, ``held`` the constants that it reads where they lie, and ``narrow``
    those that are given to it as inputs."""

    def __init__(
        self,
        session: Any,
        blob: bytes | None,
        streams: int,
        held: Mapping[str, Any] | None = None,
        narrow: Mapping[str, Array] | None = None,
    ) -> None:
        self._session, self._blob, self.streams, self._held = session, blob, streams, held
        self._narrow = narrow or {}

    def bind(self, inputs: Sequence[Array]) -> BoundSession:
        """Return a call that runs on ``inputs``, which ONNX Runtime reads where they are."""
        asked = [item.name for item in self._session.get_inputs()]
        given = {name: self._narrow[name] if name in self._narrow else inputs[input_place([name])] for name in asked}
        return BoundSession(self._session, given)

    def blob(self) -> bytes | None:
        """Return the optimized graph; None from the second time on, since it is large."""
        blob, self._blob = self._blob, None
        return blob


class BoundSession:
    """A run on inputs that lie where they are."""

    def __init__(self, session: Any, given: Mapping[str, Array]) -> None:
        self._session, self._given = session, given

    def begin(self) -> None:
        """Do nothing: ONNX Runtime computes in the thread that calls it."""

    def __call__(self) -> Sequence[Array]:
        """Run, and return the outputs."""
        try:
            found: Sequence[Array] = self._session.run(None, self._given)
        except Exception as error:
            raise ExecutionError(f"ONNX Runtime stopped: {reason(error)}") from None
        return found
