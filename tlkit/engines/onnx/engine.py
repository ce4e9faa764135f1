"""An engine that runs a MIL function as an ONNX graph, by one of the runtimes.

A graph is made and compiled for each set of input shapes that is met, a bounded number of them. Making it costs one
inference by PyTorch, which shows the shapes and is watched for values that are too large (``mil/lower/guard.py``).
What was compiled is kept (``keep.py``), and then neither is needed. States are inputs and outputs of the graph, and
stay in the tensors of :class:`~tlkit.engines.torch.engine.State`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.engines.engine import HowToRun, Loadable
from tlkit.engines.labels import presenters
from tlkit.engines.onnx.keep import LARGE, Keep, size_of
from tlkit.engines.onnx.kit.graph import UnsupportedGraph
from tlkit.engines.onnx.runtime import Array, BoundGraph, CompiledGraph, Runtime
from tlkit.engines.told import slowly
from tlkit.errors import ExecutionError, TlkitError, UnavailableError, reason
from tlkit.host.forked import use_one_thread
from tlkit.mil.program import StateType, TensorType
from tlkit.mil.types import DType

if TYPE_CHECKING:
    from tlkit.engines.torch.engine import TorchEngine
    from tlkit.engines.torch.state import State

Shapes = tuple[tuple[int, ...], ...]
Place = tuple[list[Array], BoundGraph]
"""Inputs that a runtime reads where they are, and the call that runs on them."""
_KEPT = 8
"""Compiled graphs that are held, each for one set of shapes."""
_TOGETHER = 16
"""Rows that are in a runtime's queue at one time, for each thread that runs rows."""


