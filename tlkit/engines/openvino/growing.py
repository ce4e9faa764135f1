"""Functions whose caches grow, as language models' do: compiled once for any number of tokens, caches inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import openvino

from tlkit.engines.onnx.keep import Keep
from tlkit.engines.onnx.store import MappedEntry
from tlkit.engines.openvino.library import core, last_line
from tlkit.engines.openvino.program import BEAM, graph_of
from tlkit.engines.openvino.weights import GraphWeights
from tlkit.errors import ExecutionError, UnavailableError
from tlkit.host.allocator import give_back, trim
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
_STEADY = 2
"""Calls for one token, one after another, after which no more is read of the mapped weights."""
_OFTEN = 512
"""Tokens of prompts after which what OpenVINO freed is given back; a call for one token counts as ``_LEAST``."""
_LEAST = 32
_BREATH = 0.01  # seconds between releases while weights are packed


class _Releasable(Protocol):
    def release(self) -> None: ...


class GrowingSession:
    """One function: its first output is told, each other one is the input of the next call, in order.

    Inputs whose shapes have an open third axis and that come last are those caches; they are empty in the beginning.
    What was compiled is kept, its weights among it, and mapped the next time: nothing is decoded then.
    """

    def __init__(self, make: Callable[[], Function], keep: Keep) -> None:
        """Compile what ``make`` makes, or take what was kept; UnavailableError where OpenVINO does not take it."""
        self._make, self._keep = make, keep
        self._settings = {**_EXACT, "INFERENCE_NUM_THREADS": available_cpus()}
        self._what = f"growing {openvino.get_version()} {sorted(self._settings.items())}"
        self._whole: Future[bool] | None = None
        self._alike = 0  # calls for one token, one after another
        self._since = 0  # tokens since freed memory was given back
        entry = keep.mapped(self._what)
        if entry is None or not self._restored(entry, known=False):
            self._compile()

    def run(self, given: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return a copy of the first output; the caches have more rows after it."""
        count = len(next(iter(given.values())))
        self._alike = self._alike + 1 if count == 1 else 0
        self._tidied(count)
        try:
            if not self._packed:
                self._first({**given, **self._fixed})
            elif self._alike <= _STEADY:
                with _releasing(self._held):
                    self._request.infer({**given, **self._fixed})
            else:
                self._request.infer({**given, **self._fixed})
        except RuntimeError as error:
            raise ExecutionError(f"OpenVINO stopped: {last_line(error)}") from None
        return np.array(self._request.get_output_tensor(0).data, np.float32)

    def _tidied(self, count: int) -> None:
        """Give back what is free, after a prompt and now and then: every length of the caches has its own scratch
        memory, which leaves holes. Takes a millisecond, 10 after a prompt."""
        self._since += max(count, _LEAST)
        if self._packed and (self._alike == 1 or self._since > _OFTEN):
            self._since = 0
            trim()
            self._held.release()

    def keep(self, rows: int) -> None:
        """Keep the first ``rows`` rows of the caches."""
        for state in self._request.query_state():
            if not rows:
                state.reset()
                continue
            first = np.ascontiguousarray(state.state.data[:, :, :rows])
            state.state = openvino.Tensor(first)

    def _compile(self) -> None:
        function = self._make()
        kept = function.block.outputs[1:]
        names = [item.name for item in function.inputs[-len(kept) :]]
        weights = GraphWeights()
        try:
            with _releasing(weights), self._keep.beside() as folder:
                graph = graph_of(function, dict(zip(kept, names, strict=True)), weights)
                # OpenVINO writes what it compiled into a folder piece by piece; asked for it, it makes copies.
                settings = self._settings if folder is None else {**self._settings, "CACHE_DIR": str(folder)}
                compiled = core().compile_model(graph, "CPU", settings)
                del graph
                for file in [] if folder is None else folder.glob("*.blob"):
                    self._keep.store_file(self._what, file, _header(file))
        except RuntimeError as error:
            raise UnavailableError(f"OpenVINO refuses the model: {last_line(error)}", "use --engine torch") from None
        entry = self._keep.mapped(self._what)
        # What is mapped serves this time, too, in the place of the parts that the file was taken apart into.
        if entry is None or not self._restored(entry, known=True):
            self._begin(compiled, weights)

    def _restored(self, entry: MappedEntry, *, known: bool) -> bool:
        """Begin with what was kept, and return whether that went well; ``known`` spares the checksum."""
        memory = np.frombuffer(entry.memory, np.uint8)
        try:
            tensor = openvino.Tensor(memory, [len(memory)], openvino.Type.u8)
            compiled = core().import_model(tensor, "CPU", self._settings)
        except RuntimeError:
            self._keep.drop(self._what)
            return False
        self._begin(compiled, entry)
        if not known:
            # Read while the weights are packed; before that is known no result is told.
            pool = ThreadPoolExecutor(1)
            self._whole = pool.submit(entry.whole)
            pool.shutdown(wait=False)
        return True

    def _begin(self, compiled: Any, held: _Releasable) -> None:
        self._held, self._packed = held, False
        self._request = compiled.create_infer_request()
        found = {name for port in compiled.inputs for name in port.get_names()}
        self._fixed = {BEAM: np.zeros(1, np.int32)} if BEAM in found else {}

    def _first(self, given: Mapping[str, NDArray[Any]]) -> None:
        """Infer for the first time, which is what packs the weights: those not packed yet need not stay in memory."""
        with _releasing(self._held):
            self._request.infer(given)
        if self._whole is not None and not self._whole.result():
            self._whole = None
            self._keep.drop(self._what)
            self._compile()
            self._first(given)
            return
        self._packed = True
        give_back()


@contextmanager
def _releasing(held: _Releasable) -> Iterator[None]:
    """Give back the pages of mapped memory again and again, while it is read once from one end to the other."""
    done = Event()

    def work() -> None:
        while not done.wait(_BREATH):
            held.release()

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        held.release()


def _header(file: Path) -> int:
    """Return the bytes before what OpenVINO's plugin wrote into a file of its cache: one line of XML."""
    with file.open("rb") as opened:
        first = opened.readline(1 << 12)
    return len(first) if b"<compiled_blob" in first and first.endswith(b"\n") else -1
