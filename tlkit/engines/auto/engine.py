"""The engine that ``auto`` loads: PyTorch for the first inferences, and what is faster once that pays.

A graph compiler takes seconds, which one inference never earns back. So PyTorch eager runs the first inferences of a
model, unless what was compiled before lies in the cache; graphs are compiled when more follow, or at once where
inputs are bound to be run again and again. Programs without a graph are known by a look at their operations. Of the
others each engine compiles its own, a short trial says which is the fastest (``engines/trial.py``), and the cache keeps
that beside the graph, so that it is not asked twice. What an engine refuses, the next one gets, and PyTorch in the end.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from tlkit.engines.engine import Allocation, Engine, HowToRun, Loadable
from tlkit.engines.onnx.engine import GraphEngine
from tlkit.engines.onnx.keep import LARGE, Keep, keep_for, size_of
from tlkit.engines.onnx.kind import GraphKind
from tlkit.engines.onnx.kit.graph import UnsupportedGraph
from tlkit.engines.torch.kind import TorchKind
from tlkit.engines.trial import at_once, trial
from tlkit.errors import LoadError, UnavailableError
from tlkit.host.conditions import is_busy
from tlkit.host.machine import available_memory
from tlkit.mil.program import Function, walk
from tlkit.words import byte_text

FIRST = 2
"""Inferences by PyTorch before compiling pays."""
_EAGER = "PyTorch"
_TAKEN = "has a graph"
"""What the cache holds for a program that was looked at and has a graph."""


class AutoEngine:
    """Runs a model by PyTorch or by one of ``candidates``; ``why`` says in words which one, and for what reason."""

    name = "auto"

    def __init__(self, model: Loadable, settings: HowToRun, candidates: Sequence[GraphKind], torch: TorchKind) -> None:
        self._model, self._settings, self._torch_kind = model, settings, torch
        self._eager: Engine | None = None
        self._fast: Engine | None = None
        self._unchosen = False
        self._kind: GraphKind | None = None
        self._candidates, self._left = tuple(candidates), list(candidates)
        self._keep = keep_for(model, settings) if candidates else Keep(None)
        self._known = False
        self._count = 0
        self.why = "PyTorch, eager, for the first inferences"
        if not candidates:
            self.why = "PyTorch, eager: no faster engine is installed for this"
        if self._left and not self._keep.has(_TAKEN):
            self._consider(model)
        if not self._left and settings.precision != "bf16":
            self._torch()  # errors appear now

    def _consider(self, model: Loadable) -> None:
        """Drop all candidates for a program that has no graph."""
        # Only where a faster engine is installed, and once: the lowerings take a while to import.
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
            self._keep.store(_TAKEN, lambda: b"yes")

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

    def run_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Run on each of ``rows``; return the outputs of each by name."""
        engine = self._engine(rows[0], self._count >= FIRST) if rows else None
        if not isinstance(engine, GraphEngine):
            return [self.run(row) for row in rows]
        try:
            found = engine.run_rows(rows)
        except (UnsupportedGraph, UnavailableError):
            return [self.run(row) for row in rows]  # which takes the next engine
        self._count += len(rows)
        return found

    def bind(self, arrays: Mapping[str, Any], state: Any = None) -> Callable[[], Any]:
        """Convert the inputs once, compiling if that is needed; return a call that runs exactly one inference."""
        engine = self._engine(arrays, True)
        try:
            return engine.bind(arrays, state)
        except (UnsupportedGraph, UnavailableError) as error:
            return self._next(engine, error).bind(arrays, state)

    def streams(self, arrays: Mapping[str, Any]) -> int:
        """Return how many inferences on inputs like these run at once with the most throughput, compiling if needed."""
        engine = self._engine(arrays, True)
        try:
            return engine.streams(arrays) if isinstance(engine, GraphEngine) else 1
        except (UnsupportedGraph, UnavailableError) as error:
            self._next(engine, error)
            return 1

    @property
    def chosen(self) -> str:
        """What runs the model now, as ``--engine`` names it."""
        return self._kind.name if self._kind else "eager"

    def _engine(self, arrays: Mapping[str, Any], pays: bool) -> Engine:
        """Return the engine for an inference; ``pays`` says that compiling is worth it."""
        if pays and self._unchosen:
            self._fast, self._kind, self._unchosen = None, None, False
        if self._fast is None and self._left:
            self._remember(arrays)
            if pays or self._settings.precision == "bf16":
                self._compete(arrays)
            elif self._left:  # not where the trial's winner was PyTorch
                self._take_first(arrays)
        return self._fast or self._fallback()

    def _fallback(self) -> Engine:
        """Return PyTorch; UnavailableError where bf16 is asked for, which it would compute in f32."""
        if self._settings.precision == "bf16":
            raise UnavailableError(
                f"bf16 needs an engine that has it: {self.why.partition(': ')[2]}", "use --precision f32"
            )
        return self._torch()

    def _remember(self, arrays: Mapping[str, Any]) -> None:
        """Keep only what an earlier trial chose, if there was one."""
        if self._known:
            return
        chosen = self._keep.load(self._question(arrays))
        if chosen is None:
            return
        self._known = True
        self._left = [kind for kind in self._left if kind.name == chosen.decode()]
        if not self._left:
            self.why = "PyTorch, eager: the fastest here, as a trial showed before"

    def _question(self, arrays: Mapping[str, Any]) -> str:
        """Return what a choice depends on, beyond the model and the machine."""
        asked = [f"{kind.name} {importlib.metadata.version(kind.module)}" for kind in self._candidates]
        shapes = [tuple(np.shape(array)) for array in arrays.values()]
        return f"fastest in turns of two: {asked} {self._settings.precision} {self._settings.streams} {shapes}"

    def _take_first(self, arrays: Mapping[str, Any]) -> None:
        """Load what was chosen before, if its graph lies in the cache. A graph without a choice (a busy machine's trial
        leaves one) runs until there is another trial."""
        for kind in self._left:
            with suppress(LoadError, UnavailableError):
                made = kind.load(self._model, self._settings)
                assert isinstance(made, GraphEngine)
                if made.ready(arrays):
                    self._unchosen = not self._known
                    how = "compiled before" if self._unchosen else "the fastest here, as a trial showed before"
                    self._take(kind, made, f"{kind.title}: {how}")
                    return

    def _take(self, kind: GraphKind, engine: GraphEngine, why: str) -> None:
        self._fast, self._kind, self._eager, self.why = engine, kind, None, why

    def _compete(self, arrays: Mapping[str, Any]) -> None:
        """Compile with each engine that is left, and keep the one that is the fastest in a trial."""
        compiled: dict[str, tuple[GraphKind, GraphEngine]] = {}
        calls: dict[str, Callable[[], Any]] = {}
        counts: dict[str, int] = {}
        size = size_of(self._model)
        large = size > LARGE
        if large:
            self._eager = None  # what it has widened by now would lie beside what is compiled
        for kind in tuple(self._left):
            needed, there = kind.memory * size, available_memory()
            if needed > there:
                self._give_up(_too_large(needed, there), kind)
                continue
            try:
                made = kind.load(self._model, self._settings)
                assert isinstance(made, GraphEngine)
                together = made.streams(arrays) if self._settings.streams != 1 else 1
                calls[kind.title] = at_once([made.bind(arrays) for _ in range(together)])
                counts[kind.title] = together
            except (LoadError, UnavailableError) as error:
                self._give_up(error.message, kind)
                continue
            compiled[kind.title] = kind, made
            if self._known or large or self._settings.precision == "bf16":
                self._take(kind, made, f"{kind.title}: the fastest that is installed and takes this program")
                return
        if not compiled:
            return
        calls[_EAGER] = self._torch().bind(arrays)
        taken = {name: seconds / counts.get(name, 1) for name, seconds in trial(calls).items()}
        best = min(taken, key=lambda name: taken[name])
        figures = ", ".join(
            f"{name} {1e3 * taken[name]:.3g} ms" for name in sorted(taken, key=lambda name: taken[name])
        )
        for name, (kind, made) in compiled.items():
            if name == best:
                self._take(kind, made, f"{name}: the fastest in a trial ({figures})")
            else:
                made.forget(arrays)
        if best == _EAGER:
            self._left.clear()
            self.why = f"PyTorch, eager: the fastest in a trial ({figures})"
        if is_busy():  # others' work may have decided it: asked again in the next process
            self.why += ", not kept, for the machine is busy"
            return
        name = self._kind.name if self._kind else "eager"
        self._keep.store(self._question(arrays), name.encode)

    def _next(self, engine: Engine, error: LoadError | UnavailableError) -> Engine:
        """Return the engine after one that refused; raise the error where that was PyTorch."""
        if engine is not self._fast:
            raise error
        assert self._kind is not None
        self._give_up(error.message, self._kind)
        if not self._left and self._settings.precision == "bf16":
            raise error
        return self._torch()

    def _give_up(self, message: str, refused: GraphKind) -> None:
        self._left = [kind for kind in self._left if kind is not refused]
        self._fast = self._kind = None
        self.why = f"PyTorch, eager: {refused.title} was left out: {message}"

    def _torch(self) -> Engine:
        if self._eager is None:
            self._eager = self._torch_kind.load(self._model, replace(self._settings, mode="eager"))
        return self._eager

    def describe(self) -> dict[str, Any]:
        """Return what runs the model now, as :meth:`EngineKind.describe` does."""
        settings = replace(self._settings, mode="eager")
        found = self._kind.describe(settings) if self._kind else self._torch_kind.describe(settings)
        return found | {"why": self.why}

    def placement(self, arrays: Mapping[str, Any], model: Loadable) -> Allocation:
        """Return what each operation costs on PyTorch, measured."""
        return self._torch_kind.placement(self._torch(), arrays, model, replace(self._settings, mode="eager"))


def _too_large(needed: float, there: float) -> str:
    return f"compiling takes about {byte_text(int(needed))} of memory, and {byte_text(int(there))} are free"


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
