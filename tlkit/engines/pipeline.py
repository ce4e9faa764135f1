"""Run a Core ML pipeline stage by stage: each stage's outputs are available to later ones by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from tlkit.types import TensorSpec


class Stage(Protocol):
    """What a pipeline requires of a loaded model."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The ports that it takes."""

    def prepare(self) -> None:
        """Make the engine ready."""

    def predict(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs by name."""


class PipelineEngine:
    """Runs loaded stages in order, each on the inputs and the outputs of earlier stages, by name."""

    name = "pipeline"

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = tuple(stages)
        for stage in self._stages:
            stage.prepare()

    def make_state(self) -> None:
        """Return no state: Core ML's pipelines have none."""

    def run(self, arrays: Mapping[str, Any], state: Any = None) -> dict[str, Any]:
        """Run every stage once; return all features by name, including the inputs."""
        features = dict(arrays)
        for stage in self._stages:
            given = {spec.name: features[spec.name] for spec in stage.inputs if spec.name in features}
            features |= stage.predict(given)
        return features

    def bind(self, arrays: Mapping[str, Any], state: Any = None) -> Callable[[], dict[str, Any]]:
        """Return a call that runs the whole pipeline once, including the conversions between stages."""
        return lambda: self.run(arrays)
