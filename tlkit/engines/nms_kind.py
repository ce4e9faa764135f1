"""The properties of the engine for nonMaximumSuppression models before one is loaded; light to import."""

from __future__ import annotations

from tlkit.engines.engine import Engine, EngineKind, HowToRun, Loadable


class NmsKind(EngineKind):
    """Models that are nonMaximumSuppression and nothing else, on any machine."""

    name = "nms"

    def available(self, *, stand_in: bool = False) -> bool:
        """Whether it is here: always."""
        return True

    def runs(self, kind: str) -> bool:
        """Whether it runs models of ``kind``."""
        return kind == "nonMaximumSuppression"

    def load(self, model: Loadable, settings: HowToRun) -> Engine:
        """Take the model's part of the protobuf."""
        from tlkit.engines.nms import NmsEngine

        return NmsEngine(model.message.nonMaximumSuppression, model.outputs)
