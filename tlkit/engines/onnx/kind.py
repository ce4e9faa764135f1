"""What the engines that run ONNX graphs are before a model is loaded; imports neither onnx nor a runtime."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from functools import partial
from typing import Any

from tlkit.engines.engine import EMULATED, Engine, EngineKind, HowToRun, Loadable, Refusal
from tlkit.engines.onnx.keep import keep_for
from tlkit.errors import UnavailableError
from tlkit.formats.coreml.legacy import NETWORKS
from tlkit.host.machine import threads
from tlkit.types import Unit


class GraphKind(EngineKind):
    """MIL programs as ONNX graphs, run on the CPU by a library that is an extra of tlkit's."""

    title: str
    """What the library calls itself."""
    module: str
    """What has to be importable beside ``onnx``."""
    extra: str
    precisions: tuple[str, ...] = ("f16", "f32")
    memory: float
    """The memory that compiling a large model takes, over the bytes of its f16 weights: measured by
    ``benchmarks/load.py``."""

    def installed(self) -> bool:
        """Whether the library and onnx are here; imports neither."""
        return all(importlib.util.find_spec(name) is not None for name in (self.module, "onnx"))

    def available(self, *, stand_in: bool = False) -> bool:
        """Whether it may be asked for: always; loading says what is not installed."""
        return True

    def runs(self, kind: str) -> bool:
        """Whether it runs models of ``kind``: mlprograms, and neural networks of before them."""
        return kind == "mlProgram" or kind in NETWORKS

    def refuses(self, settings: HowToRun) -> Refusal | None:
        """Return why it cannot run models with ``settings``, or None."""
        if settings.emulate is not None:
            return EMULATED
        if settings.mode not in self.modes:
            return Refusal(f"{self.title} is not engine '{settings.mode}'", f"use --engine {self.modes[0]}")
        if settings.precision not in self.precisions:
            known = " or ".join(self.precisions)
            return Refusal(f"{self.title} does not run at precision '{settings.precision}'", f"it is {known}")
        if settings.unit not in (Unit.CPU, Unit.ALL):
            return Refusal(f"{self.title} runs on the CPU here", "use --units cpu, or leave --engine out")
        return None

    def load(self, model: Loadable, settings: HowToRun) -> Engine:
        """Make the model ready to be compiled; UnavailableError where the library is not installed."""
        from tlkit.engines.onnx.engine import GraphEngine

        self.require()
        make = partial(self.runtime, settings.precision, settings.streams)
        key = f"{self.title} {importlib.metadata.version(self.module)} {settings.precision}"
        key += "" if settings.streams == 1 else f" {settings.streams} streams"
        return GraphEngine(model, settings, self.title, make, key, keep_for(model, settings))

    def require(self) -> None:
        """Raise UnavailableError, naming the extra, where the library is not installed."""
        missing = [name for name in (self.module, "onnx") if importlib.util.find_spec(name) is None]
        if missing:
            wanted = " and ".join(missing)
            raise UnavailableError(
                f"{wanted} not installed: needed for --engine {self.name}", f"pip install 'tlkit[{self.extra}]'"
            )

    def runtime(self, precision: str, streams: int = 1) -> Any:
        """Return the library as a runtime of ONNX graphs, for ``streams`` inferences at once."""
        raise NotImplementedError

    def begin(self, settings: HowToRun) -> None:
        """Import what loading needs."""
        self.require()
        import tlkit.engines.onnx.engine
        import tlkit.engines.onnx.lower.lower  # noqa: F401

        self.runtime(settings.precision)

    def describe(self, settings: HowToRun) -> dict[str, Any]:
        """Return what runs the model."""
        how = settings.precision + (", not faithful to f16" if settings.precision == "bf16" else "")
        version = importlib.metadata.version(self.module)
        return {
            "backend": f"{self.title} {version}, {how}",
            "device": "cpu",
            "threads": threads(),
            "kind": "cpu",
        }
