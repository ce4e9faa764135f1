"""What an ONNX runtime is asked for: to compile a graph, to keep what it compiled, and to take that back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tlkit.engines.onnx.kit.graph import OnnxModel, Spelling

Array = np.ndarray[Any, Any]


class BoundGraph(Protocol):
    """A call that runs once on the inputs that it was bound to."""

    def __call__(self) -> Sequence[Array]:
        """Run, or wait for the run that was begun; return the outputs, valid until the next one begins."""

    def begin(self) -> None:
        """Begin a run without waiting for it, where the runtime can; the next call waits."""


class CompiledGraph(Protocol):
    """A compiled graph."""

    def bind(self, inputs: Sequence[Array]) -> BoundGraph:
        """Return a call that runs once on ``inputs``, which are read at each call."""

    streams: int
    """How many inferences it runs at once with the most throughput: 1 where it was compiled for latency."""

    def blob(self) -> bytes | None:
        """Return the compiled graph for :meth:`Runtime.restore`, or None where it cannot be kept."""


class Runtime(Protocol):
    """A library that runs ONNX graphs on the CPU."""

    name: str
    precision: str

    @property
    def spellings(self) -> tuple[Spelling, ...]:
        """How graphs may be spelt for it, the best first: ``selftest.py`` says which holds."""

    def version(self) -> str:
        """Return the library's version and settings: what it compiles for another one is of no use."""

    def compile(self, model: OnnxModel, *, keep: bool = True) -> CompiledGraph:
        """Compile an ONNX model; UnsupportedGraph where the library refuses it. ``keep`` says that :meth:`blob` of what
        is compiled will be asked for."""

    def restore(self, blob: bytes) -> CompiledGraph:
        """Return what :meth:`CompiledGraph.blob` gave; UnsupportedGraph where the library refuses it."""
