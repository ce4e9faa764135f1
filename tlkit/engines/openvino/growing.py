"""Functions whose caches grow, as language models' do: compiled once for any number of tokens, caches inside."""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tlkit.engines.onnx.keep import Keep
from tlkit.engines.onnx.store import MappedEntry
from tlkit.engines.openvino.library import core, last_line, openvino
from tlkit.engines.openvino.program import BEAM, graph_of
from tlkit.engines.openvino.weights import GraphWeights
from tlkit.errors import ExecutionError, UnavailableError
from tlkit.host.allocator import give_back, part_with_freed, trim
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
_BEFORE = "before_"
"""What the names of rows that are handed in begin with; a cache's name follows."""
_PRIVATE = {} if sys.platform == "win32" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
_STEADY = 2
"""Calls for one token, one after another, after which no more is read of the mapped weights."""
_OFTEN = 512
"""Tokens of prompts after which what OpenVINO freed is given back; a call for one token counts as ``_LEAST``."""
_LEAST = 32
_BREATH = 0.01  # seconds between releases while weights are packed


class _Releasable(Protocol):
    def release(self) -> None: ...


class GrowingSession:
    """One function: its first output is told, the others are for the next call.

    Its last inputs are N caches whose rows grow along the third axis, and before them N rows of the same that are
    handed in; its outputs after the first are N caches with this call's rows, and N times these rows alone. A call has
    its rows in one of both places: inside OpenVINO, or here. They are moved when that changes.

    What was compiled is kept, its weights among it, and mapped the next time: nothing is decoded then.
    """

    _inside: bool
    _rows: dict[str, NDArray[np.float32]]
    _states: dict[str, Any]

    def __init__(self, make: Callable[[], Function], keep: Keep) -> None:
        """Compile what ``make`` makes, or take what was kept; UnavailableError where OpenVINO does not take it."""
        part_with_freed()
        self._make, self._keep = make, keep
        self._settings = {**_EXACT, "INFERENCE_NUM_THREADS": available_cpus()}
        self._what = f"growing {openvino.get_version()} {sorted(self._settings.items())}"
        self._whole: Future[bool] | None = None
        self._alike = 0  # calls for one token, one after another
        self._since = 0  # tokens since freed memory was given back
        entry = keep.mapped(self._what)
        if entry is None or not self._restored(entry, known=False):
            self._compile()

    def run(self, given: Mapping[str, NDArray[Any]], kept: int, *, inside: bool) -> NDArray[np.float32]:
        """Return a copy of the first output. The first ``kept`` of this call's rows are for later calls; those from
        ``inside`` have no others."""
        count = len(next(iter(given.values())))
        self._alike = self._alike + 1 if count == 1 else 0
        self._tidied(count)
        self._moved(inside=inside)
        try:
            if not self._packed:
                self._first(given)
            elif self._alike <= _STEADY:
                with _releasing(self._held):
                    self._infer(given)
            else:
                self._infer(given)
            if not inside:
                self._added(kept)
        except RuntimeError as error:
            raise ExecutionError(f"OpenVINO stopped: {last_line(error)}") from None
        return np.array(self._request.get_output_tensor(0).data, np.float32)

    def _infer(self, given: Mapping[str, NDArray[Any]]) -> None:
        for name, values in given.items():
            self._request.set_tensor(name, openvino.Tensor(values, shared_memory=True))
        self._request.start_async()
        self._request.wait()

    def _added(self, kept: int) -> None:
        """Take a call's rows behind those that are handed in."""
        for place, name in enumerate(self._rows):
            new = self._request.get_output_tensor(1 + place).data[:, :, :kept]
            self._hand(name, _together(self._rows[name], new))

    def _moved(self, *, inside: bool) -> None:
        """Have the caches where the next call looks for them."""
        if inside == self._inside:
            return
        self._inside = inside
        for name, state in self._states.items():
            rows = self._rows[name]
            none = rows[:, :, :0].copy()
            if inside:
                state.state = openvino.Tensor(rows, shared_memory=True)
                self._hand(name, none)
            else:
                self._hand(name, _together(state.state.data))
                state.state = openvino.Tensor(none, shared_memory=True)
        trim()

    def _hand(self, name: str, rows: NDArray[np.float32]) -> None:
        self._rows[name] = rows
        self._request.set_tensor(_BEFORE + name, openvino.Tensor(rows, shared_memory=True))

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
        for name, state in self._states.items():
            if not self._inside:
                self._hand(name, _together(self._rows[name][:, :, :rows]))
            elif rows:
                # OpenVINO copies what it is given, and would hold on to a tensor of its own.
                first = _together(state.state.data[:, :, :rows])
                state.state = openvino.Tensor(first, shared_memory=True)
            else:
                state.reset()

    def _compile(self) -> None:
        function = self._make()
        kept = function.block.outputs[1 : 1 + len(function.block.outputs) // 2]
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
        except (RuntimeError, TypeError):  # before 2025.4 OpenVINO imports no memory
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
        self._held, self._packed, self._inside = held, False, True
        self._request = compiled.create_infer_request()
        shapes = {port.any_name: port.partial_shape for port in compiled.inputs}
        if BEAM in shapes:
            self._beam = np.zeros(1, np.int32)
            self._request.set_tensor(BEAM, openvino.Tensor(self._beam, shared_memory=True))
        empty = {
            name: [0 if item.is_dynamic else item.get_length() for item in shape] for name, shape in shapes.items()
        }
        self._rows = {}
        for name in [name.removeprefix(_BEFORE) for name in shapes if name.startswith(_BEFORE)]:
            self._hand(name, np.zeros(empty[_BEFORE + name], np.float32))
        self._states = {state.name: state for state in self._request.query_state()}

    def _first(self, given: Mapping[str, NDArray[Any]]) -> None:
        """Infer for the first time, which is what packs the weights: those not packed yet need not stay in memory."""
        with _releasing(self._held):
            self._infer(given)
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


def _together(*parts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows behind rows, in memory that goes back to the system as soon as they are not held any more."""
    shape = (*parts[0].shape[:2], sum(part.shape[2] for part in parts), parts[0].shape[3])
    memory = mmap.mmap(-1, max(4 * math.prod(shape), 1), **_PRIVATE)
    found = np.frombuffer(memory, np.float32, math.prod(shape)).reshape(shape)
    return np.concatenate(parts, 2, out=found)


def _header(file: Path) -> int:
    """Return the bytes before what OpenVINO's plugin wrote into a file of its cache: one line of XML."""
    with file.open("rb") as opened:
        first = opened.readline(1 << 12)
    return len(first) if b"<compiled_blob" in first and first.endswith(b"\n") else -1
