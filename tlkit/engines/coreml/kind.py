"""The Core ML engine's properties before a model is loaded; imports coremltools only to run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tlkit.engines.coreml import engine as coreml
from tlkit.engines.coreml.plan import compute_plan
from tlkit.engines.engine import EMULATED, Allocation, Arrays, Engine, EngineKind, HowToRun, Loadable, Refusal
from tlkit.host.machine import is_mac
from tlkit.types import Unit


class CoreMLKind(EngineKind):
    """Apple's own runtime, on a Mac, for every kind of model; the settings are its compute units."""

    name = "coreml"

    def available(self, *, stand_in: bool = False) -> bool:
        """Whether it is here: on a Mac, or by way of ``tlkit.anywhere``."""
        return is_mac() or (stand_in and coreml.available())

    def runs(self, kind: str) -> bool:
        """Whether it runs models of ``kind``: all that it can compile."""
        return True

    def refuses(self, settings: HowToRun) -> Refusal | None:
        """Return why it cannot run models with ``settings``, or None."""
        if settings.emulate is not None:
            return EMULATED
        mode = "eager" if settings.mode == "auto" else settings.mode
        asked = (settings.precision, mode, settings.strict_mil, settings.threads)
        if settings.part:
            return Refusal("Core ML runs a pipeline as a whole", "run a stage without --units")
        if asked == ("f16", "eager", False, None):
            return None
        return Refusal(
            "engine, precision, threads and strict_mil are PyTorch's, and on a Mac Core ML runs the model",
            "leave --engine, --precision, --threads and --strict-mil out",
        )

    def load(self, model: Loadable, settings: HowToRun) -> Engine:
        """Load the model; one that is not compiled is compiled first."""
        return coreml.CoreMLEngine(model.path, model.inputs, unit=settings.unit, function=model.function)

    def units(self) -> tuple[Unit, ...]:
        """Return Core ML's four settings."""
        return tuple(Unit)

    def compile(self, path: Path, folder: Path) -> Path:
        """Return the compiled model that every setting loads.

        Core ML's cache for the Neural Engine is keyed by path: a new path makes a setting's first load a cold one, and
        keeping it makes the second warm.
        """
        return path if path.suffix == ".mlmodelc" else coreml.compile_model(path, folder)

    def begin(self, settings: HowToRun) -> None:
        """Import what loading needs."""
        import coremltools  # noqa: F401

    def describe(self, settings: HowToRun) -> dict[str, Any]:
        """Return what runs the model."""
        return {"backend": "Core ML", "device": settings.unit, "threads": None, "kind": f"coreml {sys.platform}"}

    def placement(self, engine: Engine, arrays: Arrays, model: Loadable, settings: HowToRun) -> Allocation:
        """Return Core ML's own plan for the setting; UnavailableError where it has none."""
        plan = compute_plan(model.path, settings.unit, model.function)
        return Allocation("MLComputePlan", tuple((op.name, op.type, op.unit, op.cost) for op in plan))
