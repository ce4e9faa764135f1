"""Functions whose caches grow, as language models' do: compiled once for any number of tokens, caches inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino

from tlkit.engines.openvino.library import core, last_line
from tlkit.engines.openvino.program import BEAM, graph_of
from tlkit.engines.openvino.weights import GraphWeights
from tlkit.errors import ExecutionError, UnavailableError
from tlkit.host.allocator import give_back
from tlkit.host.machine import available_cpus
from tlkit.mil.program import Function

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "PERFORMANCE_HINT": "LATENCY",
    # By default OpenVINO rounds what it multiplies with compressed weights, and what it caches, to 8 bits.
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    "KV_CACHE_PRECISION": "f32",
}


class GrowingSession:
    """One function: its first output is told, each other one is the input of the next call, in order.

    Inputs whose shapes have an open third axis and that come last are those caches; they are empty in the beginning.
    """

    def __init__(self, function: Function) -> None:
        """Compile ``function``; UnavailableError where OpenVINO does not take it."""
        kept = function.block.outputs[1:]
        names = [item.name for item in function.inputs[-len(kept) :]]
        weights = GraphWeights()
        settings = {**_EXACT, "INFERENCE_NUM_THREADS": available_cpus()}
        try:
            graph = graph_of(function, dict(zip(kept, names, strict=True)), weights)
            compiled = core().compile_model(graph, "CPU", settings)
        except RuntimeError as error:
            raise UnavailableError(f"OpenVINO refuses the model: {last_line(error)}", "use --engine torch") from None
        self._weights, self._packed = weights, False
        weights.release()
        self._request = compiled.create_infer_request()
        found = {name for port in compiled.inputs for name in port.get_names()}
        self._fixed = {BEAM: np.zeros(1, np.int32)} if BEAM in found else {}

    def run(self, given: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return a copy of the first output; the caches have more rows after it."""
        try:
            self._request.infer({**given, **self._fixed})
        except RuntimeError as error:
            raise ExecutionError(f"OpenVINO stopped: {last_line(error)}") from None
        found = np.array(self._request.get_output_tensor(0).data, np.float32)
        if not self._packed:
            # The first call is what packs the weights.
            self._packed = True
            self._weights.release()
            give_back()
        return found

    def keep(self, rows: int) -> None:
        """Keep the first ``rows`` rows of the caches."""
        for state in self._request.query_state():
            if not rows:
                state.reset()
                continue
            first = np.ascontiguousarray(state.state.data[:, :, :rows])
            state.state = openvino.Tensor(first)
