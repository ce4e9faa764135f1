"""The engine that ``auto`` loads: PyTorch for the first inferences, and what is faster once that pays.

A graph compiler takes seconds, which one inference never earns back. So PyTorch eager runs the first inferences of a
model, unless what was compiled before lies in the cache; the graph is compiled when more follow, or at once where
inputs are bound to be run again and again. Which engine that is takes a look at the program's operations. What an
engine refuses nevertheless, the next one gets, and PyTorch in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tlkit.engines.engine import Allocation, Engine, HowToRun, Loadable
from tlkit.engines.onnx.engine import GraphEngine
from tlkit.engines.onnx.kind import GraphKind
from tlkit.engines.onnx.kit.graph import UnsupportedGraph
from tlkit.engines.torch.kind import TorchKind
from tlkit.errors import LoadError, UnavailableError
from tlkit.mil.program import Function, walk

FIRST = 2
"""Inferences by PyTorch before compiling pays."""


class AutoEngine:
    """Runs a model by PyTorch or by one of ``candidates``; ``why`` says in words which one, and for what reason."""

    name = "auto"

    def __init__(self, model: Loadable, settings: HowToRun, candidates: Sequence[GraphKind], torch: TorchKind) -> None:
        self._model, self._settings, self._torch_kind = model, settings, torch
        self._eager: Engine | None = None
        self._fast: Engine | None = None
        self._kind: GraphKind | None = None
        self._left = list(candidates)
        self._count = 0
        self.why = "PyTorch, eager: no faster engine is installed for this"
        if self._left:
            self._consider(model)
        if not self._left and settings.precision != "bf16":
            self._torch()  # errors appear now

    def _consider(self, model: Loadable) -> None:
        """Drop all candidates for a program that has no graph."""
        # Only where a faster engine is installed: the lowerings take a while to import.
        from tlkit.engines.onnx.lower.lower import unsupported

        function = model.program() if model.shaped is None else _at_ports(model)
        if function is None:
            self._left.clear()
            return
        found = unsupported(function, strict=self._settings.strict_mil) or _loop(function)
        if found:
            self.why = f"PyTorch, eager: '{found}' has no counterpart in ONNX here"
            self._left.clear()
        else:
            self.why = "PyTorch, eager, for the first inferences"

    def make_state(self) -> Any:
        """Return a fresh state."""
        return (self._fast or self._torch()).make_state()

    def run(self, arrays: Mapping[str, Any], state: Any = None) -> dict[str, Any]:
        """Run once; return the outputs by name."""
        engine = self._engine(arrays, self._count >= FIRST)
        self._count += 1
        while True:
            try:
                return engine.run(arrays, state)
            except (UnsupportedGraph, UnavailableError) as error:
                engine = self._next(engine, error)

    def bind(self, arrays: Mapping[str, Any], state: Any = None) -> Callable[[], Any]:
        """Convert the inputs once, compiling if that is needed; return a call that runs exactly one inference."""
        engine = self._engine(arrays, True)
        while True:
            try:
                return engine.bind(arrays, state)
            except (UnsupportedGraph, UnavailableError) as error:
                engine = self._next(engine, error)

    def _engine(self, arrays: Mapping[str, Any], pays: bool) -> Engine:
        """Return the engine for an inference; ``pays`` says that compiling is worth it."""
        while self._fast is None and self._left:
            kind = self._left[0]
            try:
                made = kind.load(self._model, self._settings)
            except (LoadError, UnavailableError) as error:
                self._give_up(error.message)
                continue
            assert isinstance(made, GraphEngine)
            if not (pays or self._settings.precision == "bf16" or made.ready(arrays)):
                return self._torch()
            self._fast, self._kind, self._eager = made, kind, None
            self.why = f"{kind.title}: the fastest that is installed and takes this program"
        return self._fast or self._torch()

    def _next(self, engine: Engine, error: LoadError | UnavailableError) -> Engine:
        """Return the engine after one that refused; raise the error where that was PyTorch."""
        if engine is not self._fast:
            raise error
        self._give_up(error.message)
        if self._left:
            return self._next_loaded()
        if self._settings.precision == "bf16":
            raise error
        return self._torch()

    def _next_loaded(self) -> Engine:
        self._kind = self._left[0]
        self._fast = self._kind.load(self._model, self._settings)
        return self._fast

    def _give_up(self, message: str) -> None:
        refused = self._left.pop(0)
        self._fast = self._kind = None
        self.why = f"PyTorch, eager: {refused.title} was left out: {message}"

    def _torch(self) -> Engine:
        if self._eager is None:
            self._eager = self._torch_kind.load(self._model, replace(self._settings, mode="eager"))
        return self._eager

    def describe(self) -> dict[str, Any]:
        """Return what runs the model now, as :meth:`EngineKind.describe` does."""
        settings = replace(self._settings, mode="eager")
        return self._kind.describe(settings) if self._kind else self._torch_kind.describe(settings)

    def placement(self, arrays: Mapping[str, Any], model: Loadable) -> Allocation:
        """Return what each operation costs on PyTorch, measured."""
        return self._torch_kind.placement(self._torch(), arrays, model, replace(self._settings, mode="eager"))


def _at_ports(model: Loadable) -> Function | None:
    """Return the function of a network at its ports' shapes; None where its layers fit only others."""
    assert model.shaped is not None
    try:
        return model.shaped(None)
    except LoadError:
        return None


def _loop(function: Function) -> str | None:
    """Return an operation with blocks of its own, which graphs do not have here."""
    return next((item.type for item in walk(function.block.operations) if item.blocks), None)
