"""A Core ML pipeline run stage by stage: what a stage puts out, a later one may take by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from tlkit.types import TensorSpec


class Stage(Protocol):
    """What a pipeline asks of a loaded model."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The ports that it takes."""

    def prepare(self) -> None:
        """Make the engine ready."""

    def predict_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the outputs of each of several inferences by name."""


class PipelineEngine:
    """Runs loaded stages in order, each on the features that the inputs and the stages before it have named.

    ``renamed`` gives the pipeline's own name of an output for the last stage's, where the two differ.
    """

    name = "pipeline"

    def __init__(self, stages: Sequence[Stage], renamed: Mapping[str, str] | None = None) -> None:
        self._stages = tuple(stages)
        self._renamed = dict(renamed or {})
        for stage in self._stages:
            stage.prepare()

    def make_state(self) -> None:
        """Return no state: Core ML's pipelines have none."""

    def run(self, arrays: Mapping[str, Any], state: Any = None) -> dict[str, Any]:
        """Run every stage once; return all features by name, the inputs among them."""
        return self.run_rows([arrays])[0]

    def run_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Run every stage once for each of ``rows``; return all features of each."""
        features = [dict(row) for row in rows]
        for stage in self._stages:
            # A stage is given only what it takes: other features would be refused as unknown inputs.
            names = [spec.name for spec in stage.inputs]
            given = [{name: row[name] for name in names if name in row} for row in features]
            for row, found in zip(features, stage.predict_rows(given), strict=True):
                row |= found
        for row in features:
            row |= {outer: row[inner] for inner, outer in self._renamed.items() if inner in row and outer not in row}
        return features

    def bind(self, arrays: Mapping[str, Any], state: Any = None) -> Callable[[], dict[str, Any]]:
        """Return a call that runs the whole pipeline once; what passes between stages is converted in it."""
        return lambda: self.run(arrays)