class GraphEngine:
    """Runs one function of a model on the CPU. Arrays in and out are numpy's, as :class:`TorchEngine`'s are."""

    def __init__(
        self, model: Loadable, settings: HowToRun, title: str, make: Callable[[], Runtime], key: str, keep: Keep
    ) -> None:
        """``make`` imports the runtime, when it is first needed; ``key`` says what a compiled graph depends on."""
        self.name = title
        self._make, self._settings, self._keep, self._version = make, settings, keep, key
        self._shaped, self._size = model.shaped, size_of(model)
        self._function = model.program() if model.shaped is None else model.shaped(None)
        self._present: Mapping[str, Callable[[Any], Any]] | None = None  # a look at every operation: once
        self._rounding = settings.precision == "f16"
        self._sessions: dict[Shapes, CompiledGraph] = {}
        self._reference: TorchEngine | None = None
        self._places: tuple[Shapes, list[Place]] = ((), [])
        self._turn = Lock()

    def make_state(self) -> State:
        """Return a fresh state: a tensor of zeros for each of the function's states."""
        return self._torch().make_state()

    def run(self, arrays: Mapping[str, Any], state: State | None = None) -> dict[str, Any]:
        """Run once; return the outputs by name: numpy arrays, and a classifier's label and {label: probability}."""
        if not self._stateful:
            return self._presented(self._together([arrays])[0])
        with self._turn:
            return self._presented([np.array(value) for value in self.bind(arrays, state)()])

    def run_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Run on each of ``rows``; a runtime that has a queue gets several of them at once. States begin anew."""
        if self._stateful:
            return [self.run(row) for row in rows]
        parts = (self._together(rows[start : start + _TOGETHER]) for start in range(0, len(rows), _TOGETHER))
        return [self._presented(found) for part in parts for found in part]

    def _together(self, rows: Sequence[Mapping[str, Any]]) -> list[list[Array]]:
        """Return copies of the outputs for each of ``rows``. Inputs are copied to where an earlier inference of these
        shapes had them: what a runtime prepares for a place, memory for each value among it, is prepared once. Several
        rows or threads at once have a place each."""
        begun: list[tuple[Shapes, Place]] = []
        found: list[list[Array]] = []
        try:
            for arrays in rows:
                place = self._place(_shapes(arrays), arrays)
                begun.append((_shapes(arrays), place))
                place[1].begin()
            for shapes, place in begun:
                found.append([np.array(value) for value in place[1]()])
                with self._turn:
                    if self._places[0] == shapes:
                        self._places[1].append(place)
        finally:
            for _, (_, call) in begun[len(found) :]:  # after an error: they read their inputs until they are done
                with suppress(ExecutionError):
                    call()
        return found

    def _presented(self, found: list[Array]) -> dict[str, Any]:
        if self._present is None:
            self._present = presenters(self._function)
        present = self._present
        named = zip(self._function.block.outputs, found, strict=True)
        return {name: present[name](value) if name in present else _ranked(value) for name, value in named}

    @property
    def _stateful(self) -> bool:
        return any(isinstance(item.type, StateType) for item in self._function.inputs)

    def _place(self, shapes: Shapes, arrays: Mapping[str, Any]) -> Place:
        """Return a place that nobody uses, with the inputs in it."""
        with self._turn:
            if self._places[0] != shapes or shapes not in self._sessions:
                self._places = (shapes, [])
            free = self._places[1].pop() if self._places[1] else None
            if free is None:
                use_one_thread()
                session = self._session(arrays)
                own = self._inputs(arrays, None)
                return own, session.bind(own)
        for place, item in enumerate(self._function.inputs):
            self._carry(arrays[item.name], item.type, free[0][place])
        return free

    def streams(self, arrays: Mapping[str, Any]) -> int:
        """Return how many inferences on inputs like these run at once with the most throughput."""
        with self._turn:
            return 1 if self._stateful else self._session(arrays).streams

    def bind(self, arrays: Mapping[str, Any], state: State | None = None) -> Callable[[], Sequence[Array]]:
        """Convert the inputs once, compiling if that is needed; return a call that runs exactly one inference."""
        use_one_thread()
        session = self._session(arrays)
        states = [item.name for item in self._function.inputs if isinstance(item.type, StateType)]
        inputs = self._inputs(arrays, (state or self.make_state()) if states else None)
        call = session.bind(inputs)
        if not states:
            return call
        count = len(self._function.block.outputs)
        places = {item.name: place for place, item in enumerate(self._function.inputs)}

        def updating() -> Sequence[Array]:
            found = call()
            for name, value in zip(states, found[count:], strict=True):
                inputs[places[name]][...] = value
            return found[:count]

        return updating

    def _inputs(self, arrays: Mapping[str, Any], state: State | None) -> list[Array]:
        """Return the graph's inputs in order: copies of ``arrays``, and the tensors of ``state``."""
        return [
            _held(state, item.name, item.type.wrapped)
            if state is not None and isinstance(item.type, StateType)
            else self._carried(arrays[item.name], item.type)
            for item in self._function.inputs
        ]

    def ready(self, arrays: Mapping[str, Any]) -> bool:
        """Whether inputs of these shapes would run without anything being compiled."""
        shapes = _shapes(arrays)
        return shapes in self._sessions or self._keep.has(self._key(shapes))

    def forget(self, arrays: Mapping[str, Any]) -> None:
        """Keep nothing of what was compiled for inputs of these shapes."""
        shapes = _shapes(arrays)
        self._sessions.pop(shapes, None)
        self._keep.drop(self._key(shapes))

    def _key(self, shapes: Shapes) -> str:
        return f"{self._version} {shapes}"

    @cached_property
    def _runtime(self) -> Runtime:
        return self._make()

    def _session(self, arrays: Mapping[str, Any]) -> CompiledGraph:
        shapes = _shapes(arrays)
        found = self._sessions.get(shapes)
        if found is None:
            if len(self._sessions) >= _KEPT:
                self._sessions.pop(next(iter(self._sessions)))
            if self._shaped is not None:
                named = {name: tuple(array.shape) for name, array in arrays.items()}
                self._function, self._reference, self._present = self._shaped(named), None, None
            found = self._restored(shapes)
            if found is None:
                with slowly(f"compiling for {self.name}"):
                    found = self._compiled(arrays, shapes)
            self._sessions[shapes] = found
        return found

    def _restored(self, shapes: Shapes) -> CompiledGraph | None:
        """Return what an earlier process compiled, or None."""
        blob = self._keep.load(self._key(shapes))
        if blob is None:
            return None
        try:
            return self._runtime.restore(blob)
        except UnsupportedGraph:
            self._keep.drop(self._key(shapes))
            return None

    def _compiled(self, arrays: Mapping[str, Any], shapes: Shapes) -> CompiledGraph:
        # What was compiled before needs none of it.
        from tlkit.engines.onnx.lower.lower import ShapeRecorder, lower_to_onnx
        from tlkit.engines.onnx.selftest import spelling_for  # nor of this
        from tlkit.mil.ops.kit.narrow import giving_back, mark_of

        spelling = spelling_for(self._runtime)
        if spelling is None:
            raise UnavailableError(
                f"{self._runtime.name} {self._runtime.version()} does not keep f16's rounding on this machine",
                "use --engine eager, or --precision f32",
            )
        reference = self._torch()
        recorder = ShapeRecorder(reference.module)
        try:
            reference.through(recorder, arrays)
        except TlkitError:
            raise
        except Exception as error:
            reference.run(arrays)  # which says where it fails
            raise ExecutionError(reason(error)) from error
        graph = lower_to_onnx(reference.module, self._function, recorder, spelling)
        narrow = [item for item in reference.module.buffers() if mark_of(item) is not None]
        # Its weights are the session's from now on, and each copy has the size of the model.
        self._reference = reference = recorder = None  # type: ignore[assignment]
        keep = self._keep.keeps and self._size <= LARGE
        with giving_back(narrow):
            session = self._runtime.compile(graph.model(), keep=keep)
        if keep:
            self._keep.store(self._key(shapes), session.blob)
        return session

    def _torch(self) -> TorchEngine:
        """Return the reference: made when it is needed, and let go once a graph is compiled."""
        if self._reference is None:
            # Here and not above: what was compiled before runs without PyTorch, which takes a second to import.
            from tlkit.engines.torch.engine import TorchEngine

            precision = "f16" if self._rounding else "f32"
            self._reference = TorchEngine(self._function, precision=precision, strict_mil=self._settings.strict_mil)
        return self._reference

    def _carried(self, array: Any, kind: Any) -> Array:
        """Return an input in its carrier, rounded where the port is f16; always a copy."""
        assert isinstance(kind, TensorType)
        found = np.array(array, kind.dtype.carrier, order="C").reshape(() if kind.shape == () else np.shape(array))
        if kind.dtype is DType.FP16 and self._rounding:
            with np.errstate(over="ignore"):
                return found.astype(np.float16).astype(np.float32)
        return found

    def _carry(self, array: Any, kind: Any, place: Array) -> None:
        """Copy an input to the place of an earlier one."""
        half = kind.dtype is DType.FP16 and self._rounding
        place[...] = (self._carried(array, kind) if half else np.asarray(array)).reshape(place.shape)


def _held(state: State, name: str, kind: TensorType) -> Array:
    from tlkit.engines.torch.state import held

    return held(state, name, kind).numpy()


def _shapes(arrays: Mapping[str, Any]) -> Shapes:
    return tuple(tuple(np.shape(array)) for array in arrays.values())


def _ranked(value: Array) -> Array:
    """Return an output; Core ML has no rank 0."""
    return value.reshape(value.shape or (1,))
