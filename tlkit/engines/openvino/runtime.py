"""OpenVINO as a runtime of ONNX graphs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from tlkit.engines.onnx.keep import LARGE
from tlkit.engines.onnx.kit.graph import OnnxModel, Spelling, UnsupportedGraph, input_place
from tlkit.engines.onnx.runtime import Array
from tlkit.engines.openvino.kernels import faster
from tlkit.engines.openvino.library import core, last_line, openvino
from tlkit.engines.openvino.marks import marked
from tlkit.errors import ExecutionError, UnavailableError
from tlkit.host.machine import threads


class OpenVINORuntime:
    """Compiles for the CPU, for one inference at a time or several, with as many threads as PyTorch has."""

    name = "OpenVINO"

    def __init__(self, precision: str, streams: int = 1) -> None:
        self.precision, self.streams = precision, streams
        if precision == "bf16" and not has_bf16():
            raise UnavailableError(
                "this processor computes no bf16: OpenVINO would compute in f32", "use --precision f32"
            )

    @property
    def spellings(self) -> tuple[Spelling, ...]:
        """f16's rounding as casts (``marks.py``), and as arithmetic for an OpenVINO that removes casts all the same."""
        ways = ("casts", "arithmetic") if self.precision == "f16" else ("",)
        return tuple(Spelling(rounding, careful=rounding != "", attention=True) for rounding in ways)

    def version(self) -> str:
        """Return OpenVINO's version, the precision and the number of threads."""
        return f"{openvino.get_version()} {self.precision} {threads()}"

    def compile(self, model: OnnxModel, *, keep: bool = True) -> OpenVINOSession:
        """Compile an ONNX model; OpenVINO reads large constants where they lie."""
        try:
            return OpenVINOSession(self._fastest(model.with_inputs(model.apart), model.apart))
        except RuntimeError as error:
            raise UnsupportedGraph(f"OpenVINO refuses the graph: {last_line(error)}") from None

    def _fastest(self, message: bytes, apart: Mapping[str, Array]) -> Any:
        def compiled(blocked: bool = False) -> Any:
            return core().compile_model(_read(message, apart, blocked), "CPU", self._settings())

        if sum(array.nbytes for array in apart.values()) > LARGE:
            return compiled()  # there is no memory to try with
        return faster(compiled(), lambda: compiled(blocked=True))

    def restore(self, blob: bytes) -> OpenVINOSession:
        """Return what was exported."""
        try:
            return OpenVINOSession(core().import_model(io.BytesIO(blob), "CPU", self._settings()))
        except RuntimeError as error:
            raise UnsupportedGraph(f"OpenVINO refuses what it compiled before: {last_line(error)}") from None

    def _settings(self) -> dict[str, Any]:
        computed = "bf16" if self.precision == "bf16" else "f32"
        found = {"INFERENCE_PRECISION_HINT": computed, "INFERENCE_NUM_THREADS": threads()}
        found["PERFORMANCE_HINT"] = "LATENCY" if self.streams == 1 else "THROUGHPUT"
        return found | ({"NUM_STREAMS": min(self.streams, threads())} if self.streams > 1 else {})


def _read(message: bytes, apart: Mapping[str, Array], blocked: bool) -> Any:
    """Return OpenVINO's model, marked, and with its large constants, which are not copied, instead of inputs."""
    read = marked(core().read_model(message), blocked=blocked)
    for parameter in read.get_parameters():
        if parameter.get_friendly_name() in apart:
            constant = openvino.op.Constant(apart[parameter.get_friendly_name()], shared_memory=True)
            for user in parameter.output(0).get_target_inputs():
                if user.get_node().get_type_name() == "Convert":
                    # So OpenVINO marks weights that are f16 in the file: it packs them as they are, without f32 copies.
                    user.get_node().get_rt_info()["decompression_0"] = ""
            parameter.output(0).replace(constant.output(0))
            read.remove_parameter(parameter)
    return read


class BoundRequest:
    """An inference on inputs that lie where they are; several of them wait in OpenVINO's queue once they have begun."""

    def __init__(self, compiled: Any, inputs: Sequence[Array]) -> None:
        self._request, self._inputs, self._begun = compiled.create_infer_request(), inputs, False
        for place, port in enumerate(compiled.inputs):
            array = inputs[input_place(port.names)]
            self._request.set_input_tensor(place, openvino.Tensor(array, shared_memory=True))
        self._count = len(compiled.outputs)

    def begin(self) -> None:
        """Begin an inference; the next call waits for it."""
        try:
            self._request.start_async(share_inputs=True)
        except RuntimeError as error:
            raise ExecutionError(f"OpenVINO stopped: {last_line(error)}") from None
        self._begun = True

    def __call__(self) -> Sequence[Array]:
        """Return the outputs. OpenVINO's ``infer`` does the same and makes a dictionary of them, which takes as long as
        all of this."""
        if not self._begun:
            self.begin()
        self._begun = False
        try:
            self._request.wait()
        except RuntimeError as error:
            raise ExecutionError(f"OpenVINO stopped: {last_line(error)}") from None
        return [self._request.get_output_tensor(place).data for place in range(self._count)]


class OpenVINOSession:
    """A compiled model."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self.streams: int = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")

    def bind(self, inputs: Sequence[Array]) -> BoundRequest:
        """Return a call that infers on ``inputs``, which share their memory with OpenVINO's tensors."""
        return BoundRequest(self._compiled, inputs)

    def blob(self) -> bytes | None:
        """Return the compiled model."""
        exported: bytes = self._compiled.export_model().getvalue()
        return exported


@cache
def has_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this processor."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
