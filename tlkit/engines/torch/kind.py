"""The torch engine's properties before a model is loaded; imports torch only to run."""

from __future__ import annotations

from typing import Any

from tlkit.engines.engine import Allocation, Arrays, Can, Engine, EngineKind, HowToRun, Loadable, Refusal
from tlkit.formats.coreml.legacy import NETWORKS
from tlkit.host.machine import gpu_expected
from tlkit.types import Unit


class TorchKind(EngineKind):
    """MIL programs lowered to PyTorch, on any machine."""

    name = "torch"
    modes = ("eager", "compile")
    can = frozenset({Can.WATCH, Can.CHECK})
    placement_is_costly = True

    def available(self, *, stand_in: bool = False) -> bool:
        """Whether it is available: always, PyTorch comes with tlkit."""
        return True

    def runs(self, kind: str) -> bool:
        """Whether it runs models of ``kind``: mlprograms, and neural networks of before them."""
        return kind == "mlProgram" or kind in NETWORKS

    def refuses(self, settings: HowToRun) -> Refusal | None:
        """Return why it cannot run models with ``settings``, or None."""
        if settings.emulate is not None and (settings.precision != "f16" or settings.mode == "compile"):
            return Refusal("units are emulated in f16, operation by operation", "leave --precision and --engine out")
        if settings.precision == "bf16":
            return Refusal("PyTorch does not run at precision 'bf16' here", "use --engine openvino")
        if settings.mode in (*self.modes, "auto"):
            return None
        return Refusal(f"PyTorch has no engine '{settings.mode}'", f"it is {' or '.join(self.modes)}")

    def checks(self, settings: HowToRun) -> bool:
        """Whether a check executes a model exactly as running it does: not where it is compiled."""
        return settings.mode != "compile"

    def load(self, model: Loadable, settings: HowToRun) -> Engine:
        """Lower the program and move its weights to the device."""
        from tlkit.engines.torch.engine import TorchEngine

        how: dict[str, Any] = {"precision": settings.precision, "engine": settings.mode, "unit": settings.unit}
        how |= {"strict_mil": settings.strict_mil, "emulate": settings.emulate}
        if model.shaped is not None:
            from tlkit.engines.torch.shaped import ShapedEngine

            return ShapedEngine(model.shaped, **how)
        return TorchEngine(model.program(), **how)

    def units(self) -> tuple[Unit, ...]:
        """Return the CPU, and the GPU if the machine has one."""
        return (Unit.CPU, Unit.GPU) if gpu_expected() else (Unit.CPU,)

    def begin(self, settings: HowToRun) -> None:
        """Import what loading needs; UnavailableError where the unit's device is not here."""
        import tlkit.engines.torch.engine  # noqa: F401
        from tlkit.engines.torch.device import device_for

        device_for(settings.unit)

    def rebinds(self, settings: HowToRun) -> bool:
        """Whether inputs can be bound again: not with ``compile``, where binding compiles and runs the model."""
        return settings.mode == "eager"

    def describe(self, settings: HowToRun) -> dict[str, Any]:
        """Return what runs the model."""
        from tlkit.engines.torch.device import described, device_for

        return described(device_for(settings.unit), f"{settings.mode}, {settings.precision}")

    def placement(self, engine: Engine, arrays: Arrays, model: Loadable, settings: HowToRun) -> Allocation:
        """Return what each operation costs here, measured."""
        from tlkit.engines.torch.engine import TorchEngine
        from tlkit.engines.torch.profile import costs, profile
        from tlkit.engines.torch.roofline import roofline
        from tlkit.engines.torch.shaped import ShapedEngine

        engine = engine.of(arrays) if isinstance(engine, ShapedEngine) else engine
        assert isinstance(engine, TorchEngine)
        kind = "cpu" if engine.device.type == "cpu" else "gpu"
        found = profile(engine, arrays)
        total = sum(item.nanoseconds for item in found) or 1.0
        operations = tuple((item.name, item.type, kind, item.nanoseconds / total) for item in found)
        roof = roofline(engine.device)
        limits = {"gmacs_per_s": roof.gmacs_per_s, "gb_per_s": roof.gb_per_s}
        return Allocation("measured", operations, costs(engine, found), limits)
