"""``--engine auto``: which engine it may pick, before a model is loaded; imports nothing heavy."""

from __future__ import annotations

from typing import Any

from tlkit.engines.engine import EMULATED, Engine, EngineKind, HowToRun, Loadable, Refusal
from tlkit.engines.onnx.kind import GraphKind
from tlkit.engines.torch.kind import TorchKind
from tlkit.host.machine import gpu_expected, is_mac
from tlkit.types import Unit


class AutoKind(EngineKind):
    """PyTorch, or one of ``faster`` (the fastest first) where it is installed and takes the program.

    What takes values back to the program, such as watching it operation by operation, PyTorch does.
    """

    name = "auto"
    modes = ("auto",)

    def __init__(self, faster: tuple[GraphKind, ...], torch: TorchKind) -> None:
        self.faster, self.torch = faster, torch

    def available(self, *, stand_in: bool = False) -> bool:
        """Whether it is available: always, with PyTorch."""
        return True

    def runs(self, kind: str) -> bool:
        """Whether it runs models of ``kind``: what PyTorch does."""
        return self.torch.runs(kind)

    def refuses(self, settings: HowToRun) -> Refusal | None:
        """Return why it cannot run models with ``settings``, or None."""
        if settings.emulate is not None:
            return EMULATED
        if settings.mode != "auto":
            return Refusal("this is engine 'auto'", "leave --engine out")
        if settings.precision == "bf16" and not self.candidates(settings):
            return Refusal("bf16 needs OpenVINO and the CPU", "pip install 'tlkit[openvino]'")
        return None

    def candidates(self, settings: HowToRun) -> tuple[GraphKind, ...]:
        """Return the faster engines that are installed and take the settings, the fastest first."""
        on_cpu = settings.unit is Unit.CPU or (settings.unit is Unit.ALL and not gpu_expected() and not is_mac())
        able = (kind for kind in self.faster if settings.precision in kind.precisions and kind.installed())
        return tuple(able) if on_cpu else ()

    def checks(self, settings: HowToRun) -> bool:
        """Whether a check by PyTorch executes a model as running it does: as the first inference is run."""
        return settings.precision != "bf16"

    def load(self, model: Loadable, settings: HowToRun) -> Engine:
        """Make the model ready on PyTorch; what is faster is compiled when that pays."""
        from tlkit.engines.auto.engine import AutoEngine

        return AutoEngine(model, settings, self.candidates(settings), self.torch)

    def units(self) -> tuple[Unit, ...]:
        """Return what PyTorch has."""
        return self.torch.units()

    def begin(self, settings: HowToRun) -> None:
        """Import what loading needs."""
        import tlkit.engines.auto.engine  # noqa: F401

        self.torch.begin(settings)
        for kind in self.candidates(settings)[:1]:
            kind.begin(settings)

    def describe(self, settings: HowToRun) -> dict[str, Any]:
        """Return what would run the model first; :meth:`AutoEngine.describe` knows what does."""
        found = self.candidates(settings)
        return found[0].describe(settings) if found else self.torch.describe(settings)

    placement_is_costly = True
